package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"strings"
	"time"
)

const (
	// version is the version of the neighbours' protocol.
	version = "2"
	// linkLineBytes is the greatest length of a line: a client's line, a server's name, a skew, and
	// perhaps an epoch.
	linkLineBytes = 4096 + 256
	// batchBytes is the size of one write.
	batchBytes = 64 * 1024
	// linkConnect is the time limit of a connect.
	linkConnect = 3 * time.Second
	// linkProof is the time limit for a peer's proof.
	linkProof = 5 * time.Second
	heartbeat = 3 * time.Second
	// confirmAfter is the delay of a KEPT, so that one confirms many batches.
	confirmAfter = 200 * time.Millisecond
	// silence is the time without input after which the link is closed.
	silence = 10 * time.Second
	// slowAfter: if a neighbour's socket takes no bytes for so long, clients do not wait for it.
	slowAfter = 100 * time.Millisecond
	// steady: after a link that held for so long, the first redial comes soon.
	steady      = 2 * time.Second
	redialFirst = 100 * time.Millisecond
	redialCap   = time.Second
	// clockTolerance: a greater difference of the wall clocks is logged.
	clockTolerance = time.Second
	// shownBytes: at most so many bytes of the peer's line are logged.
	shownBytes = 100
)

// link is a connection between two servers of the herd. The protocol is described in herd-mio's
// core/link.
//
// First both ends prove their names, line by line. Then one goroutine reads and another one writes.
// There have to be two. If a server did not read while it writes, two servers that write to each
// other at the same time would wait for ever.
type link struct {
	server    *server
	conn      *net.TCPConn
	isDialler bool
	neighbour *neighbour // the dialled neighbour, or the one that the peer claims to be
	isProven  bool
	lines     *lineReader
	out       []byte // output before the next line

	// After the handshake:
	teacher     uint64
	linkedSince time.Time
	hasNews     bool
	wake        chan struct{} // there is something to send
	over        chan struct{} // closed when the link ends

	// Guarded by the server's mutex:
	position uint64 // the neighbour has all changes up to this one
	isBehind bool   // it still lacks older records, or its socket takes no bytes
	farewell string // why this server ends it
	// The confirmed position in its feed, and the time of the next confirmation, if one is due.
	confirmed uint64
	confirmAt time.Time
	// The peer's reports: the position in our feed that it has kept, and the number of records that it
	// refused.
	kept, lacks uint64
}

// goodbye is the reason that neighbours get when the server stops.
const goodbye = "stopping"

// broken is why this server ends a link. The peer gets the reason.
type broken string

func (b broken) Error() string { return string(b) }

func breakOff(format string, arguments ...any) error {
	return broken(fmt.Sprintf(format, arguments...))
}

func unexpected(line []byte) error { return breakOff("not the neighbours' protocol: %s", shown(line)) }

// shown is the beginning of a peer's line, escaped for the log.
func shown(bytes []byte) string {
	if len(bytes) > shownBytes {
		bytes = bytes[:shownBytes]
	}
	return escaped(bytes)
}

var errClosed = errors.New("it closed the connection")

// serveLink serves a peer that connected to the neighbours' port.
func (s *server) serveLink(conn *net.TCPConn) {
	l := newLink(s, conn, nil)
	l.tellLog(l.run())
}

func newLink(s *server, conn *net.TCPConn, dialled *neighbour) *link {
	l := &link{
		server:    s,
		conn:      conn,
		isDialler: dialled != nil,
		neighbour: dialled,
		wake:      make(chan struct{}, 1),
		over:      make(chan struct{}),
	}
	l.lines = newLineReader(conn, linkLineBytes, l.beforeRead)
	return l
}

// keepDialling dials a neighbour, again and again, until the server stops.
func (s *server) keepDialling(d dialled) {
	s.mutex.Lock()
	n := s.find(d.name)
	s.mutex.Unlock()
	step, complaint := redialFirst, ""
	for {
		var l *link
		conn, err := net.DialTimeout("tcp", d.address, linkConnect)
		if err == nil {
			l = newLink(s, conn.(*net.TCPConn), n)
			err = l.run()
			conn.Close()
		}
		s.mutex.Lock()
		isStopping := s.isStopping
		s.mutex.Unlock()
		switch {
		case isStopping:
			return
		case l != nil && !l.linkedSince.IsZero():
			l.tellLog(err)
			complaint = ""
			if time.Since(l.linkedSince) >= steady {
				step = redialFirst
			}
		case err.Error() != complaint: // The same failure is logged only once.
			logWarn("neighbour %s %s: not linked: %v; trying on", d.name, d.address, err)
			complaint = err.Error()
		}
		// 50 % to 90 % of a step. So servers that lost the same neighbour do not all dial at the same
		// time.
		time.Sleep(time.Duration(float64(step) * (0.5 + 0.4*rand.Float64())))
		if step *= 2; step > redialCap {
			step = redialCap
		}
	}
}

