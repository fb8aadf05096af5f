//go:build unix

package promise

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meshd/policies"
)

// runs counts what a command with `echo >>ran` has run.
func runs(t *testing.T, s Site) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Data, "ran"))
	if os.IsNotExist(err) {
		return 0
	} else if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "\n")
}

func counted(s Site, script string) string {
	return "echo >>" + filepath.Join(s.Data, "ran") + "; " + script
}

func TestCommandRunsByContent(t *testing.T) {
	s := newSite(t, realHost(t))
	in, out := filepath.Join(s.Work, "in/a"), filepath.Join(s.Work, "out")
	write(t, in, "one")
	spec := policies.Command{Shell: counted(s, "cat in/a >out"), Inputs: []string{"in"}, Outputs: []string{"out"}}
	k := keeper(t, s, spec)
	step := func(what string, want int) {
		t.Helper()
		keep(t, k)
		if got := runs(t, s); got != want {
			t.Fatalf("%s: ran %d times in all, want %d", what, got, want)
		}
	}
	step("first", 1)
	step("nothing changed", 1)
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(in, later, later); err != nil {
		t.Fatal(err)
	}
	step("touched", 1)
	write(t, in, "two")
	step("edited", 2)
	if read(t, out) != "two" {
		t.Errorf("out holds %q", read(t, out))
	}
	write(t, in, "one")
	step("edited back", 3)
	write(t, filepath.Join(s.Work, "in/b/c"), "more")
	step("a file more, in a folder of the input folder", 4)
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	step("output removed", 5)
	write(t, out, "damaged")
	step("output changed", 6)
	k = keeper(t, s, spec)
	step("after a restart", 6)
	spec.Env = map[string]string{"X": "1"}
	k = keeper(t, s, spec)
	step("other environment", 7)
	spec.Timeout = time.Minute
	k = keeper(t, s, spec)
	step("other timeout, which no result hangs on", 7)
	write(t, filepath.Join(s.Work, "in", asidePrefix+"half"), "half a write")
	step("a file being written aside", 7)
}

func TestCommandWaitsForItsInputByName(t *testing.T) {
	s := newSite(t, realHost(t))
	k := keeper(t, s, policies.Command{Run: []string{"true"}, Inputs: []string{"here", "results/*"}})
	write(t, filepath.Join(s.Work, "here"), "")
	for _, f := range []func() error{
		func() error { _, err := k.Check(context.Background()); return err },
		func() error { _, err := k.Repair(context.Background()); return err },
	} {
		if err := f(); !waiting(err) || !strings.Contains(err.Error(), "results/*") {
			t.Errorf("error %v", err)
		}
	}
	write(t, filepath.Join(s.Work, "results/a"), "")
	keep(t, k)
}

func TestCommandRunsAgainWhenInputsChangeUnderIt(t *testing.T) {
	s := newSite(t, realHost(t))
	write(t, filepath.Join(s.Work, "in"), "1")
	// The first run changes its own input; the second finds it as it leaves it.
	k := keeper(t, s, policies.Command{Shell: counted(s, "cp in out; echo 2 >in"), Inputs: []string{"in"}, Outputs: []string{"out"}})
	keep(t, k)
	if runs(t, s) != 2 || read(t, filepath.Join(s.Work, "out")) != "2\n" {
		t.Errorf("ran %d times, out holds %q", runs(t, s), read(t, filepath.Join(s.Work, "out")))
	}
	k = keeper(t, s, policies.Command{Shell: counted(s, "echo >>in"), Inputs: []string{"in"}})
	if _, err := k.Repair(context.Background()); err == nil || !strings.Contains(err.Error(), "changed during each") {
		t.Errorf("an input that never rests: error %v", err)
	}
}

func TestCommandOfNeitherRunsOncePerChange(t *testing.T) {
	s := newSite(t, realHost(t))
	spec := policies.Command{Shell: counted(s, "true")}
	for want := 1; want <= 2; want++ {
		for range 3 {
			keep(t, keeper(t, s, spec))
		}
		if runs(t, s) != want {
			t.Fatalf("ran %d times, want %d", runs(t, s), want)
		}
		spec.Shell += "; true"
	}
	k := keeper(t, s, policies.Command{Shell: spec.Shell[:len(spec.Shell)-len("; true")]})
	if err := k.(Restarter).Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	keep(t, k)
	if runs(t, s) != 3 {
		t.Errorf("ran %d times after Restart, want 3", runs(t, s))
	}
}

