package agent

import (
	"testing"
	"testing/synctest"
	"time"
)

const ringProves = time.Minute // as in package mesh

// Two members that were leaves once, and no attach point was there to say that they are none any more: they find each
// other after a split that is longer than serf remembers, and are told as the members that they are.
func TestWhoWasALeafOnceHealsAsAMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 61)
		defer f.end()
		host := f.found("host", nil)
		f.setUp = func(c *Config) { c.Leaf = true }
		once := []*simNode{f.join("a", 2, nil), f.join("b", 3, nil)}
		f.setUp = nil
		for _, m := range once {
			f.until(m.name+" is a leaf", time.Minute, func() (bool, string) { return f.allSee(m.name, "alive") })
			f.halt(m, false)
		}
		for _, m := range once {
			f.start(m)
		}
		f.until("all are in the ring", 2*time.Minute, f.whole)
		f.halt(host, true)
		time.Sleep(2 * ringProves)
		f.split(once[0], true)
		time.Sleep(25 * time.Hour)
		if n := once[1].sees("a"); n.Leaf || n.Status != "failed" {
			t.Errorf("a member that is cut off is told as %q, leaf %v", n.Status, n.Leaf)
		}
		f.split(once[0], false)
		t.Logf("healed %v after the link's return", f.until("they see each other", 10*time.Second, func() (bool, string) {
			return f.seeEachOther(once)
		}))
	})
}
