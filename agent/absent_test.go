package agent

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/agent/control"
	"meshd/mesh/catalog"
)

const couriersScore = `role "late" { when = tag.late == "yes" }
role "maker" { when = tag.maker == "yes" }
role "anybody" { when = true }
part "p" {
  role = "late"
  want "app" {
    name  = "app"
    place = "app.txt"
  }
}
part "q" {
  role = "maker"
  want "answer" {
    name  = "answer"
    place = "answer.txt"
  }
}
access "open" {
  allow "publish" {
    names = ["app"]
    roles = ["maker"]
  }
  allow "publish" {
    names = ["answer"]
    roles = ["late"]
  }
  allow "pull" {
    names = ["**"]
    roles = ["anybody"]
  }
}`

// member finds how m lists a node.
func (f *fleet) member(m *simNode, name string) control.Member {
	f.t.Helper()
	list, err := door{m.agent}.Members(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	for _, x := range list {
		if x.Name == name {
			return x
		}
	}
	f.t.Fatalf("%s does not list %s", m.name, name)
	return control.Member{}
}

// A node that was stopped in order is told as left, with its last counts, by those that began or came since then too.
func TestWhoLeftInOrderIsToldSoByLatecomersToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 34)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", couriersScore))
		gone := f.join("gone", 2, map[string]string{"late": "yes"})
		f.waitScore(gone)
		f.until("host and gone are whole", time.Minute, f.whole)
		if _, err := f.publishFile(host, "app", "1.0.0", "one"); err != nil {
			t.Fatal(err)
		}
		f.waitGood(gone, "p.want.app")
		f.halt(gone, false)
		f.halt(host, false)
		f.start(host)
		later := f.join("later", 3, nil)
		f.until("later heard all", time.Minute, func() (bool, string) {
			return later.agent.mesh.Catalog().Root() == host.agent.mesh.Catalog().Root(), f.report()
		})
		for _, m := range []*simNode{host, later} {
			f.until(m.name+" knows that it left", time.Minute, func() (bool, string) {
				is := f.member(m, "gone")
				return is.Status == "left", is.Status
			})
			if is := f.member(m, "gone").Promises; is.Kept+is.Repaired != 1 || is.Waiting != 0 {
				t.Errorf("%s tells %+v of the node that left with all kept", m.name, is)
			}
			if m.hasTrouble(t, "peers", "gone") {
				t.Errorf("the doctor of %s ails at a node that left in order", m.name)
			}
		}
		f.start(gone)
		f.until("it is back", time.Minute, func() (bool, string) {
			r, ok := later.agent.mesh.Catalog().Newest(catalog.KindStatus, "", gone.agent.mesh.Self())
			if !ok {
				return false, "no status"
			}
			said, err := catalog.DecodeStatus(r.Body)
			back, _ := f.whole()
			return err == nil && said.State == catalog.StatusRunning && back, f.report()
		})
		f.halt(gone, true)
		f.until("a crash is no goodbye", time.Minute, func() (bool, string) {
			is := f.member(later, "gone")
			return is.Status == "failed", is.Status
		})
	})
}

// Maker and late are never online together: what each makes reaches the other through whoever is there in
// between, after days and over several hands.
func TestCouriersCarryBetweenNodesThatNeverMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 31)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", couriersScore))
		maker := f.join("maker", 2, map[string]string{"maker": "yes"})
		f.waitScore(maker)
		f.halt(maker, false)
		late := f.join("late", 3, map[string]string{"late": "yes"})
		f.waitScore(late)
		f.until("late's want and score are heard", time.Minute, func() (bool, string) {
			return f.member(host, "late").Score == "1.0.0" && len(host.agent.placedBy()["app"]) == 1, "not heard"
		})
		f.halt(late, false)
		second := f.join("second", 4, nil)
		f.waitScore(second)
		f.halt(second, false)

		// The maker meets the host alone, for as long as publishing takes.
		f.start(maker)
		f.waitScore(maker)
		f.until("they meet", time.Minute, func() (bool, string) { return len(maker.agent.mesh.Alive()) == 2, "not yet" })
		item, err := f.publishFile(maker, "app", "1.0.0", "the app")
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(item.Holders) != "[host maker]" {
			t.Errorf("published, it is held by %v", item.Holders)
		}
		f.halt(maker, false)
		time.Sleep(time.Hour)

		// The host hands it to the second, and goes.
		f.start(second)
		root := host.agent.supply.named("app")[0].ref.Root
		took := f.until("the second has a copy", 2*time.Minute, func() (bool, string) {
			has, err := second.agent.store.Has(root)
			return has, fmt.Sprint(err)
		})
		t.Logf("handed on after %v", took)
		if got := f.member(second, "late"); got.AbsentSince.IsZero() || got.Score != "1.0.0" || len(got.Placed) != 0 ||
			len(got.Waiting) != 1 || got.Waiting[0].Name != "app" || got.Waiting[0].Version != "1.0.0" || got.WaitingBytes != int64(len("the app")) {
			t.Errorf("what waits for late: %+v", got)
		}
		f.halt(host, false)
		time.Sleep(time.Hour)
		f.halt(second, false)
		time.Sleep(30 * 24 * time.Hour) // nobody is there at all

		// Late meets the second alone.
		f.start(second)
		f.start(late)
		took = f.until("late has it", 2*time.Minute, func() (bool, string) { return late.read("app.txt") == "the app", f.report() })
		t.Logf("in place %v after they met", took)
		if _, err := f.publishFile(late, "answer", "", "well received"); err != nil {
			t.Fatal(err)
		}
		f.until("the second knows that late has it", time.Minute, func() (bool, string) {
			return len(f.member(second, "late").Waiting) == 0, fmt.Sprint(f.member(second, "late").Waiting)
		})
		f.halt(late, false)
		got := f.member(second, "late")
		if len(got.Placed) != 1 || got.Placed[0].Version != "1.0.0" || len(got.Waiting) != 0 || time.Since(got.AbsentSince) > time.Minute {
			t.Errorf("of late, that has left with all it wants, it is told %+v", got)
		}

		// And the answer goes the way back.
		f.start(maker)
		took = f.until("the maker has the answer", 2*time.Minute, func() (bool, string) { return maker.read("answer.txt") == "well received", f.report() })
		t.Logf("answered %v after they met", took)
	})
}

