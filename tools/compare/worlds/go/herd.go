package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// operator is the name under which a tool asks for a server's status. No server has this name.
const operator = "operator"

// server is the state that all goroutines share.
type server struct {
	name   string
	secret []byte
	boot   uint64 // the id of this life of the process
	places *places

	mutex       sync.Mutex // guards all fields below
	told        *sync.Cond // signalled when a neighbour has got something, or its link has ended
	records     records
	neighbours  []*neighbour
	clients     map[*net.TCPConn]bool
	lastSerial  uint64
	lastRefusal string
	isStopping  bool
}

// neighbour is a server with which this one is or should be linked.
type neighbour struct {
	name   string
	weDial bool
	link   *link
	heard  *heard // the received part of its feed
}

// heard is the progress in a neighbour's feed, the ordered list of its changes.
type heard struct {
	boot     uint64 // the life of the neighbour
	position uint64 // the last received change
	teacher  uint64 // the id of this life as the origin of records
}

func newServer(o *options, places *places, secret []byte) (*server, error) {
	boot, err := randomBytes(8)
	if err != nil {
		return nil, err
	}
	s := &server{
		name:    o.name,
		secret:  secret,
		boot:    binary.BigEndian.Uint64(boot),
		places:  places,
		records: records{byClient: map[string]*record{}},
		clients: map[*net.TCPConn]bool{},
	}
	s.told = sync.NewCond(&s.mutex)
	for _, name := range o.dialledNames() {
		s.neighbours = append(s.neighbours, &neighbour{name: name, weDial: true})
	}
	for _, name := range o.accept {
		s.neighbours = append(s.neighbours, &neighbour{name: name})
	}
	return s, nil
}

// find returns the neighbour with this name, or nil.
func (s *server) find(name string) *neighbour {
	for _, n := range s.neighbours {
		if n.name == name {
			return n
		}
	}
	return nil
}

// offer takes a neighbour's record if it is the newest of its client.
func (s *server) offer(line, client []byte, order order, teacher uint64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if s.records.offer(line, client, order, teacher) {
		s.wakeLinks()
	}
}

// update takes a record of an own client. It returns the number of the change, or 0 if there is
// none.
func (s *server) update(line, client []byte, order order, received posixTime) (seq uint64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if !s.records.update(line, client, order, received) {
		return 0
	}
	s.wakeLinks()
	return s.records.lastSeq
}

// wakeLinks wakes the links after a change. The caller holds the mutex.
func (s *server) wakeLinks() {
	for _, n := range s.neighbours {
		if n.link != nil {
			n.link.wakeUp()
		}
	}
}

// waitUntilTold waits until all linked neighbours have got a change. It does not wait for slow
// ones.
func (s *server) waitUntilTold(seq uint64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, n := range s.neighbours {
		for n.link != nil && !n.link.isBehind && n.link.position < seq {
			s.told.Wait()
		}
	}
}

// line returns a copy of a client's AT line without its LF, or nil.
func (s *server) line(client []byte) []byte {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if record := s.records.byClient[string(client)]; record != nil {
		return append([]byte(nil), record.line...)
	}
	return nil
}

// status returns the server's status, for an operator.
func (s *server) status() string {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	var line strings.Builder
	r := &s.records
	fmt.Fprintf(&line, "STATUS boot=%016x wall=%d records=%d digest=%016x clients=%d stale=%d refused=0 ahead=%d behind=%d",
		s.boot, time.Now().UnixNano(), len(r.byClient), r.digest, len(s.clients), r.stale, r.ahead, r.behind)
	for _, n := range s.neighbours {
		if n.link != nil {
			unconfirmed := r.lastSeq - n.link.kept
			if n.link.kept > r.lastSeq {
				unconfirmed = 0
			}
			fmt.Fprintf(&line, " link=%d:?:%d:%s", unconfirmed, n.link.lacks, n.name)
		}
	}
	return line.String()
}

// nextSerial returns a new number. The caller holds the mutex.
func (s *server) nextSerial() uint64 {
	s.lastSerial++
	return s.lastSerial
}

// isNews says whether this refusal differs from the last logged one. A refused peer tries again
// every second.
func (s *server) isNews(refusal string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	isNews := s.lastRefusal != refusal
	s.lastRefusal = refusal
	return isNews
}

// stopClients ends each client when it waits for its next command.
func (s *server) stopClients() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.isStopping = true
	for conn := range s.clients {
		conn.SetReadDeadline(longAgo)
	}
}

// stopLinks ends all links with a goodbye.
func (s *server) stopLinks() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, n := range s.neighbours {
		if n.link != nil {
			n.link.end(goodbye)
		}
	}
}
