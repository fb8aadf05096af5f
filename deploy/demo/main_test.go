package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// bin is the folder with the meshd and meshctl that the tests run, built from this tree.
var bin string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "meshd-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "meshd/cmd/meshd", "meshd/cmd/meshctl")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build meshd and meshctl: %v\n%s", err, out)
		return 1
	}
	bin = dir
	return m.Run()
}

// thorough reports whether the tests that take minutes, or use an engine of containers, run too: .ci/run says so.
func thorough() bool { return os.Getenv("MESHD_TEST_ALL") != "" }
