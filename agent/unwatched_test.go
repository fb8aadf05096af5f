package agent

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/agent/promise"
)

// lateHost has somebody damage kept.txt when a watch of its folder is asked for, before there is one.
type lateHost struct {
	promise.Host
	damaged atomic.Bool
}

func (h *lateHost) Watch(dir string, changed func(name string)) (stop func(), err error) {
	path := filepath.Join(dir, "kept.txt")
	if there, err := os.ReadFile(path); err == nil && string(there) == "kept\n" && !h.damaged.Load() {
		if err := os.WriteFile(path, []byte("vandals were here\n"), 0o644); err != nil {
			return nil, err
		}
		h.damaged.Store(true)
	}
	return h.Host.Watch(dir, changed)
}

// A file is placed, and watched from when that is told; what happens to it in between is seen too.
func TestAFileDamagedBeforeItIsWatchedIsRepaired(t *testing.T) {
	for name, part := range map[string]string{
		"file": `file "kept" {
    path    = "kept.txt"
    content = "kept\n"
  }`,
		"want": `want "app" {
    name  = "app"
    place = "kept.txt"
  }`,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 8)
				defer f.end()
				f.found("first", nil)
				f.publishScore(soloScore("1.0.0", ""))
				if _, err := f.publishFile(f.parent, "app", "", "kept\n"); err != nil {
					t.Fatal(err)
				}
				host := &lateHost{Host: promise.NewSim(nil)}
				f.setUp = func(c *Config) { c.Host = host }
				m := f.join("late", 2, map[string]string{"late": "yes"})
				f.publishScore(soloScore("1.1.0", "role \"late\" { when = tag.late == \"yes\" }\npart \"p\" {\n  role = \"late\"\n  "+part+"\n}\n"))
				f.until("it is whole", 5*time.Second, func() (bool, string) {
					got := m.read("kept.txt")
					return host.damaged.Load() && got == "kept\n", got
				})
			})
		})
	}
}
