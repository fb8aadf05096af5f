package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"meshd/agent/promise"
)

// A demoRun is one `meshd demo` that a user typed, in a temporary folder of its own.
type demoRun struct {
	tmp       string
	out, errs bytes.Buffer
	code      int
	cmd       *exec.Cmd
	disturb   disturbance
}

// A disturbance is what a user does to a demo once it has printed some text.
type disturbance struct {
	at string // "": nothing is done
	do func(*exec.Cmd) error
}

// signals sends one signal after the other.
func signals(list ...os.Signal) func(*exec.Cmd) error {
	return func(cmd *exec.Cmd) error {
		for _, s := range list {
			if err := cmd.Process.Signal(s); err != nil {
				return err
			}
			time.Sleep(10 * time.Millisecond) // as fast as a hand, or two of a kind would be one
		}
		return nil
	}
}

// Write takes what the demo prints, and disturbs it when that is due.
func (r *demoRun) Write(b []byte) (int, error) {
	r.out.Write(b)
	if r.disturb.at == "" || !strings.Contains(r.out.String(), r.disturb.at) {
		return len(b), nil
	}
	r.disturb.at = ""
	return len(b), r.disturb.do(r.cmd)
}

// playDemo runs meshd demo to its end; env replaces variables of the environment.
func playDemo(t *testing.T, disturb disturbance, env []string, args ...string) *demoRun {
	t.Helper()
	tmp, err := os.MkdirTemp("", "demo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	r := &demoRun{tmp: tmp, disturb: disturb}
	r.cmd = exec.Command(filepath.Join(bin, "meshd"), append([]string{"demo"}, args...)...)
	r.cmd.Env = append(append(os.Environ(), "TMPDIR="+tmp), env...)
	r.cmd.Stdout, r.cmd.Stderr = r, &r.errs
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { _ = r.cmd.Process.Kill() })
	defer timer.Stop()
	err = r.cmd.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) && !errors.Is(err, errWentAway) {
		t.Fatal(err)
	}
	r.code = r.cmd.ProcessState.ExitCode()
	return r
}

// nothingLeft fails the test where the demo left a file or a process.
func (r *demoRun) nothingLeft(t *testing.T) {
	t.Helper()
	left, err := os.ReadDir(r.tmp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range left {
		t.Errorf("the demo left %s", e.Name())
	}
	host, err := promise.NewReal()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = host.Close() }()
	if pid, _, err := host.Find(r.tmp + "/*"); !errors.Is(err, promise.ErrNotFound) {
		t.Errorf("the demo left process %d (%v)", pid, err)
		_ = kill(pid)
	}
}

func (r *demoRun) good(t *testing.T) {
	t.Helper()
	if r.code != 0 || r.errs.Len() > 0 {
		t.Fatalf("exit code %d\n%s\nstderr: %s", r.code, r.out.String(), r.errs.String())
	}
}

func TestDemoHoldsAndLeavesNothing(t *testing.T) {
	t.Parallel()
	r := playDemo(t, disturbance{}, nil)
	r.good(t)
	r.nothingLeft(t)
	for line := range strings.Lines(r.out.String()) {
		if strings.Contains(line, " ms") || strings.Contains(line, " it took ") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

func TestDemoSpeaksToPrograms(t *testing.T) {
	t.Parallel()
	r := playDemo(t, disturbance{}, nil, "-o", "ndjson")
	r.good(t)
	r.nothingLeft(t)
	kinds := map[string]int{}
	for text := range strings.Lines(r.out.String()) {
		var l line
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		if err := d.Decode(&l); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		if l.Kind == "" || (l.Text == "") == (l.Item == nil) {
			t.Errorf("a line wants a kind, and a text or an item: %s", text)
		}
		kinds[l.Kind]++
	}
	if kinds["step"] != 7 || kinds["member"] != 4 || kinds["done"] != 1 || kinds["artifact"] < 8 || kinds["cause"] < 7 {
		t.Errorf("kinds of lines: %v", kinds)
	}
}

func TestDemoNamesTheStepAndThePromiseThatFail(t *testing.T) {
	t.Parallel()
	r := playDemo(t, disturbance{}, []string{"PATH=" + t.TempDir()})
	r.nothingLeft(t)
	said := r.errs.String()
	if r.code != 1 {
		t.Errorf("exit code %d, want 1", r.code)
	}
	for _, want := range []string{"step \"the parent spawns children", "harvest.command.package failed", "\"tar\" is not in PATH"} {
		if !strings.Contains(said, want) {
			t.Errorf("stderr lacks %q: %s", want, said)
		}
	}
}

// errWentAway ends the reading of what a demo prints: what it prints next finds nobody.
var errWentAway = errors.New("the reader went away")

// A demo that is ended at any step, in any way that lets it, ends soon and leaves nothing, be its children newborn
// or at work.
func TestDemoInterruptedCleansUp(t *testing.T) {
	for _, tt := range []struct {
		name, at string
		do       func(*exec.Cmd) error
	}{
		{"interrupt at the start", "Start a mesh", signals(os.Interrupt)},
		{"interrupt before the children", "is in force", signals(os.Interrupt)},
		{"a second interrupt", "four nodes are alive", signals(os.Interrupt, os.Interrupt, os.Interrupt)},
		{"the terminal is closed", "Kill a child", signals(syscall.SIGHUP)},
		{"the reader goes away", "cut off", func(*exec.Cmd) error { return errWentAway }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := playDemo(t, disturbance{tt.at, tt.do}, nil)
			r.nothingLeft(t)
			if r.code != 1 || !strings.Contains(r.errs.String(), "interrupted") {
				t.Errorf("exit code %d, want 1 and a word of the interrupt\n%s\nstderr: %s", r.code, r.out.String(), r.errs.String())
			}
		})
	}
}

// Sockets of long folders are in a short one, which the demo takes away as well.
func TestDemoInADeepFolderLeavesNothing(t *testing.T) {
	t.Parallel()
	tmp := filepath.Join(t.TempDir(), strings.Repeat("deep", 20))
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	sockets := func() int {
		list, err := os.ReadDir(fmt.Sprintf("/tmp/meshd-%d", os.Geteuid()))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return len(list)
	}
	before := sockets()
	r := playDemo(t, disturbance{}, []string{"TMPDIR=" + tmp})
	r.good(t)
	r.nothingLeft(t)
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("the demo left %v (%v)", left, err)
	}
	if after := sockets(); after > before {
		t.Errorf("there were %d sockets of long folders and are %d", before, after)
	}
}

func TestTwoDemosAtOnceDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	var runs [2]*demoRun
	for i := range runs {
		wg.Go(func() { runs[i] = playDemo(t, disturbance{}, nil) })
	}
	wg.Wait()
	for _, r := range runs {
		r.good(t)
		r.nothingLeft(t)
	}
}
