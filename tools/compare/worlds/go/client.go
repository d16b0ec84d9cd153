package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

const (
	// clientLineBytes is the greatest length of a line before its LF.
	clientLineBytes = 4096
	// keptBytes is the memory for answers that an idle client keeps.
	keptBytes = 64 * 1024
	// linger is the time for which a connection is read after its last output. Otherwise unread input
	// would reset it, and the output could be lost.
	linger = 2 * time.Second
)

// longAgo as a deadline ends every wait.
var longAgo = time.Unix(1, 0)

// client is the connection of a client: commands in, answers out, in order.
type client struct {
	server *server
	conn   *net.TCPConn
	who    string
	out    []byte
	// seq is the last change whose answer is in out. The neighbours must get it first.
	seq uint64
}

func (s *server) serveClient(conn *net.TCPConn) {
	s.mutex.Lock()
	c := &client{server: s, conn: conn, who: fmt.Sprintf("client %d %s", s.nextSerial(), conn.RemoteAddr())}
	s.clients[conn] = true
	if s.isStopping {
		conn.SetReadDeadline(longAgo)
	}
	s.mutex.Unlock()

	// A client may disconnect at any time, so the error does not matter.
	c.converse()

	s.mutex.Lock()
	delete(s.clients, conn)
	s.mutex.Unlock()
}

func (c *client) converse() error {
	lines := newLineReader(c.conn, clientLineBytes, c.flush)
	for {
		line, err := lines.next()
		switch {
		case err == nil:
			err = c.command(bytes.TrimSuffix(line, []byte("\r")))
		case err == io.EOF && len(line) > 0:
			// At the end of input, a last line needs no LF.
			err = c.command(line)
		case err == io.EOF:
			return c.flush()
		case err == errLineTooLong:
			logWarn("%s: closing: a line of more than %d bytes", c.who, clientLineBytes)
			c.quote(line)
			return c.hangUp()
		case errors.Is(err, os.ErrDeadlineExceeded): // the server stops
			return c.hangUp()
		}
		if err != nil {
			return err
		}
	}
}

// flush writes the output, after the neighbours have got its updates. If the client does not read
// its answers, flush blocks, and the client is not read.
func (c *client) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	if c.seq > 0 {
		c.server.waitUntilTold(c.seq)
		c.seq = 0
	}
	_, err := c.conn.Write(c.out)
	if cap(c.out) > keptBytes {
		c.out = nil
	}
	c.out = c.out[:0]
	return err
}

// hangUp ends the conversation. It reads the rest of the input, because a close with unread input
// would reset the connection, and the client could lose its answers (RFC 9293 §3.6.1).
func (c *client) hangUp() error {
	if err := c.flush(); err != nil {
		return err
	}
	c.conn.CloseWrite()
	c.conn.SetReadDeadline(time.Now().Add(linger))
	_, err := io.Copy(io.Discard, c.conn)
	return err
}

func (c *client) command(line []byte) error {
	iamat, whatsat, isBlank := parseCommand(line)
	if isBlank {
		return nil
	}
	if logsInfo {
		logInfo("%s <- %s", c.who, escaped(line))
	}
	switch {
	case iamat != nil:
		c.iamat(iamat)
	case whatsat != nil:
		if atLine := c.server.line(whatsat.client); atLine != nil {
			return c.whatsat(whatsat, atLine)
		}
		c.quote(line)
	default:
		c.quote(line)
	}
	return nil
}

func (c *client) iamat(i *iamat) {
	received := now()
	skew := skewBetween(received, i.stamp)
	start := len(c.out)
	c.out = append(c.out, "AT "...)
	c.out = append(c.out, c.server.name...)
	c.out = append(c.out, ' ')
	c.out = skew.appendTo(c.out)
	for _, field := range [][]byte{i.client, i.location, i.time} {
		c.out = append(c.out, ' ')
		c.out = append(c.out, field...)
	}
	line := c.out[start:]
	c.out = append(c.out, '\n')
	if logsInfo {
		logInfo("%s -> %s", c.who, escaped(line))
	}
	if order, ok := newOrder(i.stamp, skew); ok {
		if seq := c.server.update(line, i.client, order, received); seq > 0 {
			c.seq = seq
		}
	}
}

// whatsat asks Places. Earlier answers are written first.
func (c *client) whatsat(w *whatsat, atLine []byte) error {
	if err := c.flush(); err != nil {
		return err
	}
	at, _ := parseAt(atLine) // The table holds only AT lines.
	latitude, longitude, _ := parseLocation(at.location)
	answer := c.server.places.ask(fmt.Sprintf("location=%s,%s&radius=%s", plain(latitude), plain(longitude), metres(w.radiusNm)))
	json := answer.json(w.bound)
	if logsInfo {
		logInfo("%s -> %s and %d bytes of JSON, %s", c.who, escaped(atLine), len(json), answer.source())
	}
	c.out = append(c.out, atLine...)
	c.out = append(c.out, '\n')
	c.out = append(c.out, json...)
	c.out = append(c.out, "\n\n"...)
	return nil
}

// quote refuses a line: "? " and a copy of it.
func (c *client) quote(line []byte) {
	if logsInfo {
		logInfo("%s -> ? %s", c.who, escaped(line))
	}
	c.out = append(c.out, "? "...)
	c.out = append(c.out, line...)
	c.out = append(c.out, '\n')
}