func TestCommandFails(t *testing.T) {
	s := newSite(t, realHost(t))
	write(t, filepath.Join(s.Work, "in"), "1")
	tests := []struct {
		name string
		spec policies.Command
		want []string
	}{
		{"exit code and output", policies.Command{Shell: "echo so sorry; exit 3"}, []string{"exit code 3", "so sorry"}},
		{"only the last of the output", policies.Command{Shell: "head -c 100000 /dev/zero | tr '\\0' x; echo END; exit 1"}, []string{"END"}},
		{"no such program", policies.Command{Run: []string{"no-such-program"}}, []string{"no-such-program", "PATH"}},
		{"killed", policies.Command{Shell: "kill -9 $$"}, []string{"signal: killed"}},
		{"timeout", policies.Command{Shell: "echo begun; sleep 100", Timeout: 50 * time.Millisecond}, []string{"timeout of 50ms"}},
		{"no output", policies.Command{Run: []string{"true"}, Outputs: []string{"out"}}, []string{"output out is missing"}},
		{"output that an input pattern matches", policies.Command{Run: []string{"true"}, Inputs: []string{"*"}, Outputs: []string{"in2"}}, []string{"its own input"}},
		{"output in an input folder", policies.Command{Run: []string{"true"}, Inputs: []string{"."}, Outputs: []string{"x/y"}}, []string{"its own input"}},
		{"output pattern that meets an input", policies.Command{Run: []string{"true"}, Inputs: []string{"in"}, Outputs: []string{"i*"}}, []string{"its own input"}},
		{"pattern leads out", policies.Command{Run: []string{"true"}, Inputs: []string{"../*"}}, []string{"leads out"}},
		{"both run and shell", policies.Command{Run: []string{"true"}, Shell: "true"}, []string{"one of run and shell"}},
		{"user", policies.Command{Run: []string{"true"}, User: "nobody-of-this-name"}, []string{"not known"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, err := New(promiseOf(tt.spec), s)
			if err == nil {
				_, err = k.Repair(context.Background())
			}
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if len(err.Error()) > maxTailBytes+1000 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestCommandOKCodes(t *testing.T) {
	s := newSite(t, realHost(t))
	keep(t, keeper(t, s, policies.Command{Shell: "exit 3", OK: []int{0, 3}}))
}

// Nothing that was not written down counts as done; what was, counts, whatever Put said.
func TestCommandAfterAFailedWrite(t *testing.T) {
	s := newSite(t, realHost(t))
	mem := s.Memory.(*shelf)
	k := keeper(t, s, policies.Command{Shell: counted(s, "true")})
	mem.fail = fmt.Errorf("disk is full")
	if _, err := k.Repair(context.Background()); err == nil {
		t.Error("no error though nothing was remembered")
	}
	mem.fail, mem.after = nil, fmt.Errorf("timeout")
	if _, err := k.Repair(context.Background()); err == nil {
		t.Error("no error though Put failed")
	}
	mem.after = nil
	if keep(t, k); runs(t, s) != 2 {
		t.Errorf("ran %d times, want 2", runs(t, s))
	}
}

func TestLogIsBounded(t *testing.T) {
	s := newSite(t, realHost(t))
	keep(t, keeper(t, s, policies.Command{Shell: "head -c 3500000 /dev/zero; echo; echo last"}))
	path := LogPath(s.Data, "part.type.name")
	for _, p := range []string{path, path + ".1"} {
		info, err := os.Stat(p)
		if err != nil || info.Size() > maxLogBytes {
			t.Errorf("%s: %v", p, err)
		}
	}
	if !strings.HasSuffix(read(t, path), "last\n") {
		t.Error("the log does not end with the last line")
	}
	if got := names(t, filepath.Dir(path)); len(got) != 2 {
		t.Errorf("logs: %v", got)
	}
}

func TestLogPathIsOneSafeName(t *testing.T) {
	for _, a := range []policies.Address{`p.command.x["../../etc/passwd"]`, policies.Address(strings.Repeat("ä", 500)), "p.command.x"} {
		rel, err := filepath.Rel("/data/logs", LogPath("/data", a))
		if err != nil || strings.Contains(rel, "/") || len(rel) > 250 || rel == ".." {
			t.Errorf("LogPath(%.40q) = %q", a, rel)
		}
	}
}