// run runs a link from its greeting to its end. It returns why the link ended.
func (l *link) run() error {
	l.conn.SetDeadline(time.Now().Add(linkProof))
	err := l.prove()
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = breakOff("it did not prove who it is within %v", linkProof)
	}
	isTold := true
	if err == nil && l.neighbour != nil {
		err, isTold = l.flow()
	}
	reason := broken("")
	if err != nil && !errors.As(err, &reason) {
		return err // A peer that has closed or is silent gets no reason.
	}
	if err != nil && isTold {
		l.say("BYE %s", reason)
	}
	l.conn.SetDeadline(time.Now().Add(linger))
	if l.flush() == nil {
		// The peer is read until it closes, because a reset could destroy the last line.
		l.conn.CloseWrite()
		io.Copy(io.Discard, l.conn)
	}
	return err
}

func (l *link) say(format string, arguments ...any) {
	l.out = append(fmt.Appendf(l.out, format, arguments...), '\n')
}

func (l *link) flush() error {
	_, err := l.conn.Write(l.out)
	l.out = nil
	return err
}

// beforeRead is called whenever the next line is not complete.
func (l *link) beforeRead() error {
	if l.linkedSince.IsZero() {
		return l.flush()
	}
	// The mutex is needed: without it, this could undo the deadline with which end stops the wait.
	l.server.mutex.Lock()
	defer l.server.mutex.Unlock()
	if l.farewell == "" {
		l.conn.SetReadDeadline(time.Now().Add(silence))
	}
	return nil
}

// next is the next line of the handshake, in which one side waits for the other.
func (l *link) next() ([]byte, error) {
	line, err := l.lines.next()
	switch {
	case err == io.EOF:
		return nil, errClosed
	case err == errLineTooLong:
		return nil, breakOff("a line of more than %d bytes", linkLineBytes)
	case err == nil && bytes.HasPrefix(line, []byte("BYE ")):
		return nil, fmt.Errorf("it said goodbye: %s", shown(line[4:]))
	}
	return line, err
}

// words is the next line. It must begin with verb and have so many words.
func (l *link) words(verb string, count int) ([]string, error) {
	line, err := l.next()
	if err != nil {
		return nil, err
	}
	words := strings.Split(string(line), " ")
	if words[0] != verb || len(words) != count {
		return nil, unexpected(line)
	}
	return words, nil
}

// prove lets both ends prove their names. Then an operator gets the server's status, and a
// neighbour is linked.
func (l *link) prove() error {
	s := l.server
	random, err := randomBytes(nonceBytes)
	if err != nil {
		return err
	}
	us := party{s.name, hex.EncodeToString(random)}
	if l.isDialler {
		l.say("HERD %s %s %s %s", version, us.name, l.neighbour.name, us.nonce)
	}
	them, err := l.greeted()
	if err != nil {
		return err
	}
	if !l.isDialler {
		l.say("HERD %s %s %s %s", version, us.name, them.name, us.nonce)
	}

	dialler, acceptor, ourSide, theirSide := them, us, "acceptor", "dialler"
	if l.isDialler {
		dialler, acceptor, ourSide, theirSide = us, them, "dialler", "acceptor"
		// The dialler proves itself first. So an unproven peer that dials gets nothing that was made with
		// the secret.
		l.say("PROOF %s", prove(s.secret, ourSide, dialler, acceptor))
	}
	words, err := l.words("PROOF", 2)
	if err != nil {
		return err
	}
	if !isProof([]byte(words[1]), prove(s.secret, theirSide, dialler, acceptor)) {
		return breakOff("a wrong proof: do both servers have the same herd secret?")
	}
	l.isProven = true
	if !l.isDialler {
		l.say("PROOF %s", prove(s.secret, ourSide, dialler, acceptor))
	}
	if l.neighbour == nil {
		l.say("%s", s.status())
		return nil
	}

	s.mutex.Lock()
	heard := l.neighbour.heard
	known := "- 0"
	if heard != nil {
		known = fmt.Sprintf("%016x %d", heard.boot, heard.position)
	}
	s.mutex.Unlock()
	l.say("LIFE %016x %d %s", s.boot, time.Now().UnixNano(), known)
	words, err = l.words("LIFE", 5)
	if err != nil {
		return err
	}
	return l.life(words)
}

