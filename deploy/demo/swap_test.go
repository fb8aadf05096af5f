//go:build linux

package demo

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	swaps      = 1000
	swapsShort = 60
	calm       = 20 // looks of which the least counts: memory comes and goes with the collector
	moreGoes   = 10 // goroutines and descriptors that are just then in use
	moreBytes  = 8 << 20
	swapFiles  = 30
)

// swapped is one of two scores that share nothing: files in other folders, other facts, other commands.
func swapped(i int) string {
	side := []string{"left", "right"}[i%2]
	var keys []string
	for n := range swapFiles {
		keys = append(keys, strconv.Quote(fmt.Sprintf("k%02d", n)))
	}
	return strings.NewReplacer("SIDE", side, "VERSION", fmt.Sprintf("1.%d.0", i), "KEYS", strings.Join(keys, ", "), "ROUND", strconv.Itoa(i)).Replace(`
score "SIDE" {
  version  = "VERSION"
  language = 1
}
role "SIDE" { when = node.name == "host" }
part "SIDE" {
  role = "SIDE"
  file "f" {
    for_each = [KEYS]
    path     = "SIDE/${each.key}/f"
    content  = "SIDE ROUND"
  }
  command "c" {
    run     = ["cp", "SIDE/k00/f", "SIDE.copy"]
    inputs  = ["SIDE/k00/f"]
    outputs = ["SIDE.copy"]
  }
}
`)
}

// A burden is what a process holds; anonymous and mapped are bytes of memory; mapped are pages of files.
type burden struct{ files, goroutines, anonymous, mapped int }

var goroutines = regexp.MustCompile(`(?m)^go_goroutines (\d+)$`)

func burdenOf(t *testing.T, pid int, addr string) (b burden) {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	b.files = len(open)
	resp, err := http.Get("http://" + addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if m := goroutines.FindSubmatch(text); m != nil {
		b.goroutines, _ = strconv.Atoi(string(m[1]))
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kb int
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kb); err == nil {
			b.anonymous = kb << 10
		}
		if _, err := fmt.Sscanf(line, "RssFile: %d kB", &kb); err == nil {
			b.mapped = kb << 10
		}
	}
	if b.files == 0 || b.goroutines == 0 || b.anonymous == 0 || b.mapped == 0 {
		t.Fatalf("not all can be read: %+v", b)
	}
	return b
}

// lesser is the least of both; a burden of nothing is none.
func lesser(a, b burden) burden {
	if a == (burden{}) {
		return b
	}
	return burden{min(a.files, b.files), min(a.goroutines, b.goroutines), min(a.anonymous, b.anonymous), min(a.mapped, b.mapped)}
}

// watchesOf counts the folders that a process has the kernel watch.
func watchesOf(t *testing.T, pid int) (n int) {
	t.Helper()
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		if b, err := os.ReadFile(path); err == nil { // else it was closed meanwhile
			n += strings.Count(string(b), "inotify wd:")
		}
	}
	return n
}

// A node whose score is changed again and again holds no more than after the first changes.
func TestSwappedScoresLeaveNothingBehind(t *testing.T) {
	// By the middle of a thousand swaps the journal is as long as it gets.
	rounds := swaps
	if !thorough() {
		rounds = swapsShort
	}
	warm := rounds / 2
	f := newFleet(t)
	host := f.found("host", kept[:strings.Index(kept, "part")])
	host.stop()
	dir, addr := filepath.Join(f.dir, "score"), freeAddr(t)
	play := func(i int) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "score.hcl"), []byte(swapped(i)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	play(0)
	host.args = []string{"--policy", dir, "--http", addr}
	host.start()
	pid := host.proc.PID()
	var first, last burden
	began, watched := time.Now(), 0
	for i := range rounds + 1 {
		if i > 0 {
			play(i)
			if err := syscall.Kill(pid, syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
		side := []string{"left", "right"}[i%2]
		holds(t, host.work(side+".copy"), fmt.Sprintf("%s %d", side, i))
		holds(t, host.work(side, fmt.Sprintf("k%02d", swapFiles-1), "f"), fmt.Sprintf("%s %d", side, i))
		if i > warm-calm && i <= warm {
			first = lesser(first, burdenOf(t, pid, addr))
			watched = watchesOf(t, pid)
		}
		if i > rounds-calm {
			last = lesser(last, burdenOf(t, pid, addr))
		}
	}
	t.Logf("%d scores in %v: %+v and %d watches after %d, %+v and %d after all", rounds, round(time.Since(began)), first, watched, warm, last, watchesOf(t, pid))
	if last.files > first.files+moreGoes || last.goroutines > first.goroutines+moreGoes || last.anonymous > first.anonymous+moreBytes || last.mapped > first.mapped+moreBytes || watchesOf(t, pid) > watched+swapFiles {
		t.Errorf("it holds %+v and %d watches after %d scores, %+v and %d after %d", last, watchesOf(t, pid), rounds, first, watched, warm)
	}
	if v, err := host.door().Version(t.Context()); err != nil || v.PID != pid {
		t.Errorf("pid %d answers, want %d (%v)", v.PID, pid, err)
	}
}
