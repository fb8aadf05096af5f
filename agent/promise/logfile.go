package promise

import (
	"os"
	"path/filepath"
	"sync"
)

const (
	maxLogBytes  = 1 << 20 // of one log; the one before it is kept beside (".1")
	maxTailBytes = 4 << 10 // of output, told with a failure (POLICY.md)
)

// An output takes what a program prints: the end of it in memory, all of it in a bounded log.
// Safe for the two streams of one program at once.
type output struct {
	mu   sync.Mutex
	tail []byte
	log  *os.File // nil: none, or the disk refused it: output never fails a program
	path string
	size int64
}

func newOutput(path string) (*output, error) {
	o := &output{path: path}
	if path == "" {
		return o, nil
	}
	f, size, err := openLog(path)
	if err != nil {
		return nil, err
	}
	o.log, o.size = f, size
	return o, nil
}

// openLog opens a log to append to, and begins a new one when it is full.
func openLog(path string) (*os.File, int64, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, 0, err
	}
	if info, err := os.Stat(path); err == nil && info.Size() >= maxLogBytes {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, 0, err
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// Write never fails: a full disk loses output, not the program's result.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tail = append(o.tail, b[max(0, len(b)-maxTailBytes):]...)
	o.tail = o.tail[max(0, len(o.tail)-maxTailBytes):]
	for rest := b; o.log != nil && len(rest) > 0; {
		if o.size >= maxLogBytes {
			o.log.Close()
			if o.log, o.size, _ = openLog(o.path); o.log == nil {
				break
			}
		}
		part := rest[:min(int64(len(rest)), maxLogBytes-o.size)]
		rest = rest[len(part):]
		n, err := o.log.Write(part)
		o.size += int64(n)
		if err != nil {
			o.log.Close()
			o.log = nil
		}
	}
	return len(b), nil
}

// last is the end of the output so far.
func (o *output) last() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]byte(nil), o.tail...)
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.log != nil {
		o.log.Close()
		o.log = nil
	}
}
