package agent

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"meshd/agent/promise"
)

// lateHost has somebody damage a file when a watch is asked for, before there is one.
type lateHost struct {
	promise.Host
	damage func()
}

func (h *lateHost) Watch(dir string, changed func(name string)) (stop func(), err error) {
	if damage := h.damage; damage != nil {
		h.damage = nil
		damage()
	}
	return h.Host.Watch(dir, changed)
}

// A file is placed, and watched from when that is told; what happens to it in between is seen too.
func TestAFileDamagedBeforeItIsWatchedIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 8)
		defer f.end()
		host := &lateHost{Host: promise.NewSim(nil)}
		f.setUp = func(c *Config) { c.Host = host }
		m := f.found("host", nil)
		damaged := false
		host.damage = func() {
			path := filepath.Join(m.agent.cfg.WorkDir, "kept.txt")
			if m.read("kept.txt") != "kept\n" {
				t.Error("it is watched before it is there")
			}
			damaged = true
			if err := os.WriteFile(path, []byte("vandals were here\n"), 0o644); err != nil {
				t.Error(err)
			}
		}
		f.publishScore(soloScore("1.0.0", "part \"p\" {\n  file \"kept\" {\n    path    = \"kept.txt\"\n    content = \"kept\\n\"\n  }\n}\n"))
		f.until("it is whole", 5*time.Second, func() (bool, string) {
			got := m.read("kept.txt")
			return damaged && got == "kept\n", got
		})
	})
}
