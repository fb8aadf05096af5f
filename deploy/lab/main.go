// Command lab measures meshd as its users run it: real processes, driven from outside, on 127.0.0.1 or in network
// namespaces behind links of a given rate, there beside rsync and aria2 on the same work. It prints one line a figure
// beside its target; a missed target is printed, never an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A scenario measures one thing from an empty folder to an empty folder.
type scenario struct {
	name  string
	limit time.Duration // for one run
	run   func(ctx context.Context, l *lab) ([]figure, error)
}

var scenarios = append([]scenario{
	{"edit", 3 * time.Minute, measureEdits},
	{"damage", 4 * time.Minute, measureDamage},
	{"process", time.Minute, measureProcess},
	{"publish", 3 * time.Minute, measurePublish},
	{"passes", 5 * time.Minute, measurePasses},
	{"transfer", 4 * time.Minute, measureTransfer},
	{"chunks", 4 * time.Minute, measureChunks},
	{"many", 5 * time.Minute, measureMany},
	{"idle", 3 * time.Minute, measureIdle},
	{"adverts", 5 * time.Minute, measureAdverts},
	{"catalog", 5 * time.Minute, measureCatalog},
	{"sizes", time.Minute, measureSizes},
	{"flat", 30 * time.Minute, measureFlat},
}, swarmScenarios...)

// byName are scenarios that are played only where -only names them: they want a lot of disk.
var byName = map[string]bool{"flat": true}

// A lab holds what all scenarios share.
type lab struct {
	dir    string // of this program alone, removed at the end
	meshd  string // the programs under test
	ctl    string
	tests  string // the tests of mesh/catalog
	wire   bool   // this program has a network of its own, whose counters count the nodes' bytes and no others'
	noWire string // why not
	alone  bool   // no other program is measured
	sizes  []int64
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		os.Exit(1)
	}
}

func run() error {
	only := flag.String("only", "", "scenarios to play, with commas between (default: all): "+strings.Join(names(), ", "))
	runs := flag.Int("runs", 1, "how often each is played; their values are told together")
	bin := flag.String("bin", "", "a folder with the programs to measure: meshd, meshctl, catalog.test (default: this tree's are built)")
	alone := flag.Bool("alone", false, "leave out rsync and aria2, which do the same work in the same run")
	sizes := flag.String("sizes", "1MiB,256MiB,2GiB,10GiB", "of the files of flat; it takes three times the largest of disk")
	markdown := flag.Bool("markdown", false, "print the table of RESULTS.md")
	flag.Parse()
	if flag.NArg() > 0 || *runs < 1 {
		return fmt.Errorf("usage: go run ./deploy/lab [-only NAME,...] [-runs N] [-bin DIR] [-alone] [-sizes SIZE,...] [-markdown]")
	}
	play, err := choose(*only)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if dir := os.Getenv(insideEnv); dir != "" {
		l := newLab(dir)
		l.alone = *alone
		if l.sizes, err = parseSizes(*sizes); err != nil {
			return err
		}
		l.noWire = os.Getenv(noWireEnv)
		if l.wire = l.noWire == ""; l.wire {
			if err := raiseLoopback(); err != nil {
				return fmt.Errorf("raise the loopback of the network of its own: %w", err)
			}
		}
		return l.play(ctx, play, *runs, *markdown)
	}
	return outside(ctx, *bin)
}

func names() []string {
	var out []string
	for _, s := range scenarios {
		out = append(out, s.name)
	}
	return out
}

func choose(only string) ([]scenario, error) {
	var out []scenario
	if only == "" {
		for _, s := range scenarios {
			if !byName[s.name] {
				out = append(out, s)
			}
		}
		return out, nil
	}
	for name := range strings.SplitSeq(only, ",") {
		found := false
		for _, s := range scenarios {
			if s.name == name {
				out, found = append(out, s), true
			}
		}
		if !found {
			return nil, fmt.Errorf("no scenario %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	return out, nil
}

const (
	insideEnv = "MESHD_LAB_DIR"     // where the programs are: set for the part that measures
	noWireEnv = "MESHD_LAB_NO_WIRE" // why there is no network of its own
)

// outside builds what is measured and then runs this program once more, in a network of its own where that
// can be had.
func outside(ctx context.Context, bin string) (err error) {
	dir, err := os.MkdirTemp("", "meshd-lab-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if l := newLab(dir); bin == "" {
		err = l.build(ctx)
	} else {
		err = l.take(bin)
	}
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe, os.Args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"="+dir, noWireEnv+"="+apart(cmd))
	if err := cmd.Start(); err != nil {
		return err
	}
	// An interrupt from a terminal reaches both; one sent to this program alone is handed on.
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })()
	if err := cmd.Wait(); err != nil {
		return errors.New("not all could be measured: see above")
	}
	return nil
}

func newLab(dir string) *lab {
	return &lab{
		dir: dir, meshd: filepath.Join(dir, "meshd"), ctl: filepath.Join(dir, "meshctl"),
		tests: filepath.Join(dir, "catalog.test"),
	}
}

// build makes the programs as they are shipped.
func (l *lab) build(ctx context.Context) error {
	for _, args := range [][]string{
		{"build", "-trimpath", "-ldflags", "-s -w", "-o", l.meshd, "meshd/cmd/meshd"},
		{"build", "-trimpath", "-ldflags", "-s -w", "-o", l.ctl, "meshd/cmd/meshctl"},
		{"test", "-c", "-o", l.tests, "meshd/mesh/catalog"},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
}

// take uses programs that were built before, of another commit perhaps.
func (l *lab) take(bin string) error {
	for _, program := range []string{l.meshd, l.ctl, l.tests} {
		from, err := filepath.Abs(filepath.Join(bin, filepath.Base(program)))
		if err != nil {
			return err
		}
		if err := os.Symlink(from, program); err != nil {
			return err
		}
	}
	return nil
}

// play runs scenarios one after the other, so that none disturbs another, and prints what they found. What
// could not run is told and does not stop the rest.
func (l *lab) play(ctx context.Context, list []scenario, runs int, markdown bool) error {
	failed := 0
	if markdown {
		fmt.Println("| figure | median | min..max | target | |\n|---|---|---|---|---|")
	}
	for _, s := range list {
		var all []figure
		for range runs {
			sctx, cancel := context.WithTimeout(ctx, s.limit)
			figures, err := s.run(sctx, l)
			cancel()
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			if err != nil {
				failed++
				fmt.Fprintf(os.Stderr, "lab: %s could not run: %v\n", s.name, err)
				continue
			}
			all = pool(all, figures)
		}
		for _, f := range all {
			if markdown {
				fmt.Println(f.markdown())
			} else {
				fmt.Println(f.line())
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d runs did not come to a figure", failed)
	}
	return nil
}
