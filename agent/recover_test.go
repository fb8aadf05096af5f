package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/catalog"
	"meshd/store/artifact"
)

// What a store that is lost had placed is taken over where it is a version that is still offered; what nobody knows is
// left to people.
func TestWantTakesOverWhatALostStorePlaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(notes)
		host.put(t, "note.txt", "first\n")
		child := f.join("child", 2, nil)
		placed := func(want string) func() (bool, string) {
			return func() (bool, string) { got := child.read("in/note/host"); return got == want, got }
		}
		f.until("the child has the first note", time.Minute, placed("first\n"))
		for _, tt := range []struct {
			lies string
			take bool
		}{{"first\n", true}, {"nobody's\n", false}} {
			f.halt(child, true)
			for _, path := range []string{"state.db", "packs"} {
				if err := os.RemoveAll(filepath.Join(child.dir, path)); err != nil {
					t.Fatal(err)
				}
			}
			child.put(t, "in/note/host", tt.lies)
			host.put(t, "note.txt", "after "+tt.lies)
			f.start(child)
			if tt.take {
				f.until("the newer note is there", time.Minute, placed("after "+tt.lies))
				continue
			}
			f.until("the want tells what is in the way", time.Minute, func() (bool, string) {
				list, err := child.agent.ownPromises(t.Context(), "all.want.notes")
				if err != nil || len(list) != 1 {
					return false, "not played yet"
				}
				return strings.Contains(list[0].Reason, "adopt = true"), list[0].Reason
			})
			if got := child.read("in/note/host"); got != tt.lies {
				t.Errorf("what nobody knows was replaced by %q", got)
			}
		}
	})
}

// A sponsor whose clock was years off renewed its own certificate by it: peers refuse that one, until the clock is right.
func TestMeshIsWholeOnceASponsorsClockIsRight(t *testing.T) {
	for _, years := range []int{4, -4} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(t, 4)
			defer f.end()
			var skew atomic.Int64
			f.setUp = func(cfg *Config) {
				if cfg.Node.Name == "host" {
					cfg.Wall = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) }
				}
			}
			host := f.found("host", nil)
			f.publishScore(notes)
			child := f.join("child", 2, nil)
			first := host.agent.mesh.Cert().Serial
			skew.Store(int64(time.Duration(years) * 365 * 24 * time.Hour))
			f.halt(host, true)
			f.start(host)
			f.until("the host renewed by its wrong clock", 5*time.Minute, func() (bool, string) {
				return host.agent.mesh.Cert().Serial != first, "still the first certificate"
			})
			skew.Store(0)
			f.until("both see each other again", 5*time.Minute, func() (bool, string) {
				return len(host.agent.mesh.Alive()) == 2 && len(child.agent.mesh.Alive()) == 2, f.report()
			})
			host.put(t, "note.txt", "all is well\n")
			f.until("the child has the note", time.Minute, func() (bool, string) {
				return child.read("in/note/host") == "all is well\n", f.report()
			})
		})
	}
}

// A restored backup publishes again what it had published before: the same root under a newer version. Wants tell of the
// newer one.
func TestVersionWithTheBytesOfAnOlderOneIsToldAsItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 5)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", wantApp))
		late := f.join("late", 2, map[string]string{"late": "yes"})
		f.until("both are in the ring", time.Minute, f.whole)
		for i, text := range []string{"old", "new", "old"} {
			opts := addPath(f.file(text))
			opts.Origin = artifact.Origin{Node: host.agent.mesh.Self(), Entry: 1}
			ref, err := host.agent.store.Add(t.Context(), opts)
			if err != nil {
				t.Fatal(err)
			}
			version := uint64(i + 1)
			body, err := catalog.EncodeArtifact(catalog.ArtifactBody{Counter: version, Root: ref.Root, Tree: ref.Tree, SizeBytes: ref.SizeBytes, Keep: 3})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := host.agent.mesh.Publish(t.Context(), catalog.KindArtifact, "app", body, 3); err != nil {
				t.Fatal(err)
			}
			f.until("the version is in place, remembered and told", time.Minute, func() (bool, string) {
				p := late.agent.supply.placements("p.want.app")
				told := host.agent.placedBy()["app"][late.agent.mesh.Self()].Version.Counter
				ok := late.read("app.txt") == text && len(p) == 1 && p[0].Counter == version && told == version
				return ok, fmt.Sprintf("version %d: in place %q, remembered %+v, told %d", version, late.read("app.txt"), p, told)
			})
		}
	})
}

// put writes a file of the machine's work folder and tells its watches.
func (m *simNode) put(t *testing.T, path, text string) {
	t.Helper()
	full := filepath.Join(m.dir, "work", path)
	err := os.MkdirAll(filepath.Dir(full), 0o755)
	if err == nil {
		err = os.WriteFile(full, []byte(text), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.host.Touch(filepath.Dir(full), filepath.Base(full))
}