// greeted handles HERD 2 <from> <to> <nonce>. It returns the peer's name and its nonce.
func (l *link) greeted() (them party, err error) {
	s := l.server
	line, err := l.next()
	if err != nil {
		return them, err
	}
	words := strings.Split(string(line), " ")
	if words[0] != "HERD" || len(words) < 2 {
		return them, unexpected(line)
	}
	if words[1] != version {
		return them, breakOff("it speaks version %s of the neighbours' protocol, this server %s; upgrade the older one",
			shown([]byte(words[1])), version)
	}
	if len(words) != 5 {
		return them, unexpected(line)
	}
	from, to, nonce := words[2], words[3], words[4]
	if to != s.name {
		return them, breakOff("it looks for %s, this is %s", shown([]byte(to)), s.name)
	}
	if bytes, err := hex.DecodeString(nonce); err != nil || len(bytes) != nonceBytes {
		return them, breakOff("a nonce that is not %d hexadecimal digits", 2*nonceBytes)
	}
	them = party{from, strings.ToLower(nonce)}
	if !l.isDialler && from == operator {
		return them, nil
	}
	s.mutex.Lock()
	n := s.find(from)
	s.mutex.Unlock()
	switch {
	case n == nil:
		return them, breakOff("%s is not linked with %s", shown([]byte(from)), s.name)
	case l.isDialler && l.neighbour != n:
		return them, breakOff("%s answered instead", from)
	case !l.isDialler && n.weDial:
		return them, breakOff("it is %s that dials %s", s.name, from)
	}
	l.neighbour = n
	return them, nil
}

// life handles LIFE <boot> <wall> <your boot> <position>, which completes the link.
func (l *link) life(words []string) error {
	s, n := l.server, l.neighbour
	boot, hasBoot := hex64([]byte(words[1]))
	wall, hasWall := number([]byte(words[2]))
	ownBoot, knowsBoot := hex64([]byte(words[3]))
	position, hasPosition := number([]byte(words[4]))
	if !hasBoot || !hasWall || !hasPosition {
		return unexpected([]byte(strings.Join(words, " ")))
	}

	s.mutex.Lock()
	defer s.mutex.Unlock()
	// A position counts only for the life from which it came.
	if n.heard == nil || n.heard.boot != boot {
		n.heard = &heard{boot: boot, teacher: s.nextSerial()}
	}
	l.teacher = n.heard.teacher
	if knowsBoot && ownBoot == s.boot && position <= s.records.lastSeq {
		l.position, l.kept = position, position
	}
	l.confirmed = n.heard.position
	// A neighbour that proves itself again has lost the old connection, so the old link ends.
	if n.link != nil {
		n.link.end("a newer connection took its place")
	}
	n.link = l
	l.linkedSince, l.isBehind = time.Now(), true
	logInfo("neighbour %s: linked, %d changes behind", n.name, s.records.lastSeq-l.position)
	if apart := time.Since(time.Unix(0, int64(wall))); apart > clockTolerance || apart < -clockTolerance {
		logWarn("neighbour %s: its clock is %v off ours", n.name, apart.Round(time.Millisecond))
	}
	return nil
}

// flow sends and receives records until the link ends. It returns why the link ended, and whether
// all begun output was sent.
func (l *link) flow() (err error, isTold bool) {
	s := l.server
	if err := l.flush(); err != nil {
		return err, false
	}
	l.conn.SetDeadline(time.Time{})
	told := make(chan error, 1)
	go func() { told <- l.tell() }()
	err = l.hear()

	s.mutex.Lock()
	if l.farewell != "" {
		err = broken(l.farewell)
	}
	if l.neighbour.link == l {
		l.neighbour.link = nil
	}
	s.told.Broadcast()
	s.mutex.Unlock()
	close(l.over)
	// A write that is under way may still succeed, but only for a while.
	cutOff := time.AfterFunc(linger, func() { l.conn.Close() })
	defer cutOff.Stop()
	return err, <-told == nil
}

// end ends the link from another goroutine. The caller holds the server's mutex.
func (l *link) end(reason string) {
	l.farewell = reason
	l.conn.SetReadDeadline(longAgo)
}

