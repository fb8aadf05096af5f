package demo

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/agent/promise"
)

// A demoRun is one `meshd demo` that a user typed, in a temporary folder of its own.
type demoRun struct {
	tmp         string
	out, errs   bytes.Buffer
	code        int
	cmd         *exec.Cmd
	interruptAt string
}

// Write takes what the demo prints, and interrupts it when a line says interruptAt.
func (r *demoRun) Write(b []byte) (int, error) {
	r.out.Write(b)
	if r.interruptAt != "" && strings.Contains(r.out.String(), r.interruptAt) {
		r.interruptAt = ""
		_ = r.cmd.Process.Signal(os.Interrupt)
	}
	return len(b), nil
}

// playDemo runs meshd demo to its end; env replaces variables of the environment.
func playDemo(t *testing.T, interruptAt string, env []string, args ...string) *demoRun {
	t.Helper()
	tmp, err := os.MkdirTemp("", "demo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(tmp) })
	r := &demoRun{tmp: tmp, interruptAt: interruptAt}
	r.cmd = exec.Command(filepath.Join(bin, "meshd"), append([]string{"demo"}, args...)...)
	r.cmd.Env = append(append(os.Environ(), "TMPDIR="+tmp), env...)
	r.cmd.Stdout, r.cmd.Stderr = r, &r.errs
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(2*time.Minute, func() { _ = r.cmd.Process.Kill() })
	defer timer.Stop()
	err = r.cmd.Wait()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
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
	r := playDemo(t, "", nil)
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
	r := playDemo(t, "", nil, "-o", "ndjson")
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
	r := playDemo(t, "", []string{"PATH=" + t.TempDir()})
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

// A demo interrupted at any step ends soon and leaves nothing, be its children newborn or at work.
func TestDemoInterruptedCleansUp(t *testing.T) {
	for _, at := range []string{"Start a mesh", "is in force", "four nodes are alive", "cut off"} {
		t.Run(at, func(t *testing.T) {
			r := playDemo(t, at, nil)
			r.nothingLeft(t)
			if r.code != 1 || !strings.Contains(r.errs.String(), "interrupted") {
				t.Errorf("exit code %d, want 1 and a word of the interrupt\n%s\nstderr: %s", r.code, r.out.String(), r.errs.String())
			}
		})
	}
}

func TestTwoDemosAtOnceDoNotDisturbEachOther(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	var runs [2]*demoRun
	for i := range runs {
		wg.Go(func() { runs[i] = playDemo(t, "", nil) })
	}
	wg.Wait()
	for _, r := range runs {
		r.good(t)
		r.nothingLeft(t)
	}
}
