package agent

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

var (
	halfSize = flag.Int("halves", 2, "how many nodes each side of the long split has")
	apartFor = flag.Duration("apart", 0, "how long it lasts; 0: 20 minutes, or 25 hours with MESHD_TEST_ALL")
)

// healLimit is how soon after a link's return, or its own, everything is right again (SPEC 13).
const healLimit = 10 * time.Second

// A split is a mesh of two halves, in which every node publishes notes and wants everybody's.
type split struct {
	*fleet
	sides [2][]*simNode
	wrote map[string]int // notes of each node
}

func newSplit(t *testing.T, seed uint64, each int) *split {
	s := &split{fleet: newFleet(t, seed), wrote: map[string]int{}}
	s.found("n1", nil)
	s.publishScore(notes)
	for i := range 2 * each {
		name := fmt.Sprint("n", i+1)
		if i > 0 {
			s.join(name, i+1, nil)
		}
		s.sides[i/each] = append(s.sides[i/each], s.nodes[name])
		s.write(s.nodes[name])
	}
	return s
}

func (s *split) write(m *simNode) {
	s.wrote[m.name]++
	m.put(s.t, "note.txt", s.note(m.name))
}

func (s *split) note(name string) string { return fmt.Sprintf("note %d of %s\n", s.wrote[name], name) }

// cut ends what goes between the halves, or heals it.
func (s *split) cut(on bool) {
	for _, a := range s.sides[0] {
		for _, b := range s.sides[1] {
			if on {
				s.net.Cut(a.addr, b.addr)
			} else {
				s.net.Heal(a.addr, b.addr)
			}
		}
	}
}

// placed says whether every node of some has the newest notes of all of these in place.
func (s *split) placed(at, of []*simNode) (bool, string) {
	for _, m := range at {
		for _, o := range of {
			if got := m.read("in/note/" + o.name); got != s.note(o.name) {
				return false, fmt.Sprintf("%s has %q of %s", m.name, got, o.name)
			}
		}
	}
	return true, ""
}

// Two halves that published apart, for longer than serf remembers anybody, are one mesh soon after the link's return:
// all see all, know the same, have every version of each other, and the newest in place.
func TestALongSplitHealsOnBothSides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		apart := *apartFor
		switch {
		case apart > 0:
		case os.Getenv("MESHD_TEST_ALL") != "":
			apart = 25 * time.Hour // serf forgets after 24
		default:
			apart = 20 * time.Minute
		}
		s := newSplit(t, 22, *halfSize)
		defer s.end()
		all := append(append([]*simNode{}, s.sides[0]...), s.sides[1]...)
		s.until("all have all notes", time.Minute, func() (bool, string) { return s.placed(all, all) })
		s.until("all are whole", time.Minute, s.whole)
		s.cut(true)
		const turns = 24
		for i := range turns {
			time.Sleep(apart / turns)
			for _, side := range s.sides {
				s.write(side[i%len(side)])
				s.until("its half has it", healLimit, func() (bool, string) { return s.placed(side, side) })
			}
		}
		for i, side := range s.sides {
			for _, m := range side {
				if n := len(m.agent.mesh.Alive()); n != len(side) {
					t.Errorf("%s sees %d alive in half %d", m.name, n, i)
				}
			}
		}
		s.cut(false)
		began := time.Now()
		known := s.until("catalogs are equal", healLimit, func() (bool, string) {
			root := all[0].agent.mesh.Catalog().Root()
			for _, m := range all {
				if m.agent.mesh.Catalog().Root() != root {
					return false, m.name
				}
			}
			return true, ""
		})
		s.until("all notes are in place", healLimit, func() (bool, string) { return s.placed(all, all) })
		inPlace := time.Since(began)
		s.until("all are whole", healLimit, s.whole)
		t.Logf("%d and %d nodes, %v apart, %d notes published on each side: catalogs equal %v after the heal, all in place after %v, all alive and whole after %v",
			*halfSize, *halfSize, apart, turns, known, inPlace, time.Since(began))
		if took := time.Since(began); took > healLimit {
			t.Errorf("whole only %v after the heal", took)
		}
		s.until("all promises are kept", healLimit, s.allKept)
		for _, m := range all {
			for _, o := range all {
				if n := len(m.agent.supply.named("note/" + o.name)); n != s.wrote[o.name] {
					t.Errorf("%s knows %d notes of %s, which published %d", m.name, n, o.name, s.wrote[o.name])
				}
			}
		}
	})
}
