package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"meshd/agent/control"
)

// replace gives the name of a lost machine to a new one with a new key.
func (f *fleet) replace(name string, n int) *simNode {
	old := f.nodes[name]
	f.halt(old, true)
	token, err := door{f.parent.agent}.Invite(f.t.Context(), control.InviteRequest{Name: name, TTLSeconds: 3600, Uses: 1, Replace: true})
	if err != nil {
		f.t.Fatal(err)
	}
	m := f.machine(name, n)
	m.dir = filepath.Join(f.dir, "new-"+name)
	if m.node, err = JoinNode(f.t.Context(), m.dir, token, name, f.net.Host(m.addr), time.Now()); err != nil {
		f.t.Fatal(err)
	}
	return m
}

// A node that was off, or cut off and running, for longer than serf remembers anybody is right again in seconds, although
// meanwhile one node left for good, one was replaced by a machine with another key, and all others moved: none of the
// addresses that it knows is anybody's.
func TestANodePastEveryTimeoutIsWholeInSeconds(t *testing.T) {
	away := 20 * time.Minute
	if os.Getenv("MESHD_TEST_ALL") != "" {
		away = 25 * time.Hour // serf forgets the failed, and those that left, after 24
	}
	for _, off := range []bool{true, false} {
		t.Run(fmt.Sprintf("off=%v", off), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 25)
				defer f.end()
				host := f.found("host", nil)
				f.publishScore(notes)
				far := f.join("far", 2, nil)
				other := f.join("other", 3, nil)
				leaver := f.join("leaver", 4, nil)
				f.join("lost", 5, nil)
				for name, m := range f.nodes {
					m.put(t, "note.txt", "first of "+name)
				}
				all := func() (bool, string) { return f.oneNote() }
				f.until("all have all notes", time.Minute, all)
				f.until("all are whole", time.Minute, f.whole)
				if off {
					f.halt(far, true)
				} else {
					f.split(far, true)
				}

				f.halt(leaver, false)
				delete(f.nodes, "leaver")
				others := []*simNode{host, other, f.replace("lost", 15)}
				for _, m := range []*simNode{others[2], host, other} { // one after the other, so that they find each other
					if m.stop != nil {
						f.halt(m, false)
						m.addr = m.addr[:len("10.0.0.")] + "1" + m.addr[len("10.0.0."):]
					}
					if !off {
						f.net.Cut(far.addr, m.addr)
					}
					f.start(m)
					f.until("those that stay are whole", time.Minute, func() (bool, string) { return f.seeEachOther(others) })
				}
				for i := range 10 {
					time.Sleep(away / 10)
					m := others[i%3]
					m.put(t, "note.txt", fmt.Sprintf("%d of %s", i, m.name))
				}
				f.until("the others are whole", time.Minute, func() (bool, string) { return f.seeEachOther(others) })
				if off {
					if err := os.WriteFile(filepath.Join(far.dir, "work", "note.txt"), []byte("written while off"), 0o644); err != nil {
						t.Fatal(err)
					}
				} else {
					far.put(t, "note.txt", "written while cut off")
					time.Sleep(time.Minute)
				}

				began := time.Now()
				if off {
					f.start(far)
				} else {
					f.split(far, false)
				}
				everybody := append(others, far)
				seen := f.until("all see all, with one catalog", healLimit, func() (bool, string) { return f.seeEachOther(everybody) })
				f.until("all notes are in place", healLimit, all)
				f.until("all promises are kept", healLimit, f.allKept)
				took := time.Since(began)
				t.Logf("away for %v: all see all and know the same after %v, all in place and kept after %v", away, seen, took)
				if took > healLimit {
					t.Errorf("whole only %v after its return", took)
				}
			})
		})
	}
}

// oneNote says whether every running node has in place what every running node wrote last.
func (f *fleet) oneNote() (bool, string) {
	for _, m := range f.nodes {
		for name, o := range f.nodes {
			if m.stop == nil || o.stop == nil {
				continue
			}
			if got, want := m.read("in/note/"+name), o.read("note.txt"); got != want {
				return false, fmt.Sprintf("%s has %q of %s, which wrote %q", m.name, got, name, want)
			}
		}
	}
	return true, ""
}

// seeEachOther says whether each of these nodes sees these alive, and nobody else, with one catalog.
func (f *fleet) seeEachOther(these []*simNode) (bool, string) {
	for _, m := range these {
		alive := m.agent.mesh.Alive()
		for _, o := range these {
			if !alive[o.agent.mesh.Self()] || len(alive) != len(these) {
				return false, fmt.Sprintf("%s sees %d alive, %s: %v", m.name, len(alive), o.name, alive[o.agent.mesh.Self()])
			}
		}
		if m.agent.mesh.Catalog().Root() != these[0].agent.mesh.Catalog().Root() {
			return false, m.name + " has another catalog"
		}
	}
	return true, ""
}
