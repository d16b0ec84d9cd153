package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sort"
)

// sweepFrom: a feed with fewer entries is never cleaned.
const sweepFrom = 1024

// The origin `nobody` marks records from own clients.
const nobody = 0

// record is the AT line of a client's latest position, as the answering server wrote it.
type record struct {
	line    []byte // without its LF
	order   order
	seq     uint64
	teacher uint64 // its origin: a neighbour in one life of its process, which does not get it back
}

// change is an entry of the feed. It is void if its record has changed again.
type change struct {
	seq    uint64
	record *record
}

// records is the table of records, and the feed of its changes.
//
// An accepted change takes the next sequence number and is appended to the feed. A link is only a
// position in the feed, however old it is. Void entries are skipped. They are removed when the feed
// is more than twice as long as the table, with a margin.
type records struct {
	byClient map[string]*record
	feed     []change
	lastSeq  uint64
	digest   uint64
	// The counts of own clients' records that changed nothing, and of those with stamps far ahead of
	// the server's clock or behind it.
	stale, ahead, behind uint64
}

// hashOf is the hash of a line, for the digest. All servers of a herd use this hash: eight bytes at
// a time.
func hashOf(line []byte) uint64 {
	hash := uint64(len(line))
	for len(line) > 0 {
		var word [8]byte // The last one is padded with zeros.
		line = line[copy(word[:], line):]
		hash = (hash ^ binary.LittleEndian.Uint64(word[:])) * 0x9e3779b97f4a7c15
		hash ^= hash >> 32
	}
	return hash
}

// stands says whether r wins against another record.
func (r *record) stands(order order, line []byte) bool {
	c := r.order.compare(order)
	return c > 0 || (c == 0 && bytes.Compare(r.line, line) >= 0)
}

// update takes a record of an own client with this receipt time, if it wins. It returns whether it
// did. If the record would lose only because of another server's wrong clock, it gets the next
// epoch, and wins everywhere.
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

// offer takes the record of line if it is the newest of its client. It returns whether it did. The
// greater epoch wins, then the later effective time, then the later stamp, then the greater bytes.
// This order is total and the same on every server, so the order of arrival does not matter.
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

// read appends the records after the change after to out, oldest first, until out holds fullAt
// bytes or no more are left. Records from except are skipped. It returns the last change that is
// included or skipped.
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
