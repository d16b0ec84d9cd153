package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

// operator is the name under which a tool asks how a server stands; no server is called so.
const operator = "operator"

// server is what all goroutines share.
type server struct {
	name   string
	secret []byte
	boot   uint64 // which life of this process it is
	places *places

	mutex       sync.Mutex // guards everything below
	told        *sync.Cond // a link has told its neighbour something, or is gone
	records     records
	neighbours  []*neighbour
	clients     map[*net.TCPConn]bool
	lastSerial  uint64
	lastRefusal string
	isStopping  bool
}

// neighbour is a server that this one is linked with, or wants to be.
type neighbour struct {
	name   string
	weDial bool
	link   *link
	heard  *heard // what we have of its feed
}

// heard is how far a neighbour's feed has been heard.
type heard struct {
	boot     uint64 // in which of its lives
	position uint64 // up to which of its changes
	teacher  uint64 // under which what it taught us is kept
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

// find is the neighbour of that name, or nil.
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

// update takes a record of an own client. It returns the number of the change, 0 if there is none.
func (s *server) update(line, client []byte, order order, received posixTime) (seq uint64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if !s.records.update(line, client, order, received) {
		return 0
	}
	s.wakeLinks()
	return s.records.lastSeq
}

// wakeLinks tells the links that there is a change. The mutex is held.
func (s *server) wakeLinks() {
	for _, n := range s.neighbours {
		if n.link != nil {
			n.link.wakeUp()
		}
	}
}

// waitUntilTold waits until all neighbours that are linked have been told of a change. One that is behind is not waited for.
func (s *server) waitUntilTold(seq uint64) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, n := range s.neighbours {
		for n.link != nil && !n.link.isBehind && n.link.position < seq {
			s.told.Wait()
		}
	}
}

// line is a copy of the AT line of a client, without its LF, or nil.
func (s *server) line(client []byte) []byte {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if record := s.records.byClient[string(client)]; record != nil {
		return append([]byte(nil), record.line...)
	}
	return nil
}

// status tells an operator how the server stands.
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

// nextSerial is a number that was not given out before. The mutex is held.
func (s *server) nextSerial() uint64 {
	s.lastSerial++
	return s.lastSerial
}

// isNews says whether the log was last told of another refusal: whoever is refused tries again every second.
func (s *server) isNews(refusal string) bool {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	isNews := s.lastRefusal != refusal
	s.lastRefusal = refusal
	return isNews
}

// stopClients lets every client end when it waits for its next command.
func (s *server) stopClients() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.isStopping = true
	for conn := range s.clients {
		conn.SetReadDeadline(longAgo)
	}
}

// stopLinks says goodbye to the neighbours.
func (s *server) stopLinks() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for _, n := range s.neighbours {
		if n.link != nil {
			n.link.end(goodbye)
		}
	}
}
