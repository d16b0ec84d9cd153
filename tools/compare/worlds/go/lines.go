package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
)

// readerBytes is the greatest number of bytes of one read.
const readerBytes = 16 * 1024

var errLineTooLong = errors.New("a line that is too long")

// lineReader reads lines of at most limit bytes. If the next line is not complete, it calls
// beforeRead first, which writes the output. So one write answers all lines of one read.
type lineReader struct {
	in         *bufio.Reader
	limit      int
	beforeRead func() error
}

func newLineReader(in io.Reader, limit int, beforeRead func() error) *lineReader {
	return &lineReader{bufio.NewReaderSize(in, readerBytes), limit, beforeRead}
}

// next returns the next line without its LF, which is valid until the next call. At the end of
// input it returns the rest and io.EOF. For a line that is too long it returns the first limit
// bytes and errLineTooLong.
func (r *lineReader) next() ([]byte, error) {
	for {
		buffered, _ := r.in.Peek(r.in.Buffered())
		window := buffered
		if len(window) > r.limit+1 {
			window = window[:r.limit+1]
		}
		if end := bytes.IndexByte(window, '\n'); end >= 0 {
			r.in.Discard(end + 1) // It leaves the bytes in place.
			return buffered[:end], nil
		}
		if len(buffered) > r.limit {
			return buffered[:r.limit], errLineTooLong
		}
		if err := r.beforeRead(); err != nil {
			return nil, err
		}
		if _, err := r.in.Peek(len(buffered) + 1); err != nil {
			rest, _ := r.in.Peek(r.in.Buffered())
			r.in.Discard(len(rest))
			return rest, err
		}
	}
}

// isSpace is C's isspace, the white space of the protocol. (unicode.IsSpace accepts more.)
func isSpace(b byte) bool {
	switch b {
	case ' ', '\t', '\r', '\n', '\v', '\f':
		return true
	}
	return false
}

// fields returns the fields of a line, which white space separates. It returns at most five.
func fields(line []byte) [][]byte {
	found := make([][]byte, 0, 5)
	for i := 0; i < len(line) && len(found) < cap(found); {
		if isSpace(line[i]) {
			i++
			continue
		}
		start := i
		for i < len(line) && !isSpace(line[i]) {
			i++
		}
		found = append(found, line[start:i])
	}
	return found
}

// allDigits says whether the text is not empty and has only digits.
func allDigits(text []byte) bool {
	for _, b := range text {
		if b < '0' || b > '9' {
			return false
		}
	}
	return len(text) > 0
}

// allZeros says whether the text has only zeros.
func allZeros(digits []byte) bool { return len(bytes.Trim(digits, "0")) == 0 }

// number parses a whole number of digits only.
func number(text []byte) (uint64, bool) {
	if !allDigits(text) {
		return 0, false
	}
	value, err := strconv.ParseUint(string(text), 10, 64)
	return value, err == nil
}

// hex64 parses sixteen hexadecimal digits.
func hex64(text []byte) (uint64, bool) {
	if len(text) != 16 {
		return 0, false
	}
	value, err := strconv.ParseUint(string(text), 16, 64)
	return value, err == nil
}
