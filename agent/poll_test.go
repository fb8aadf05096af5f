package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

const testPoll = 15 * time.Minute

// restingLeaf is a mesh of three members with a leaf that polls and has just gone to rest for the first time.
func restingLeaf(t *testing.T, seed uint64) (f *fleet, till *simNode) {
	f, till = leafFleetWith(t, seed, func(c *Config) { c.Leaf, c.LeafPoll = true, testPoll })
	f.until("its takings are everywhere", time.Minute, func() (bool, string) {
		for name, m := range f.nodes {
			if m != till && m.read("in/till.txt") != "takings of till" {
				return false, name
			}
		}
		return true, ""
	})
	f.rests(till)
	return f, till
}

// rests waits until the leaf rests and the others know it.
func (f *fleet) rests(till *simNode) {
	f.t.Helper()
	var since time.Time // it polls once more to tell what came of a poll
	f.until("it rests, and stays at rest", 3*time.Minute, func() (bool, string) {
		if !till.agent.mesh.Resting() {
			since = time.Time{}
		} else if since.IsZero() {
			since = time.Now()
		}
		return !since.IsZero() && time.Since(since) > 20*time.Second, f.report()
	})
	f.until("all see it asleep", time.Minute, func() (bool, string) { return f.allSee("till", "asleep") })
	if s := till.agent.mesh.Stats(); s.Sessions != 0 || s.Swarm.Sessions != 0 {
		f.t.Errorf("%d sessions and %d streams of artifacts are open while it rests", s.Sessions, s.Swarm.Sessions)
	}
}

func TestALeafThatPollsGetsAndGivesWhatIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, till := restingLeaf(t, 41)
		defer f.end()
		far := f.nodes["shop_2"]
		f.until("who counts it", time.Minute, func() (bool, string) { return far.read("who.txt") == "till", far.read("who.txt") })

		if _, err := f.publishFile(f.parent, "prices", "", "1 each"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(testPoll / 3)
		if got := till.read("prices.txt"); got != "" {
			t.Errorf("a leaf that rests has %q", got)
		}
		took := f.until("it polls, and has the prices", testPoll, func() (bool, string) { return till.read("prices.txt") == "1 each", f.report() })
		t.Logf("what a member published %v before is in place %v later", testPoll/3, took)
		f.rests(till)
		if n := far.sees("till"); !n.Live || far.read("who.txt") != "till" {
			t.Errorf("while it rests it is live %v, and counts as %q", n.Live, far.read("who.txt"))
		}
		for _, n := range till.agent.mesh.Nodes() {
			if n.Status != "alive" {
				t.Errorf("while it rests it sees %s %s", n.Name, n.Status)
			}
		}

		time.Sleep(time.Minute)
		if _, err := till.agent.supply.offer(t.Context(), "note/till", "", 3, addPath(f.file("now")), Cause{}); err != nil {
			t.Fatal(err)
		}
		took = f.until("what it publishes is told at once", time.Minute, func() (bool, string) { return far.read("notes/till.txt") == "now", f.report() })
		t.Logf("what it publishes while it rests is in place elsewhere after %v", took)
		if took > 5*time.Second {
			t.Errorf("it took %v, want at most 5 s", took)
		}
		f.rests(till)

		time.Sleep(time.Minute)
		file := filepath.Join(till.agent.cfg.WorkDir, "takings.txt")
		if err := errors.Join(os.Remove(file), os.MkdirAll(filepath.Join(file, "in the way"), 0o755)); err != nil {
			t.Fatal(err)
		}
		took = f.until("a failure is told", testPoll/2, func() (bool, string) {
			counts := far.sees("till").Counts
			return counts[2] > 0, fmt.Sprint(counts)
		})
		t.Logf("a failure on it is told after %v", took)
	})
}

func TestALeafThatPollsCountsUntilItsLeaseIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, till := restingLeaf(t, 42)
		defer f.end()
		f.halt(till, true)
		time.Sleep(testPoll + 9*time.Minute)
		if n := f.parent.sees("till"); !n.Live || n.Status != "asleep" {
			t.Errorf("before its lease is over it is %s, live %v", n.Status, n.Live)
		}
		time.Sleep(2 * time.Minute)
		if n := f.parent.sees("till"); n.Live || n.Status != "asleep" {
			t.Errorf("after its lease it is %s, live %v", n.Status, n.Live)
		}
	})
}

// With no network a leaf tries again before the whole time is over, and goes on believing in what it knows for as long as
// its lease lasts.
func TestALeafThatPollsInVainTriesAgainSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, till := restingLeaf(t, 43)
		defer f.end()
		f.split(till, true)
		if _, err := f.publishFile(f.parent, "prices", "", "2 each"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(testPoll + 2*time.Minute) // a poll in vain
		for _, n := range till.agent.mesh.Nodes() {
			if n.Status != "alive" {
				t.Errorf("within its lease it sees %s %s", n.Name, n.Status)
			}
		}
		time.Sleep(testPoll)
		for _, n := range till.agent.mesh.Nodes() {
			if n.Name != "till" && n.Status == "alive" {
				t.Errorf("after its lease it still believes that %s is there", n.Name)
			}
		}
		f.split(till, false)
		took := f.until("it has the prices", testPoll, func() (bool, string) { return till.read("prices.txt") == "2 each", f.report() })
		if took > pollAgain+time.Minute {
			t.Errorf("%v after the link's return", took)
		}
	})
}

func TestAnIdleLeafThatPollsCostsLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, till := restingLeaf(t, 44)
		defer f.end()
		const look = 4
		before := carried(f, till)
		time.Sleep(look * testPoll)
		polls := (carried(f, till) - before) / look
		t.Logf("a poll with nothing new costs %d bytes of streams: %d an hour at one in %v", polls, polls*int64(time.Hour/testPoll), testPoll)
		if polls > 15_000 {
			t.Errorf("a poll takes %d bytes, want at most 15,000", polls)
		}
	})
}