// wakeUp wakes the writing goroutine.
func (l *link) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default: // it is awake
	}
}

// tell sends the records that the neighbour lacks whenever the feed has grown, and a heartbeat
// otherwise.
func (l *link) tell() error {
	s := l.server
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	hasToSpeak := true // The first batch has the records that the neighbour lacks.
	var batch []byte
	for {
		s.mutex.Lock()
		var position uint64
		batch, position = s.records.read(l.position, l.teacher, batchBytes, batch[:0])
		isAll := position == s.records.lastSeq
		if len(batch) > 0 || hasToSpeak {
			batch = fmt.Appendf(batch, "SYNC %d\n", position)
		}
		if !l.confirmAt.IsZero() && !time.Now().Before(l.confirmAt) {
			l.confirmed, l.confirmAt = l.neighbour.heard.position, time.Time{}
			batch = fmt.Appendf(batch, "KEPT %d\n", l.confirmed)
		}
		s.mutex.Unlock()
		if len(batch) > 0 {
			if err := l.write(batch); err != nil {
				return err
			}
			hasToSpeak = false
		}
		s.mutex.Lock()
		l.position = position
		l.isBehind = l.isBehind && !isAll
		s.told.Broadcast()
		s.mutex.Unlock()
		if !isAll {
			continue
		}
		select {
		case <-l.wake:
		case <-beat.C:
			hasToSpeak = true
		case <-l.over:
			return nil
		}
	}
}

// write writes to the neighbour, and blocks as long as that takes. After slowAfter, clients do not
// wait for it.
func (l *link) write(batch []byte) error {
	l.conn.SetWriteDeadline(time.Now().Add(slowAfter))
	count, err := l.conn.Write(batch)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	l.server.mutex.Lock()
	l.isBehind = true
	l.server.told.Broadcast()
	l.server.mutex.Unlock()
	l.conn.SetWriteDeadline(time.Time{})
	_, err = l.conn.Write(batch[count:])
	return err
}

// hear receives the neighbour's records until the link ends.
func (l *link) hear() error {
	s := l.server
	for {
		line, err := l.next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("nothing heard for %v", silence)
		case err != nil:
			return err
		case bytes.HasPrefix(line, []byte("AT ")), bytes.HasPrefix(line, []byte("EPOCH ")):
			atLine, at, ok := parseTold(line)
			if !ok {
				return breakOff("not an AT line: %s", shown(line))
			}
			s.offer(atLine, at.client, at.order, l.teacher)
		default:
			if err := l.notice(line); err != nil {
				return err
			}
		}
	}
}

// notice handles SYNC, KEPT, LACKS and CLOCK. Each has a number.
func (l *link) notice(line []byte) error {
	verb, digits, _ := bytes.Cut(line, []byte(" "))
	value, ok := number(digits)
	if !ok {
		return unexpected(line)
	}
	l.server.mutex.Lock()
	defer l.server.mutex.Unlock()
	switch string(verb) {
	case "SYNC":
		l.neighbour.heard.position = value
		if value > l.confirmed && l.confirmAt.IsZero() {
			l.confirmAt = time.Now().Add(confirmAfter)
			time.AfterFunc(confirmAfter, l.wakeUp)
		}
	case "KEPT":
		l.kept = value
	case "LACKS":
		if l.lacks != value {
			logWarn("neighbour %s: records that it had to refuse: %d", l.neighbour.name, value)
		}
		l.lacks = value
	case "CLOCK": // Only LIFE's clock is used.
	default:
		return unexpected(line)
	}
	return nil
}

func (l *link) tellLog(err error) {
	address := l.conn.RemoteAddr()
	switch {
	case !l.linkedSince.IsZero() && l.farewell == goodbye:
		logInfo("neighbour %s %s: lost: %v", l.neighbour.name, address, err)
	case !l.linkedSince.IsZero():
		logWarn("neighbour %s %s: lost: %v", l.neighbour.name, address, err)
	case l.isProven && l.neighbour == nil && err == nil:
		logInfo("operator %s: told how the server stands", address)
	case !l.server.isNews(err.Error()):
		// A refused peer tries again every second. The same refusal is not logged again.
	case l.neighbour != nil:
		logWarn("stranger %s, who says to be %s: refused: %v", address, l.neighbour.name, err)
	default:
		logWarn("stranger %s: refused: %v", address, err)
	}
}
