//go:build linux

package demo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	fewWatches  = 20
	manyFolders = 60
)

// scarce puts in dir a meshd that the kernel allows only so many watches, as a user with fs.inotify.max_user_watches
// spent has it.
func scarce(t *testing.T, dir string) {
	t.Helper()
	limit := fmt.Sprintf("echo %d > /proc/sys/user/max_inotify_watches", fewWatches)
	if err := exec.CommandContext(t.Context(), "unshare", "--user", "--map-root-user", "sh", "-c", limit).Run(); err != nil {
		t.Skipf("skip: needs namespaces of users (%v)", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --user --map-root-user sh -c '%s; exec \"$0\" \"$@\"' %s \"$@\"\n", limit, filepath.Join(bin, "meshd"))
	if err := os.WriteFile(filepath.Join(dir, "meshd"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(bin, "meshctl"), filepath.Join(dir, "meshctl")); err != nil {
		t.Fatal(err)
	}
}

// Beyond what the kernel will watch, promises are kept by looking again; the doctor says so and what to do.
func TestPromisesAreKeptWhenWatchesRunOut(t *testing.T) {
	f := newFleet(t)
	f.bin = filepath.Join(f.dir, "bin")
	scarce(t, f.bin)
	var keys []string
	for i := range manyFolders {
		keys = append(keys, fmt.Sprintf("%q", fmt.Sprintf("k%02d", i)))
	}
	host := f.found("host", fmt.Sprintf(`
score "wide" {
  version  = "1.0.0"
  language = 1
}
part "p" {
  file "f" {
    for_each = [%s]
    path     = "${each.key}/f"
    content  = each.key
    every    = "1s"
  }
}
`, strings.Join(keys, ", ")))
	f.settled()
	if n := watchesOf(t, host.proc.PID()); n == 0 || n > fewWatches {
		t.Fatalf("the kernel watches %d folders, want 1 to %d", n, fewWatches)
	}
	var slowest time.Duration
	for i := range manyFolders {
		path := host.work(fmt.Sprintf("k%02d", i), "f")
		if err := os.WriteFile(path, []byte("vandals were here"), 0o644); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, holds(t, path, fmt.Sprintf("k%02d", i)))
	}
	t.Logf("with %d of %d folders watched, the slowest repair took %v", fewWatches, manyFolders, round(slowest))
	if said := host.ctl("doctor"); !strings.Contains(said, "max_user_watches") {
		t.Errorf("the doctor says\n%s", said)
	}
}
