package main

import (
	"bufio"
	"context"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

// What --help shows works when pasted into a shell, in a folder with what it speaks of.
func TestExamplesWorkWhenPasted(t *testing.T) {
	runScripts(t, "testdata/examples", func() *fake { return &fake{well: true} })
}

// everyCommand calls look for each command of the tree that help shows.
func everyCommand(look func(*cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Hidden {
			return
		}
		look(cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(&app{}))
}

// examples runs each line of each command's examples in bash. One that goes on for ever is interrupted after its first
// line, and has to end as interrupted.
func examples(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: examples")
	}
	bash, err := exec.LookPath("bash")
	if err != nil {
		ts.Logf("no bash on this machine: the examples were not run")
		return
	}
	ran := 0
	everyCommand(func(cmd *cobra.Command) {
		for line := range strings.SplitSeq(cmd.Example, "\n") {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			ran++
			ts.Check(ts.Exec("rm", "-rf", "app", "app-1.4.0", "postcard")) // get wants to make them anew
			if endless(line) {
				pasteEndless(ts, bash, line)
			} else if err := ts.Exec(bash, "-c", line); err != nil {
				ts.Fatalf("%s: example %q: %v", cmd.CommandPath(), line, err)
			}
		}
	})
	if ran < 60 {
		ts.Fatalf("only %d examples were found", ran)
	}
	ts.Logf("%d examples ran", ran)
}

func endless(line string) bool {
	for _, flag := range []string{" --watch", " --follow", " -f "} {
		if strings.Contains(line+" ", flag) {
			return true
		}
	}
	return false
}

func pasteEndless(ts *testscript.TestScript, bash, line string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, bash, "-c", "exec "+line)
	cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "MESHCTL_ADDR", "HOME", "TZ"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	signalErr := cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait() // the code says more
	ts.Check(err)
	ts.Check(signalErr)
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		ts.Fatalf("example %q: exit code %d after an interrupt", line, code)
	}
}
