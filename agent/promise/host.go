package promise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
)

// Real is the machine itself. One for the whole agent: it holds the one watcher that all promises share.
// Its methods may run at once.
type Real struct {
	watcher  *watcher // nil where none was to be had
	noWatch  error    // why
	children sync.WaitGroup
	stop     chan struct{} // closed by Close
	ran      atomic.Int64  // programs that Exec started

	mu     sync.Mutex
	living map[int]*realChild // by pid, until Done
	closed bool
}

// NewReal opens the watcher. Where the machine has none left the Real works all the same, and Watch
// gives ErrNoWatch.
func NewReal() (*Real, error) {
	r := &Real{living: map[int]*realChild{}, stop: make(chan struct{})}
	w, err := newWatcher()
	if err != nil {
		r.noWatch = fmt.Errorf("%w: raise fs.inotify.max_user_instances (%v)", ErrNoWatch, err)
	}
	r.watcher = w
	return r, nil
}

// Close ends the watches and waits for all goroutines of the Real. Children live on; their Done is not
// closed by it, so whoever waits for one has to stop first.
func (r *Real) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	close(r.stop)
	for _, c := range r.living {
		c.release()
	}
	r.mu.Unlock()
	r.children.Wait()
	if r.watcher == nil {
		return nil
	}
	return r.watcher.close()
}

// Ran is how many programs Exec has started.
func (r *Real) Ran() int64 { return r.ran.Load() }

// Watch is told of what is made, written, renamed, removed or chmod'ed directly in dir.
func (r *Real) Watch(dir string, changed func(name string)) (stop func(), err error) {
	if r.watcher == nil {
		return nil, r.noWatch
	}
	return r.watcher.watch(dir, changed)
}

// Dial opens a TCP connection.
func (r *Real) Dial(ctx context.Context, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

// lookPath finds a program by the PATH of the environment it will have, not of this one. A relative
// name with a slash is relative to dir.
func lookPath(argv0 string, env []string, dir string) (string, error) {
	if argv0 == "" {
		return "", errors.New("no program is named")
	}
	if strings.ContainsRune(argv0, filepath.Separator) {
		if !filepath.IsAbs(argv0) {
			argv0 = filepath.Join(dir, argv0)
		}
		return argv0, executable(argv0)
	}
	path := defaultPath
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			path = v
		}
	}
	for _, folder := range filepath.SplitList(path) {
		if !filepath.IsAbs(folder) {
			continue // "" and "." would depend on where a promise happens to run
		}
		full := filepath.Join(folder, argv0)
		if executable(full) == nil {
			return full, nil
		}
	}
	return "", fmt.Errorf("%q is not in PATH (%s): install it, or name it by its whole path", argv0, path)
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir() || info.Mode()&0o111 == 0:
		return fmt.Errorf("%s is not executable", path)
	}
	return nil
}
