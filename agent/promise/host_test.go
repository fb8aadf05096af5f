//go:build linux

package promise

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestExecEnvironmentIsItsOwn(t *testing.T) {
	h := realHost(t)
	t.Setenv("LEAKED", "yes")
	code, out, err := h.Exec(t.Context(), Cmd{Argv: []string{"env"}, Env: []string{"PATH=/usr/bin:/bin", "A=b"}, Dir: "/"}, patience)
	if err != nil || code != 0 || string(out) != "PATH=/usr/bin:/bin\nA=b\n" {
		t.Errorf("%d %q %v", code, out, err)
	}
	if _, _, err := h.Exec(t.Context(), Cmd{Argv: []string{"env"}, Env: []string{"PATH=/nowhere"}, Dir: "/"}, patience); err == nil {
		t.Error("found a program outside its own PATH")
	}
}

// The pid that a grandchild wrote down is gone when Exec has returned.
func TestExecTimeoutEndsTheChildrenToo(t *testing.T) {
	h := realHost(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	stop, err := h.Watch(dir, func(name string) {
		if name == "pid" {
			cancel() // once the grandchild is there
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	_, _, err = h.Exec(ctx, Cmd{Argv: []string{"sh", "-c", "sleep 1000 & echo $! >tmp; mv tmp pid; wait"}, Env: environ(nil), Dir: dir}, patience)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(read(t, filepath.Join(dir, "pid"))))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range time.Tick(time.Millisecond) {
			if _, gone, err := processStat(pid); gone || errors.Is(err, ErrNotFound) {
				return
			}
		}
	}()
	wait(t, "the grandchild to end", ended)
}

func TestExecDoesNotWaitForWhatItLeavesBehind(t *testing.T) {
	h := realHost(t)
	began := time.Now()
	code, out, err := h.Exec(t.Context(), Cmd{Argv: []string{"sh", "-c", "sleep 20 & echo $!"}, Env: environ(nil), Dir: "/"}, patience)
	if err != nil || code != 0 {
		t.Fatalf("%d %v", code, err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("took %s", took)
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(out))); err == nil {
		p, _ := os.FindProcess(pid)
		_ = p.Kill()
	}
}

func TestWatchTellsOfEveryKindOfChange(t *testing.T) {
	h := realHost(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	told := make(chan string, 100)
	stop, err := h.Watch(dir, func(name string) { told <- name })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	other := filepath.Join(t.TempDir(), "y")
	write(t, other, "y")
	steps := []struct {
		name string
		do   func() error
	}{
		{"made", func() error { return os.WriteFile(path, nil, 0o600) }},
		{"written", func() error { return os.WriteFile(path, []byte("x"), 0o600) }},
		{"chmod", func() error { return os.Chmod(path, 0o644) }},
		{"renamed over", func() error { return os.Rename(other, path) }},
		{"removed", func() error { return os.Remove(path) }},
	}
	for _, s := range steps {
		if err := s.do(); err != nil {
			t.Fatal(err)
		}
		if got := wait(t, s.name, told); got != "x" {
			t.Errorf("%s: told of %q", s.name, got)
		}
		for len(told) > 0 {
			<-told
		}
	}
}

func TestWatchIsSharedAndEnds(t *testing.T) {
	h := realHost(t)
	dir := t.TempDir()
	a, b := make(chan string, 10), make(chan string, 10)
	stopA, errA := h.Watch(dir, func(name string) { a <- name })
	stopB, errB := h.Watch(dir+"/.", func(name string) { b <- name })
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if n := len(h.watcher.notify.WatchList()); n != 1 {
		t.Errorf("%d watches for one folder", n)
	}
	stopA()
	stopA()
	if err := os.Mkdir(filepath.Join(dir, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	wait(t, "b", b)
	if len(a) != 0 {
		t.Error("told after stop")
	}
	stopB()
	if n := len(h.watcher.notify.WatchList()); n != 0 {
		t.Errorf("%d watches are left", n)
	}
	if _, err := h.Watch(filepath.Join(dir, "none"), func(string) {}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
}

func TestWatchTellsThatTheFolderItselfWent(t *testing.T) {
	for _, how := range []string{"removed", "renamed"} {
		t.Run(how, func(t *testing.T) {
			h := realHost(t)
			dir := filepath.Join(t.TempDir(), "d")
			told := make(chan string, 10)
			watch := func() func() {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				stop, err := h.Watch(dir, func(name string) { told <- name })
				if err != nil {
					t.Fatal(err)
				}
				return stop
			}
			stop := watch()
			err := os.Remove(dir)
			if how == "renamed" {
				err = errors.Join(os.Mkdir(dir, 0o700), os.Remove(dir))
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := wait(t, "the end of the folder", told); got != "." {
				t.Errorf("told of %q", got)
			}
			again := watch()
			stop() // of the old watch: the new one stays
			write(t, filepath.Join(dir, "x"), "x")
			for wait(t, "the new folder", told) != "x" {
			}
			again()
		})
	}
}

func TestHostWithoutInotify(t *testing.T) {
	h := &Real{living: map[int]*realChild{}, stop: make(chan struct{}), noWatch: ErrNoWatch}
	defer h.Close()
	if _, err := h.Watch(t.TempDir(), func(string) {}); !errors.Is(err, ErrNoWatch) {
		t.Errorf("error %v", err)
	}
	if code, _, err := h.Exec(t.Context(), Cmd{Argv: []string{"true"}, Env: environ(nil), Dir: "/"}, patience); code != 0 || err != nil {
		t.Errorf("Exec: %d %v", code, err)
	}
}

func TestAdoptTellsAPidFromItsSuccessor(t *testing.T) {
	h := realHost(t)
	c, err := h.Spawn(Cmd{Argv: []string{"sleep", "1000"}, Env: environ(nil), Dir: "/"})
	if err != nil {
		t.Fatal(err)
	}
	if same, err := h.Adopt(c.PID(), c.StartTime()); err != nil || same != c {
		t.Errorf("own child: %v %v", same, err)
	}
	if _, err := h.Adopt(c.PID(), c.StartTime()+1); !errors.Is(err, ErrNotFound) {
		t.Errorf("another start time: %v", err)
	}
	if err := c.Signal("KILL"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end", c.Done())
	if c.ExitReason() != "signal: killed" {
		t.Errorf("reason %q", c.ExitReason())
	}
	if _, err := h.Adopt(c.PID(), c.StartTime()); !errors.Is(err, ErrNotFound) {
		t.Errorf("after the end: %v", err)
	}
	if err := c.Signal("TERM"); !errors.Is(err, ErrNotFound) {
		t.Errorf("signal after the end: %v", err)
	}
}
