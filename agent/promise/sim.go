package promise

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Program is what a simulated command does, and the files it writes are real. It must end when ctx does.
type Program func(ctx context.Context, c Cmd) (code int, output []byte)

// Sim is a simulated machine for tests in a synctest bubble: programs are functions, folders change when
// the test says so. It outlives the agents that use it, as a machine does. Its methods may run at once.
type Sim struct {
	programs map[string]Program

	mu       sync.Mutex
	children []*simChild // also those that ended
	watches  map[string]map[*subscriber]bool
	execs    map[string]int
}

// NewSim makes a machine that knows these programs by their argv[0]. What Spawn starts is known by being
// in programs too; there nil will do, and it runs until it is killed.
func NewSim(programs map[string]Program) *Sim {
	return &Sim{programs: programs, watches: map[string]map[*subscriber]bool{}, execs: map[string]int{}}
}

// Exec runs the program to its end, the timeout, or the end of ctx.
func (s *Sim) Exec(ctx context.Context, c Cmd, timeout time.Duration) (code int, tail []byte, err error) {
	run := s.programs[c.Argv[0]]
	if run == nil {
		return 0, nil, fmt.Errorf("%q is not in PATH: this machine is simulated and was given no such program", c.Argv[0])
	}
	s.mu.Lock()
	s.execs[c.Argv[0]]++
	s.mu.Unlock()
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	code, tail = run(limited, c)
	tail = tail[max(0, len(tail)-maxTailBytes):]
	switch {
	case ctx.Err() != nil:
		return 0, tail, fmt.Errorf("%q was stopped: %w", c.Argv[0], ctx.Err())
	case limited.Err() != nil:
		return 0, tail, fmt.Errorf("%q ran longer than its timeout of %s", c.Argv[0], timeout)
	}
	return code, tail, nil
}

// Execs is how often a program was run.
func (s *Sim) Execs(argv0 string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.execs[argv0]
}

// Spawn starts a child that runs until it is signalled or killed.
func (s *Sim) Spawn(c Cmd) (Child, error) {
	if _, known := s.programs[c.Argv[0]]; !known {
		return nil, fmt.Errorf("%q is not in PATH: this machine is simulated and was given no such program", c.Argv[0])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.children) + 1
	child := &simChild{sim: s, pid: 1000 + n, start: uint64(n), cmd: c, done: make(chan struct{})}
	s.children = append(s.children, child)
	return child, nil
}

// Adopt gives the child of that pid, if it lives.
func (s *Sim) Adopt(pid int, start uint64) (Child, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.children {
		if c.pid == pid && c.start == start && !c.ended {
			return c, nil
		}
	}
	return nil, ErrNotFound
}

// Find gives the oldest living child with the mark.
func (s *Sim) Find(mark string) (pid int, start uint64, err error) {
	want := markVariable + "=" + mark
	prefix, isPrefix := strings.CutSuffix(want, "*")
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.children {
		if !c.ended && slices.ContainsFunc(c.cmd.Env, func(kv string) bool {
			return kv == want || isPrefix && strings.HasPrefix(kv, prefix)
		}) {
			return c.pid, c.start, nil
		}
	}
	return 0, 0, ErrNotFound
}

// Running lists the commands of the living children, oldest first, by pid.
func (s *Sim) Running() map[int]Cmd {
	s.mu.Lock()
	defer s.mu.Unlock()
	running := map[int]Cmd{}
	for _, c := range s.children {
		if !c.ended {
			running[c.pid] = c.cmd
		}
	}
	return running
}

// Kill ends a child as kill -9 does.
func (s *Sim) Kill(pid int) { s.end(pid, "signal: killed") }

func (s *Sim) end(pid int, reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.children {
		if c.pid == pid && !c.ended {
			c.ended, c.reason = true, reason
			close(c.done)
			return true
		}
	}
	return false
}

// Watch is told of what Touch names.
func (s *Sim) Watch(dir string, changed func(name string)) (stop func(), err error) {
	if !filepath.IsAbs(dir) {
		return nil, &fs.PathError{Op: "watch", Path: dir, Err: errors.New("not an absolute path")}
	}
	dir = filepath.Clean(dir)
	w := &subscriber{changed: changed}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches[dir] == nil {
		s.watches[dir] = map[*subscriber]bool{}
	}
	s.watches[dir][w] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watches[dir], w)
	}, nil
}

// Touch tells all that watch dir that name changed there; the test has changed it already.
func (s *Sim) Touch(dir, name string) {
	s.mu.Lock()
	var tell []func(string)
	for w := range s.watches[filepath.Clean(dir)] {
		tell = append(tell, w.changed)
	}
	s.mu.Unlock()
	for _, f := range tell {
		f(name)
	}
}

// Dial finds nobody: there is no network here.
func (s *Sim) Dial(_ context.Context, addr string) (net.Conn, error) {
	return nil, fmt.Errorf("dial %s: this machine is simulated and has no network", addr)
}

type simChild struct {
	sim   *Sim
	pid   int
	start uint64
	cmd   Cmd
	done  chan struct{}

	ended  bool // with reason guarded by sim.mu
	reason string
}

func (c *simChild) PID() int              { return c.pid }
func (c *simChild) StartTime() uint64     { return c.start }
func (c *simChild) Done() <-chan struct{} { return c.done }

func (c *simChild) ExitReason() string {
	c.sim.mu.Lock()
	defer c.sim.mu.Unlock()
	return c.reason
}

// Signal of any name ends it.
func (c *simChild) Signal(name string) error {
	if !c.sim.end(c.pid, "signal: "+cmp.Or(strings.ToLower(name), "none")) {
		return ErrNotFound
	}
	return nil
}