// A node that is no copy holds an artifact: it lets go of it when nobody absent wants it any more, or after 90
// days.
func TestWhatAnAbsentNodeWantsIsNotCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 32)
		defer f.end()
		var ahead atomic.Int64 // how far all clocks are
		f.setUp = func(c *Config) { c.Wall = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } }
		f.found("host", map[string]string{"maker": "yes"})
		f.publishScore(soloScore("1.0.0", couriersScore))
		late := f.join("late", 2, map[string]string{"late": "yes"})
		f.waitScore(late)
		for i := range 3 {
			f.waitScore(f.join(fmt.Sprintf("n%d", i), 3+i, nil))
		}
		host := f.nodes["host"]
		f.until("late's want is heard", time.Minute, func() (bool, string) { return len(host.agent.placedBy()["app"]) == 1, "not heard" })
		f.halt(late, false)
		f.until("late is gone", time.Minute, func() (bool, string) { return len(host.agent.mesh.Alive()) == 4, "not yet" })
		if _, err := f.publishFile(host, "app", "", "the app"); err != nil {
			t.Fatal(err)
		}
		o := host.agent.supply.named("app")[0]
		var odd *simNode // no copy
		for i := range 3 {
			if m := f.nodes[fmt.Sprintf("n%d", i)]; !m.agent.isCopy(o) {
				odd = m
			}
		}
		if odd == nil {
			t.Fatal("everybody is a copy")
		}
		holds := func() bool {
			t.Helper()
			for range 4 {
				if err := odd.agent.collectOnce(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			has, err := odd.agent.store.Has(o.ref.Root)
			if err != nil {
				t.Fatal(err)
			}
			return has
		}
		get := func() {
			t.Helper()
			if err := (door{odd.agent}).Get(t.Context(), "app", &bytes.Buffer{}, nil); err != nil {
				t.Fatal(err)
			}
		}
		f.until("the odd one heard of it", time.Minute, func() (bool, string) { return len(odd.agent.supply.named("app")) == 1, "not heard" })
		get()
		if !holds() {
			t.Error("what late still wants was collected")
		}
		if err := (door{odd.agent}).Forget(t.Context(), "late"); err != nil {
			t.Fatal(err)
		}
		if holds() {
			t.Error("it is kept for a node that an operator forgot")
		}
		f.start(late) // heard again, it is waited for again
		f.until("late came for it", time.Minute, func() (bool, string) { return late.read("app.txt") == "the app", f.report() })
		f.halt(late, false)
		get()
		f.until("the odd one knows", time.Minute, func() (bool, string) {
			return len(f.member(odd, "late").Placed) == 1 && f.member(odd, "late").Status != "alive", fmt.Sprint(f.member(odd, "late"))
		})
		if holds() {
			t.Error("it is kept for late, which has it")
		}
		for n := 1; odd.agent.isCopy(o) || n == 1; n++ { // until the odd one is no copy of the newest
			if _, err := f.publishFile(host, "app", "", fmt.Sprint("newer ", n)); err != nil || n > 20 {
				t.Fatal(n, err)
			}
			o, _ = host.agent.supply.ownNewest("app")
		}
		f.until("the odd one heard of the newer", time.Minute, func() (bool, string) { return odd.agent.supply.index.find(o.ref.Root) != nil, "not heard" })
		get()
		if got := f.member(odd, "late"); len(got.Waiting) != 1 || got.Waiting[0].Version != o.shown() || got.Placed[0].Version != "1" {
			t.Errorf("what late had, and what waits: %+v", got)
		}
		if !holds() {
			t.Error("the newer one, which late lacks, was collected")
		}
		ahead.Store(int64(courierFor))
		if holds() {
			t.Error("it is kept for longer than 90 days")
		}
	})
}

// Who was away says when by a clock that was half a year ahead: it is absent since it went, by everybody's own clock.
func TestAClockThatWasAheadDoesNotHideSinceWhenItsNodeIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 33)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", couriersScore))
		f.setUp = func(c *Config) { c.Wall = func() time.Time { return time.Now().AddDate(0, 6, 0) } }
		late := f.join("late", 2, map[string]string{"late": "yes"})
		f.setUp = nil
		f.waitScore(late)
		f.until("late's status is heard", time.Minute, func() (bool, string) { return f.member(host, "late").Score == "1.0.0", "not heard" })
		f.halt(late, false)
		gone := time.Now()
		time.Sleep(time.Hour)
		got := f.member(host, "late")
		if off := got.AbsentSince.Sub(gone).Abs(); off > time.Minute || !got.LastSeen.Equal(got.AbsentSince) {
			t.Errorf("it went at %v and is absent since %v, last seen %v", gone, got.AbsentSince, got.LastSeen)
		}
	})
}
