package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"sync"
	"time"
)

// gather is how long lines of the log gather before they are written.
const gather = 50 * time.Millisecond

// logsInfo says whether more than trouble is logged. Asked before a line is made, so that a line that nobody wants costs nothing.
var logsInfo bool

// bufferedFile is a file behind a buffer, for several goroutines. Without the buffer, package log would make a system call for
// each line.
type bufferedFile struct {
	mutex  sync.Mutex
	file   *os.File
	buffer *bufio.Writer
}

func (f *bufferedFile) Write(line []byte) (int, error) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	return f.buffer.Write(line)
}

func (f *bufferedFile) flush() {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.buffer.Flush() != nil {
		// What cannot be written is dropped: bufio would refuse everything after a failure.
		f.buffer.Reset(f.file)
	}
}

// startLog begins to log into a file, appending; the function it returns writes what is left.
func startLog(path string, info bool) (closeLog func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	buffered := &bufferedFile{file: file, buffer: bufio.NewWriterSize(file, 64*1024)}
	log.SetOutput(buffered)
	log.SetFlags(log.LUTC | log.Ldate | log.Lmicroseconds)
	logsInfo = info
	go func() {
		for range time.Tick(gather) {
			buffered.flush()
		}
	}()
	return buffered.flush, nil
}

func logInfo(format string, arguments ...any) {
	if logsInfo {
		log.Printf("INFO "+format, arguments...)
	}
}

func logWarn(format string, arguments ...any) { log.Printf("WARN "+format, arguments...) }

// escaped shows bytes as printable ASCII: everything else, and the backslash, as \xNN.
func escaped(bytes []byte) string {
	text := make([]byte, 0, len(bytes))
	for _, b := range bytes {
		if ' ' <= b && b <= '~' && b != '\\' {
			text = append(text, b)
		} else {
			text = fmt.Appendf(text, "\\x%02x", b)
		}
	}
	return string(text)
}
