package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"meshd/deploy/demo"
)

// scriptWait bounds every wait of a script.
const scriptWait = 30 * time.Second

// meshctl is the folder with a meshctl built from this tree.
var meshctl string

func TestMain(m *testing.M) { testscript.Main(builder{m}, map[string]func(){"meshd": main}) }

// A builder builds meshctl before the tests and removes it after them.
type builder struct{ m *testing.M }

func (b builder) Run() int {
	dir, err := os.MkdirTemp("", "meshctl-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "meshd/cmd/meshctl").CombinedOutput()
	if err != nil {
		fmt.Fprintf(os.Stderr, "build meshctl: %v\n%s", err, out)
		return 1
	}
	meshctl = dir
	return b.m.Run()
}

// Each script is a session of somebody at a shell, with real nodes:
//
//	node NAME [args...]      starts meshd with the data folder NAME on a free port of loopback; awaits its door
//	stopnode NAME            SIGTERM; it must end with exit 0
//	exits CODE cmd [args...] runs a command that must end with exactly this code
//	waitfor TEXT cmd ...     runs a command again and again until it succeeds and prints TEXT
//	tokenof NAME cmd ...     runs a command and keeps its one word of output in $NAME
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			dir, err := os.MkdirTemp("", "mesh") // short: socket paths are
			if err != nil {
				return err
			}
			env.Defer(func() {
				ctx, cancel := context.WithTimeout(context.Background(), scriptWait)
				defer cancel()
				if err := errors.Join(demo.End(ctx, dir, nil), os.RemoveAll(dir)); err != nil {
					t.Error(err)
				}
			})
			env.Setenv("PATH", meshctl+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Setenv("M", dir)
			env.Setenv("TZ", "UTC")
			env.Values[nodesKey{}] = map[string]*demo.Process{}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"node": startNode, "stopnode": stopNode, "exits": exits, "waitfor": waitFor, "tokenof": tokenOf, "jsonlines": jsonLines,
		},
	})
}

type nodesKey struct{}

func nodes(ts *testscript.TestScript) map[string]*demo.Process {
	return ts.Value(nodesKey{}).(map[string]*demo.Process)
}

func startNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: node NAME [args...]")
	}
	dir := filepath.Join(ts.Getenv("M"), args[0])
	exe, err := exec.LookPath("meshd")
	ts.Check(err)
	p, err := demo.Start(exe, dir+".log", append([]string{"--data-dir", dir, "--listen", "127.0.0.1:0"}, args[1:]...)...)
	ts.Check(err)
	ts.Defer(func() {
		if err := p.Stop(); err != nil {
			ts.Logf("%v", err)
		}
	})
	nodes(ts)[args[0]] = p
	waitFor(ts, false, []string{"meshd", "meshctl", "--data-dir", dir, "version"})
}

func stopNode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 || nodes(ts)[args[0]] == nil {
		ts.Fatalf("usage: stopnode NAME")
	}
	p := nodes(ts)[args[0]]
	ts.Check(p.Stop())
	if err := p.Err(); err != nil {
		ts.Fatalf("%s ended with %v\n%s", args[0], err, p.Tail())
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit := new(exec.ExitError)
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: waitfor TEXT command [args...]")
	}
	began := time.Now()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		if err == nil && strings.Contains(out, args[0]) {
			return
		}
		if time.Since(began) > scriptWait {
			ts.Fatalf("%q is not printed in %v; the last answer was %v\n%s", args[0], scriptWait, err, out)
		}
		<-ticker.C
	}
}

func tokenOf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: tokenof NAME command [args...]")
	}
	ts.Check(ts.Exec(args[1], args[2:]...))
	words := strings.Fields(ts.ReadFile("stdout"))
	if len(words) != 1 {
		ts.Fatalf("want one word of output, got %q", words)
	}
	ts.Setenv(args[0], words[0])
}

// jsonLines wants each line of the last output to be one JSON object with this key.
func jsonLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: jsonlines KEY")
	}
	n := 0
	for lines := bufio.NewScanner(strings.NewReader(ts.ReadFile("stdout"))); lines.Scan(); n++ {
		var item map[string]json.RawMessage
		if err := json.Unmarshal(lines.Bytes(), &item); err != nil || item[args[0]] == nil {
			ts.Fatalf("line %d lacks %q or is no JSON (%v): %s", n+1, args[0], err, lines.Text())
		}
	}
	if n == 0 {
		ts.Fatalf("no output")
	}
}
