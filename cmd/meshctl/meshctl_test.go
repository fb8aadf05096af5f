package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"meshd/agent/control"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"meshctl": main}) }

// serve opens a socket with a fake node behind it and returns its address and what ends it.
func serve(dir string, f *fake) (addr string, stop func() error, err error) {
	path := filepath.Join(dir, "m.sock")
	l, err := control.Listen(path, "")
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- control.Serve(ctx, l, f, control.Options{}) }()
	return "unix://" + path, func() error {
		cancel()
		return <-ended
	}, nil
}

// Each script is a session of somebody at a shell.
func TestScripts(t *testing.T) { runScripts(t, "testdata", func() *fake { return &fake{} }) }

func runScripts(t *testing.T, dir string, daemon func() *fake) {
	testscript.Run(t, testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "meshctl") // short: socket paths are
			if err != nil {
				return err
			}
			addr, stop, err := serve(dir, daemon())
			if err != nil {
				return err
			}
			env.Defer(func() {
				if err := stop(); err != nil {
					t.Error(err)
				}
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			})
			env.Setenv("MESHCTL_ADDR", addr)
			env.Setenv("TZ", "UTC")
			env.Setenv("HOME", env.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "interrupt": interrupt, "examples": examples},
	})
}

// exits runs a command that must end with exactly this code: exits 4 meshctl get nothing ./x
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// interrupt sends SIGINT after the first line of output, and wants exit 130.
func interrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: interrupt command [args...]")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	path := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(dir, args[0]); path == "" && isFile(p) {
			path = p
		}
	}
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Env = []string{"MESHCTL_ADDR=" + ts.Getenv("MESHCTL_ADDR")}
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	ts.Check(cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	ts.Check(err)
	ts.Check(cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait() // the code says more
	if code := cmd.ProcessState.ExitCode(); code != 130 || stderr.Len() > 0 {
		ts.Fatalf("exit code %d after %q, stderr %q", code, line, stderr.String())
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// runIn is one command line on a terminal that is none, at noon.
func runIn(t *testing.T, a *app, args ...string) (stdout, stderr string, code control.Code) {
	t.Helper()
	var out, errs bytes.Buffer
	a.stdout, a.stderr, a.now = &out, &errs, func() time.Time { return noon }
	code = a.run(t.Context(), args)
	return out.String(), errs.String(), code
}

func newDaemon(t *testing.T) (addr string) { return newDaemonOf(t, &fake{}) }

func newDaemonOf(t *testing.T, f *fake) (addr string) {
	t.Helper()
	addr, stop, err := serve(t.TempDir(), f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return addr
}

func TestListsAreAsTheyWere(t *testing.T) {
	addr := newDaemonOf(t, &fake{wary: true, score: control.Score{
		Name: "postcards", Version: "1.0.0", Hash: "cd34", State: "in force", Since: noon, Files: map[string]string{"score.hcl": postcards},
	}})
	commands := []string{
		"members", "artifacts", "artifacts --all", "artifacts postcard/*", "promises", "promises --all", "roles",
		"story", "story --since 24h", "events", "why package", "policy show", "policy diff testdata/score", "doctor", "graph",
		"tag set shift=night a=",
	}
	for _, command := range commands {
		for _, format := range formats {
			name := strings.NewReplacer(" ", "_", "*", "", "/", "", "--", "").Replace(command) + "." + format
			t.Run(name, func(t *testing.T) {
				args := append(strings.Fields(command), "--addr", addr, "-o", format)
				got, stderr, code := runIn(t, &app{}, args...)
				if code != 0 || stderr != "" {
					t.Fatalf("exit %d, stderr %q", code, stderr)
				}
				golden(t, name, got)
				again, _, _ := runIn(t, &app{}, args...)
				if again != got {
					t.Error("asked twice it differs")
				}
			})
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Error(diff)
	}
}

func TestColoursAreForTerminalsThatWantThem(t *testing.T) {
	addr := newDaemon(t)
	for _, tt := range []struct{ tty, color, want bool }{{true, true, true}, {true, false, false}, {false, true, false}} {
		out, _, _ := runIn(t, &app{outTTY: tt.tty, color: tt.color}, "members", "--addr", addr)
		if got := strings.Contains(out, "\x1b"); got != tt.want {
			t.Errorf("terminal %v, colours wanted %v: escapes %v in\n%s", tt.tty, tt.color, got, out)
		}
		if strings.Contains(out, "\x1b[2J") {
			t.Errorf("a name reached the terminal unescaped:\n%q", out)
		}
	}
}

func TestWatchAppendsWhatIsNewUntilInterrupted(t *testing.T) {
	addr := newDaemon(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out cancelling
	out.after, out.cancel = 1, cancel
	a := &app{stdout: &out, stderr: &out, now: func() time.Time { return noon }}
	code := a.run(ctx, []string{"roles", "--addr", addr, "--watch=1ms", "--no-headers", "-l", "held=true"})
	if code != control.Interrupted {
		t.Errorf("exit %d", code)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 1 {
		t.Errorf("%d lines, want the one that never changes once:\n%s", lines, out.String())
	}
}

// cancelling ends the watch when enough was written, which the next round notices.
type cancelling struct {
	bytes.Buffer
	after  int
	cancel func()
}

func (c *cancelling) Write(p []byte) (int, error) {
	if c.after--; c.after == 0 {
		time.AfterFunc(20*time.Millisecond, c.cancel) // some more rounds of nothing new
	}
	return c.Buffer.Write(p)
}

func TestEscapeLeavesNothingThatATerminalObeys(t *testing.T) {
	for in, want := range map[string]string{
		`part.file.x["ä b"]`: `part.file.x["ä b"]`, "a\x1b[2Jb": `a\x1b[2Jb`, "a\nb\t": `a\nb\t`, "\xff": `\xff`, "\u202e": `\u202e`, "\ufffd": `�`,
	} {
		if got := escape(in); got != want {
			t.Errorf("escape(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestTextOfFigures(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10240: "10 KiB", 1<<20 - 1: "1.0 MiB", 1 << 62: "4.0 EiB"} {
		if got := sizeText(n); got != want {
			t.Errorf("sizeText(%d) = %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-time.Hour: "0s", 59 * time.Second: "59s", time.Hour: "1h", 47 * time.Hour: "47h", 48 * time.Hour: "2d"} {
		if got := agoText(noon, noon.Add(-d)); got != want {
			t.Errorf("agoText(%v) = %q, want %q", d, got, want)
		}
	}
	for s, want := range map[float64]string{0: "-", 0.00042: "0.4ms", 0.25: "250ms"} {
		if got := rttText(s); got != want {
			t.Errorf("rttText(%v) = %q, want %q", s, got, want)
		}
	}
}

func TestEveryCommandHelpsWithAnExample(t *testing.T) {
	root := newRoot(&app{})
	for _, cmd := range append(root.Commands(), policyCmd(&app{}).Commands()...) {
		if cmd.Hidden || !cmd.Runnable() || cmd.Name() == "help" || cmd.Name() == "completion" {
			continue
		}
		if cmd.Long == "" || !strings.Contains(cmd.Example, "meshctl "+cmd.Name()) && !strings.Contains(cmd.Example, "policy "+cmd.Name()) {
			t.Errorf("%s: help lacks a text or an example", cmd.CommandPath())
		}
	}
}

func TestJSONIsOneDocument(t *testing.T) {
	addr := newDaemon(t)
	out, _, _ := runIn(t, &app{}, "members", "--addr", addr, "-o", "json", "-l", "kind=nobody")
	var d struct {
		APIVersion string            `json:"apiVersion"`
		Items      []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal([]byte(out), &d); err != nil || d.APIVersion != "meshd/v1" || d.Items == nil || len(d.Items) != 0 {
		t.Errorf("%v in %q", err, out)
	}
}
