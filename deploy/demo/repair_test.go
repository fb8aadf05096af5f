package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshd/agent/control"
	"meshd/agent/promise"
)

// keeper is a score of one node that keeps one promise of each kind that can be damaged.
const keeper = `
score "keeper" {
  version  = "1.0.0"
  language = 1
}

part "keep" {
  file "motd" {
    path    = "motd.txt"
    content = "Welcome\n"
  }
  artifact "page" { from = "motd.txt" }
  want "page" {
    name  = "page"
    place = "page.txt"
  }
  process "sleeper" { run = ["/bin/sleep", "1000"] }
  process "crasher" { run = ["/bin/sh", "-c", "date +%s.%N >> starts.txt"] }
  guest "child" {}
}
`

func TestWhatIsDamagedComesBack(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", keeper)
	eventually(t, "all but the crasher is kept", func() (bool, string) {
		for _, p := range host.promises() {
			if p.Outcome != "kept" && p.Outcome != "repaired" && p.Address != "keep.process.crasher" {
				return false, p.Address + " is " + p.Outcome + ": " + p.Reason
			}
		}
		return len(host.promises()) == 6, "not all promises are there"
	})
	t.Run("a file", func(t *testing.T) { damageOften(t, host.work("motd.txt")) })
	t.Run("what a want placed", func(t *testing.T) {
		damageOften(t, host.work("page.txt"))
		eventually(t, "the damage is told as the cause", func() (bool, string) {
			last := items[control.StoryItem](host, "why", "keep.want.page")
			return len(last) == 1 && strings.Contains(last[0].Text, "page.txt changed on disk"), fmt.Sprint(last)
		})
	})
	t.Run("a process", func(t *testing.T) {
		killed := markedPID(t, host, "keep.process.sleeper")
		began := time.Now()
		if err := kill(killed); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the process is back", func() (bool, string) {
			now := markedPID(t, host, "keep.process.sleeper")
			return now != 0 && now != killed, "it is not there"
		})
		t.Logf("a killed process was back after %v (aim: 1s)", round(time.Since(began)))
	})
	t.Run("a guest", func(t *testing.T) {
		child := &node{f: f, name: "child", dir: filepath.Join(host.dir, "guests", "child")}
		before, err := child.door().Version(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := kill(before.PID); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the guest answers again", func() (bool, string) {
			now, err := child.door().Version(t.Context())
			if err != nil {
				return false, err.Error()
			}
			return now.PID != before.PID, "the old one answers"
		})
		t.Logf("a killed guest answered again after %v (aim: 1s)", round(time.Since(began)))
	})
	t.Run("what crashes at once, ever later", func(t *testing.T) { growingBackoff(t, host) })
}

// damageOften removes and overwrites a file in turn and prints how long it was wrong.
func damageOften(t *testing.T, path string) {
	const times = 100
	want := readFile(t, path)
	pause := time.NewTicker(lookTime)
	defer pause.Stop()
	took := make([]time.Duration, 0, times)
	for i := range times {
		<-pause.C // one damage after the other, not a fight
		var err error
		began := time.Now()
		if i%2 == 0 {
			err = os.Remove(path)
		} else {
			err = os.WriteFile(path, []byte("vandals were here\n"), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		for {
			b, err := os.ReadFile(path)
			if err == nil && string(b) == want {
				break
			}
			if time.Since(began) > testTime {
				t.Fatalf("damage %d of %s is still there: %q (%v)", i, path, b, err)
			}
			time.Sleep(50 * time.Microsecond) // leave the processor to the repair
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	t.Logf("from damage to repair, %d times: p50 %v, p95 %v, worst %v (aim: p95 5ms)",
		times, round(took[times/2]), round(took[times*95/100]), round(took[times-1]))
}

// markedPID is the process that keeps a promise of n; 0 if there is none.
func markedPID(t *testing.T, n *node, address string) int {
	t.Helper()
	host, err := promise.NewReal()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = host.Close() }()
	pid, _, err := host.Find(n.dir + ":" + address)
	if err != nil && !errors.Is(err, promise.ErrNotFound) {
		t.Fatal(err)
	}
	return pid
}

// growingBackoff reads when the crasher was started: again at once, then after 1 s, then after 2 s more.
func growingBackoff(t *testing.T, host *node) {
	var starts []float64
	eventually(t, "four starts", func() (bool, string) {
		starts = nil
		for line := range strings.Lines(readFile(t, host.work("starts.txt"))) {
			at, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
			if err != nil {
				return false, err.Error()
			}
			starts = append(starts, at)
		}
		return len(starts) >= 4, fmt.Sprint(starts)
	})
	first, second, third := starts[1]-starts[0], starts[2]-starts[1], starts[3]-starts[2]
	t.Logf("a process that crashes at once was started again after %.3f s, %.3f s, %.3f s", first, second, third)
	if second < 0.9 || third < 1.9 {
		t.Errorf("it was started again after %.3f s and %.3f s, want waits of 1 s and 2 s", second, third)
	}
	eventually(t, "the crasher is told as failed, and when its next start is", func() (bool, string) {
		p := host.promise("keep.process.crasher")
		return p.Outcome == "failed" && strings.Contains(p.Reason, "next start in"), p.Outcome + ": " + p.Reason
	})
}

// A stamp is what a write to a file changes, also one that puts the same content back.
type stamp struct {
	inode        uint64
	size         int64
	mtime, ctime syscall.Timespec
}

// stamps are those of all files below the folders.
func stamps(t *testing.T, folders ...string) map[string]stamp {
	t.Helper()
	out := map[string]stamp{}
	for _, folder := range folders {
		err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			} else if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			s := info.Sys().(*syscall.Stat_t)
			out[path] = stamp{s.Ino, s.Size, s.Mtim, s.Ctim}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// Nothing changes, so nothing is run, written or told, though all is looked at several times.
func TestQuietMeansQuiet(t *testing.T) {
	t.Parallel() // it only waits
	window := time.Minute
	if !thorough() {
		window = 5 * time.Second
	}
	score := strings.Replace(byHand(t), "language = 1\n", "language = 1\n  every    = \"2s\"\n", 1)
	f, _ := postcards(t, score)
	f.calm()
	var folders []string
	for _, n := range f.nodes {
		folders = append(folders, n.work(), filepath.Join(n.dir, "logs"))
	}
	files, told := stamps(t, folders...), f.tally()
	if len(files) < 15 {
		t.Fatalf("too few files to watch: %v", files)
	}
	looked := map[string]time.Time{}
	for _, n := range f.nodes {
		looked[n.name] = n.promises()[0].CheckedAt
	}
	select {
	case <-time.After(window):
	case <-t.Context().Done():
	}
	now := stamps(t, folders...)
	for path, s := range now {
		if files[path] != s {
			t.Errorf("%s was written: it was %+v and is %+v", path, files[path], s)
		}
	}
	if len(now) != len(files) {
		t.Errorf("there were %d files and are %d", len(files), len(now))
	}
	for name, news := range told.since() {
		t.Errorf("%s did %v", name, news)
	}
	for _, n := range f.nodes {
		p := n.promises()[0]
		if !p.CheckedAt.After(looked[n.name]) {
			t.Errorf("%s did not look at %s meanwhile: this test shows nothing", n.name, p.Address)
		}
	}
	t.Logf("quiet for %v: %d files of four nodes", window, len(files))
}
