package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const fullScore = `
role "reader" { when = node.name == "reader" }

part "q" {
  role = "reader"
  file "note" {
    path    = "note.txt"
    content = "well"
  }
  want "doc" {
    name  = "doc"
    place = "doc"
  }
}
`

// A disk that is full half way through a pull: the want fails and says why, other promises are kept, and once there is
// room the rest comes by itself: what was here before is not fetched again.
func TestADiskThatIsFullHalfWayStopsOnlyWhatNeedsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 48 << 20
		f := newFleet(t, 7)
		defer f.end()
		var room atomic.Int64 // bytes of packs that the reader's disk takes
		room.Store(size / 2)
		f.setUp = func(cfg *Config) {
			if filepath.Base(cfg.Node.Dir) != "reader" {
				return
			}
			cfg.diskFault = func(step string) error {
				var bytes int64
				list, err := filepath.Glob(filepath.Join(cfg.Node.Dir, "packs", "*.pack"))
				for _, name := range list {
					info, err := os.Stat(name)
					if err != nil {
						return err
					}
					bytes += info.Size()
				}
				if step == "append" && bytes >= room.Load() {
					return fmt.Errorf("simulated: %w", syscall.ENOSPC)
				}
				return err
			}
		}
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", oneFile+fullScore))
		reader := f.join("reader", 2, nil)
		f.waitGood(reader, "q.file.note")
		f.waitOutcome(reader, "q.want.doc", "waiting")

		path := filepath.Join(t.TempDir(), "doc")
		content := make([]byte, size)
		if _, err := seeded(7, "doc").Read(content); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := (door{host.agent}).Publish(t.Context(), "doc", "", packed(t, path), nil); err != nil {
			t.Fatal(err)
		}
		reason := f.waitOutcome(reader, "q.want.doc", "failed")
		if !strings.Contains(reason, "no space left on device: make room in "+reader.dir) || !strings.Contains(reason, "doc") {
			t.Errorf("it says %q", reason)
		}
		packs, _, err := reader.agent.store.SizeBytes()
		if err != nil || packs < size/4 || packs > size*3/4 {
			t.Errorf("%d bytes of %d are here, %v: not half way", packs, size, err)
		}
		if _, err := os.Stat(filepath.Join(reader.agent.cfg.WorkDir, "doc")); err == nil {
			t.Error("half of it was placed")
		}
		f.edit(reader, "note.txt", "damaged")
		took := f.until("the note is repaired while the disk is full", time.Minute, func() (bool, string) {
			return reader.read("note.txt") == "well", reader.read("note.txt")
		})
		room.Store(1 << 40)
		back := f.until("doc is placed, nobody asking", 2*time.Minute, func() (bool, string) {
			_, why := f.outcome(reader, "q.want.doc")
			return reader.read("doc") != "", why
		})
		if !bytes.Equal([]byte(reader.read("doc")), content) {
			t.Error("it is not what was published")
		}
		fetched := reader.agent.mesh.Stats().Swarm.PulledBytes
		t.Logf("repaired after %v, placed %v after there was room, %.2f times the size fetched", took, back, float64(fetched)/size)
		if fetched > size*5/4 {
			t.Errorf("%d bytes were fetched of %d", fetched, size)
		}
	})
}
