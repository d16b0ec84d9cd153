package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sort"
)

// sweepFrom: the feed is not swept before it has so many entries.
const sweepFrom = 1024

// nobody is the teacher of what our own clients said.
const nobody = 0

// record is the AT line of a client's latest position, as the server that heard it wrote it.
type record struct {
	line    []byte // without its LF
	order   order
	seq     uint64
	teacher uint64 // the neighbour, in one life of its process, that it was heard from; it is not sent back there
}

// change is an entry of the feed. It is void if its record has changed again.
type change struct {
	seq    uint64
	record *record
}

// records are the table of positions, and the feed of its changes.
//
// An accepted change takes the next sequence number and is appended to the feed, which is how links find what they have not sent
// yet: a link is nothing but a position in the feed, however far behind it is. Void entries are passed over, and swept out when
// they are more than the others.
type records struct {
	byClient map[string]*record
	feed     []change
	lastSeq  uint64
	digest   uint64
	// Of the records of our own clients: how many changed nothing, and whose stamp is far off our
	// clock.
	stale, ahead, behind uint64
}

// hashOf is a line's part in the digest: every server of a herd computes it like this, eight bytes at a time.
func hashOf(line []byte) uint64 {
	hash := uint64(len(line))
	for len(line) > 0 {
		var word [8]byte // the last one is filled up with zeros
		line = line[copy(word[:], line):]
		hash = (hash ^ binary.LittleEndian.Uint64(word[:])) * 0x9e3779b97f4a7c15
		hash ^= hash >> 32
	}
	return hash
}

// stands says whether r stays the record of its client when another is offered.
func (r *record) stands(order order, line []byte) bool {
	c := r.order.compare(order)
	return c > 0 || (c == 0 && bytes.Compare(r.line, line) >= 0)
}

// update takes a record of an own client, received at that time, and says whether it did. If only a
// wrong clock of another server holds it back, it begins the next epoch, which wins everywhere.
func (r *records) update(line, client []byte, order order, received posixTime) bool {
	switch order.lead(received) {
	case 1:
		r.ahead++
	case -1:
		r.behind++
	}
	if known := r.byClient[string(client)]; known != nil {
		order.epoch = known.order.epoch
		if known.stands(order, line) && order.isHeldBackBy(known.order, received) && order.epoch < maxEpoch {
			order.epoch++
		}
	}
	isNews := r.offer(line, client, order, nobody)
	if !isNews {
		r.stale++
	}
	return isNews
}

// offer takes the record of line if it is the newest of its client, and says whether it did.
// Greater epoch, then later effective time, then later stamp, then greater bytes: the order is
// total and the same on every server, so the order of arrival decides nothing.
func (r *records) offer(line, client []byte, order order, teacher uint64) bool {
	known := r.byClient[string(client)]
	if known == nil {
		known = &record{}
		r.byClient[string(client)] = known
	} else {
		if known.stands(order, line) {
			return false
		}
		r.digest -= hashOf(known.line)
	}
	r.digest += hashOf(line)
	r.lastSeq++
	known.line = append(known.line[:0], line...)
	known.order, known.seq, known.teacher = order, r.lastSeq, teacher
	r.feed = append(r.feed, change{r.lastSeq, known})
	if len(r.feed) > sweepFrom+2*len(r.byClient) {
		r.sweep()
	}
	return true
}

func (r *records) sweep() {
	kept := r.feed[:0]
	for _, change := range r.feed {
		if change.record.seq == change.seq {
			kept = append(kept, change)
		}
	}
	r.feed = kept
}

// read appends the records behind the change after to out, oldest first, until out holds fullAt bytes or there are no more; those
// that except taught us are passed over. It returns the change up to which everything is told now.
func (r *records) read(after, except uint64, fullAt int, out []byte) ([]byte, uint64) {
	start := sort.Search(len(r.feed), func(i int) bool { return r.feed[i].seq > after })
	for _, change := range r.feed[start:] {
		if len(out) >= fullAt {
			return out, change.seq - 1
		}
		if change.record.seq == change.seq && change.record.teacher != except {
			if epoch := change.record.order.epoch; epoch > 0 {
				out = fmt.Appendf(out, "EPOCH %d ", epoch)
			}
			out = append(out, change.record.line...)
			out = append(out, '\n')
		}
	}
	return out, r.lastSeq
}
