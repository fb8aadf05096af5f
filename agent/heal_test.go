package agent

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh"
)

// whole says whether every running node sees all of them alive and in the ring, with one catalog.
func (f *fleet) whole() (bool, string) {
	for name, m := range f.nodes {
		switch {
		case len(m.agent.mesh.Alive()) != len(f.nodes):
			return false, fmt.Sprintf("%s sees %d alive", name, len(m.agent.mesh.Alive()))
		case m.agent.mesh.Standing() != mesh.InRing:
			return false, name + " is not in the ring"
		case m.agent.mesh.Catalog().Root() != f.parent.agent.mesh.Catalog().Root():
			return false, name + " has another catalog"
		}
		for _, n := range m.agent.mesh.Nodes() {
			if n.Status != "alive" {
				return false, fmt.Sprintf("%s sees %s %s", name, n.Name, n.Status)
			}
		}
	}
	return true, ""
}

// four is a fleet of four nodes that is whole.
func four(t *testing.T, seed uint64) *fleet {
	f := newFleet(t, seed)
	f.found("host", nil)
	for i := range 3 {
		f.join(fmt.Sprint("node_", i+1), 2+i, nil)
	}
	t.Logf("four nodes are whole %v after the last began", f.until("all are in the ring", time.Minute, f.whole))
	return f
}

// opened counts the sync sessions that ever were.
func (f *fleet) opened() (n uint64) {
	for _, m := range f.nodes {
		n += m.agent.mesh.Stats().Opened
	}
	return n
}

// A link that comes and goes restarts nothing that works.
func TestAFlappingLinkRestartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := four(t, 21)
		defer f.end()
		time.Sleep(10 * time.Second)
		before := f.opened()
		for range 20 {
			f.split(f.nodes["node_1"], true)
			time.Sleep(1500 * time.Millisecond)
			f.split(f.nodes["node_1"], false)
			time.Sleep(1500 * time.Millisecond)
		}
		f.until("all are whole again", 10*time.Second, f.whole)
		if after := f.opened(); after != before {
			t.Errorf("%d sync sessions were opened anew over a link that flaps", after-before)
		}
	})
}

// A machine that was suspended does not wait for timers: it looks for the others at once.
func TestAWallClockThatJumpedMeansLookAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 23)
		defer f.end()
		f.found("host", nil)
		var jump atomic.Int64
		f.setUp = func(c *Config) { c.Wall = func() time.Time { return time.Now().Add(time.Duration(jump.Load())) } }
		far := f.join("laptop", 2, nil)
		f.until("both are in the ring", time.Minute, f.whole)
		before := f.opened()
		time.Sleep(3 * time.Second)
		jump.Store(int64(time.Hour))
		f.until("it is whole", 10*time.Second, f.whole)
		time.Sleep(10 * time.Second)
		if after := f.opened(); after != before {
			t.Errorf("%d sessions that worked were opened anew", after-before)
		}
		// The network came back as another one: the old streams are dead, and nobody said so.
		f.split(far, true)
		time.Sleep(20 * time.Minute)
		f.split(far, false)
		jump.Add(int64(time.Hour))
		t.Logf("whole %v after the resume", f.until("it is whole", 10*time.Second, f.whole))
	})
}
