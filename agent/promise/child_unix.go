//go:build unix

package promise

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// exitPoll is how often a process is looked at where the system cannot tell of its end.
const exitPoll = 200 * time.Millisecond

// A realChild is a process that this program spawned, or adopted from an earlier run.
type realChild struct {
	pid   int
	start uint64
	done  chan struct{}
	exit  exitWatch // may be nil: then it is polled

	mu     sync.Mutex
	reason string
}

func (c *realChild) PID() int              { return c.pid }
func (c *realChild) StartTime() uint64     { return c.start }
func (c *realChild) Done() <-chan struct{} { return c.done }

func (c *realChild) ExitReason() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// Signal goes to the group that the child leads; after its end, to what is left of that group.
func (c *realChild) Signal(name string) error {
	sig, err := signalOf(name)
	if err != nil {
		return err
	}
	target := -c.pid
	if pgid, err := syscall.Getpgid(c.pid); err == nil && pgid != c.pid {
		target = c.pid // it leads none
	}
	if err := syscall.Kill(target, sig); errors.Is(err, syscall.ESRCH) {
		return ErrNotFound
	} else if err != nil {
		return err
	}
	return nil
}

// release ends the wait for the child; the child lives on.
func (c *realChild) release() {
	if c.exit != nil {
		c.exit.close()
	}
}

// follow waits for the end of a process, and reaps it if it is ours: by its pid, so that no other's
// child is taken. Called with mu held.
func (r *Real) follow(pid int, start uint64) *realChild {
	c := &realChild{pid: pid, start: start, done: make(chan struct{})}
	if w, err := watchExit(pid); err == nil {
		c.exit = w
	}
	r.living[pid] = c
	r.children.Go(func() {
		defer c.release()
		if !r.untilEnd(c) {
			return
		}
		c.reap()
		r.mu.Lock()
		if r.living[pid] == c {
			delete(r.living, pid)
		}
		r.mu.Unlock()
		close(c.done)
	})
	return c
}

// untilEnd reports whether the child ended; false when the host was closed first.
func (r *Real) untilEnd(c *realChild) bool {
	if c.exit != nil {
		if c.exit.wait() {
			return true
		}
		select {
		case <-r.stop:
			return false
		default: // the watch broke: poll
		}
	}
	tick := time.NewTicker(exitPoll)
	defer tick.Stop()
	for {
		start, ended, err := processStat(c.pid)
		if errors.Is(err, errors.ErrUnsupported) {
			if c.reap() {
				return true
			}
		} else if err != nil || ended || start != c.start && c.start != 0 {
			return true
		}
		select {
		case <-tick.C:
		case <-r.stop:
			return false
		}
	}
}

// reap takes the exit status of a child of this program; of another's there is none to take.
func (c *realChild) reap() bool {
	var ws syscall.WaitStatus
	pid, err := syscall.Wait4(c.pid, &ws, syscall.WNOHANG, nil)
	if err != nil || pid != c.pid {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reason = fmt.Sprintf("exit status %d", ws.ExitStatus())
	if ws.Signaled() {
		c.reason = "signal: " + ws.Signal().String()
	}
	return true
}

// An exitWatch is told by the system of the end of one process.
type exitWatch interface {
	wait() bool // true when it ended, false after close
	close()     // any number of times
}
