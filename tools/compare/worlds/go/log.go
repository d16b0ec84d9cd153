package main

import (
	"bufio"
	"fmt"
	"log"
	"os"
	"sync"
	"time"
)

// gather is the time for which lines are collected before a write.
const gather = 50 * time.Millisecond

// logsInfo says whether events are logged, and not only problems. It is checked before a line is
// made, so that an unlogged line costs nothing.
var logsInfo bool

// bufferedFile is a file with a buffer, for several goroutines. Without the buffer, package log
// would make a system call for each line.
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
		// Lines that cannot be written are dropped. Otherwise bufio would refuse all later ones.
		f.buffer.Reset(f.file)
	}
}

// startLog starts the log, which appends to a file. The returned function writes the rest.
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

// escaped shows bytes as printable ASCII. Other bytes and the backslash become \xNN.
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
