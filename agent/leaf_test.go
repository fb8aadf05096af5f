package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/agent/control"
	"meshd/mesh"
)

const leafScore = `role "shop" { when = tag.kind == "shop" }
role "till" { when = tag.kind == "till" }
part "tills" {
  role = "till"
  file "takings" {
    path    = "takings.txt"
    content = "takings of ${node.name}"
  }
  artifact "takings" {
    name  = "takings/${node.name}"
    from  = "takings.txt"
    needs = [file.takings]
  }
  want "prices" {
    name  = "prices"
    place = "prices.txt"
  }
}
part "shops" {
  role = "shop"
  want "takings" {
    name  = "takings/*"
    place = "in/${artifact.publisher}.txt"
  }
  want "notes" {
    name  = "note/*"
    place = "notes/${artifact.publisher}.txt"
  }
  file "who" {
    path    = "who.txt"
    content = join(",", [for m in members("till") : m.name])
  }
}`

// leafFleet is a mesh of three members that play shops, and a till behind NAT.
func leafFleet(t *testing.T, seed uint64, byFlag bool) (f *fleet, till *simNode) {
	return leafFleetWith(t, seed, func(c *Config) { c.Leaf = byFlag })
}

func leafFleetWith(t *testing.T, seed uint64, setUp func(*Config)) (f *fleet, till *simNode) {
	f = newFleet(t, seed)
	f.found("host", map[string]string{"kind": "shop"})
	f.publishScore(soloScore("1.0.0", leafScore))
	f.join("shop_1", 2, map[string]string{"kind": "shop"})
	f.join("shop_2", 3, map[string]string{"kind": "shop"})
	f.until("the members are whole", time.Minute, f.whole)
	f.net.NAT("10.0.0.9:6374", true)
	f.setUp = setUp
	till = f.join("till", 9, map[string]string{"kind": "till"})
	f.setUp = nil
	return f, till
}

// sees says how node m sees the one of that name.
func (m *simNode) sees(name string) mesh.Node {
	for _, n := range m.agent.mesh.Nodes() {
		if n.Name == name {
			return n
		}
	}
	return mesh.Node{}
}

// allSee says whether every other node sees the leaf with that status, as a leaf.
func (f *fleet) allSee(leaf, status string) (bool, string) {
	for name, m := range f.nodes {
		if name == leaf || m.stop == nil {
			continue
		}
		if n := m.sees(leaf); n.Status != status || !n.Leaf {
			return false, fmt.Sprintf("%s sees %s %q, leaf %v, at %s", name, leaf, n.Status, n.Leaf, n.At.Short())
		}
	}
	return true, ""
}

// A leaf plays its roles, publishes and pulls like any node, whether it was told to be one or found out.
func TestALeafBehindNATPlaysItsRoles(t *testing.T) {
	for _, byFlag := range []bool{true, false} {
		t.Run(fmt.Sprintf("flag=%v", byFlag), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, till := leafFleet(t, 31, byFlag)
				defer f.end()
				t.Logf("seen as a leaf by all after %v", f.until("all see it", time.Minute, func() (bool, string) { return f.allSee("till", "alive") }))
				for _, name := range []string{"host", "shop_1", "shop_2"} {
					m := f.nodes[name]
					f.until("its artifact is on "+name, time.Minute, func() (bool, string) {
						return m.read("in/till.txt") == "takings of till", f.report()
					})
					f.until(name+" counts it", time.Minute, func() (bool, string) { return m.read("who.txt") == "till", m.read("who.txt") })
				}
				if _, err := f.publishFile(f.parent, "prices", "", "1 each"); err != nil {
					t.Fatal(err)
				}
				t.Logf("what a member publishes is on the leaf after %v", f.until("prices on the leaf", time.Minute, func() (bool, string) { return till.read("prices.txt") == "1 each", f.report() }))
				for _, n := range till.agent.mesh.Nodes() {
					if n.Status != "alive" {
						t.Errorf("the leaf sees %s %s", n.Name, n.Status)
					}
				}
				if s := till.agent.mesh.Standing(); s != mesh.AsLeaf {
					t.Errorf("it stands as %d", s)
				}
				for name, m := range f.nodes {
					if root := m.agent.mesh.Catalog().Root(); root != f.parent.agent.mesh.Catalog().Root() {
						f.until(name+" knows the same", time.Minute, func() (bool, string) {
							return m.agent.mesh.Catalog().Root() == f.parent.agent.mesh.Catalog().Root(), ""
						})
					}
				}
			})
		})
	}
}

// points returns the leaf's attach point and its standby.
func (f *fleet) points(till *simNode) (active, standby *simNode) {
	f.t.Helper()
	f.until("the leaf has an attach point and a standby", time.Minute, func() (bool, string) {
		active, standby = nil, nil
		for _, m := range f.nodes {
			if m == till || m.stop == nil {
				continue
			}
			if m.agent.mesh.AttachedHere(till.agent.mesh.Self()) {
				active = m
			} else if m.agent.mesh.Stats().Leaves > 0 {
				standby = m
			}
		}
		return active != nil && standby != nil, "not yet"
	})
	return active, standby
}

// third is the shop that is neither.
func (f *fleet) third(not ...*simNode) *simNode {
	for _, m := range f.nodes {
		if m != not[0] && m != not[1] && m != not[2] {
			return m
		}
	}
	f.t.Fatal("no third node")
	return nil
}

func TestWhatALeafPublishesReachesANodeItNeverSpokeTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, till := leafFleet(t, 32, true)
		defer f.end()
		active, standby := f.points(till)
		far := f.third(till, active, standby)
		f.net.Cut(till.addr, far.addr) // nothing goes between them
		f.until("the first takings are there", time.Minute, func() (bool, string) { return far.read("in/till.txt") != "", f.report() })
		var all []time.Duration
		for i := range 20 {
			time.Sleep(700 * time.Millisecond)
			text := fmt.Sprintf("takings of day %d", i)
			if _, err := till.agent.supply.offer(t.Context(), "note/till", "", 3, addPath(f.file(text)), Cause{}); err != nil {
				t.Fatal(err)
			}
			took := f.until("they are there", 30*time.Second, func() (bool, string) { return far.read("notes/till.txt") == text, far.read("notes/till.txt") })
			all = append(all, took)
		}
		slices.Sort(all)
		t.Logf("20 artifacts of a leaf reach a node that it never spoke to: median %v, longest %v", all[10], all[19])
		if all[10] >= time.Second || all[19] >= 5*time.Second {
			t.Errorf("the median is %v and the longest %v, want less than 1 s and 5 s", all[10], all[19])
		}

		// The leaf dies without a word; it counts until its lease ends, and a latecomer gets what it left.
		f.halt(till, true)
		f.until("it is seen asleep", time.Minute, func() (bool, string) { return f.allSee("till", "asleep") })
		if n := far.sees("till"); !n.Live {
			t.Error("its lease is over a moment after it went")
		}
		late := f.join("latecomer", 5, map[string]string{"kind": "shop"})
		f.until("the latecomer has its takings", time.Minute, func() (bool, string) { return late.read("notes/till.txt") == "takings of day 19", f.report() })
		time.Sleep(11 * time.Minute)
		if n := far.sees("till"); n.Live || n.Status != "asleep" {
			t.Errorf("after its lease it is %s, live %v", n.Status, n.Live)
		}
		f.start(till)
		t.Logf("alive again %v after its start", f.until("it is back", time.Minute, func() (bool, string) { return f.allSee("till", "alive") }))
	})
}

// Who publishes on a node that can't speak to a copy is told of it by what the copy says itself, in the catalog.
func TestPublishDoesNotWaitForACopyThatCannotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, till := leafFleet(t, 37, true)
		defer f.end()
		active, standby := f.points(till)
		far := f.third(till, active, standby)
		f.until("the first takings are there", time.Minute, func() (bool, string) { return far.read("in/till.txt") != "", f.report() })
		f.net.Cut(till.addr, far.addr)
		told := 0
		for i := range 10 {
			began := time.Now()
			item, err := f.publishFile(till, "note/till", "", fmt.Sprintf("day %d", i))
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > time.Second || len(item.Holders) < 1+mesh.Copies {
				t.Errorf("publish %d took %v and tells of the holders %v, want less than 1 s and %d copies", i, took, item.Holders, mesh.Copies)
			}
			if slices.Contains(item.Holders, far.agent.Name()) {
				told++
			}
		}
		if told == 0 {
			t.Error("the node that can't be asked was never a copy: this tested nothing")
		}
	})
}

// Any member asks a leaf, also one that nothing but the attach point joins it with; and a leaf asks another.
func TestAnybodyAsksALeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, till := leafFleet(t, 36, true)
		defer f.end()
		f.net.NAT("10.0.0.8:6374", true)
		f.setUp = func(c *Config) { c.Leaf = true }
		other := f.join("other", 8, map[string]string{"kind": "shop"})
		f.setUp = nil
		active, standby := f.points(till)
		far := f.third(till, active, standby)
		if far == other {
			far = f.third(till, active, other)
		}
		f.net.Cut(till.addr, far.addr)
		for _, m := range []*simNode{far, other} {
			f.until("its takings are there", time.Minute, func() (bool, string) { return m.read("in/till.txt") != "", f.report() })
			d := door{m.agent}
			promises, err := d.Promises(t.Context(), "", "till", false)
			if err != nil || len(promises) != 3 {
				t.Errorf("%s asks the leaf for its promises: %v, %d of 3", m.agent.Name(), err, len(promises))
			}
			chain, err := d.Why(t.Context(), "takings/till")
			if err != nil || !slices.ContainsFunc(chain, func(s control.StoryItem) bool { return s.Node == "till" && s.Subject == "tills.file.takings" }) {
				t.Errorf("%s asks why: %v, %+v; want the leaf's file in it", m.agent.Name(), err, chain)
			}
		}
		f.halt(till, true)
		f.until("it is seen asleep", time.Minute, func() (bool, string) { return f.allSee("till", "asleep") })
		if _, err := (door{far.agent}).Promises(t.Context(), "", "till", false); err == nil || !strings.Contains(err.Error(), "it is asleep") {
			t.Errorf("a leaf that sleeps is asked: %v", err)
		}
	})
}

// file is a new file with that text.
func (f *fleet) file(text string) string {
	path := filepath.Join(f.t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func TestTheStandbyTakesOver(t *testing.T) {
	for _, how := range []string{"killed", "leaves", "cut off"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, till := leafFleet(t, 33, true)
				defer f.end()
				active, standby := f.points(till)
				time.Sleep(5 * time.Second)
				switch how {
				case "killed":
					f.net.Crash(active.addr)
					f.halt(active, true)
				case "leaves":
					f.halt(active, false)
				case "cut off": // no end of a stream tells of it: the others do
					f.split(active, true)
				}
				took := f.until("the standby has it", time.Minute, func() (bool, string) {
					return standby.agent.mesh.AttachedHere(till.agent.mesh.Self()), "not yet"
				})
				t.Logf("attach point %s: standby took over in %v", how, took)
				if how != "cut off" && took >= 5*time.Second {
					t.Errorf("it took %v, want less than 5 s", took)
				}
				f.until("all see it there", time.Minute, func() (bool, string) {
					for name, m := range f.nodes {
						if n := m.sees("till"); m != till && m != active && (n.Status != "alive" || n.At != standby.agent.mesh.Self()) {
							return false, fmt.Sprintf("%s sees %s at %s", name, n.Status, n.At.Short())
						}
					}
					return true, ""
				})
				text := "after the attach point was " + how
				if _, err := till.agent.supply.offer(t.Context(), "note/till", "", 3, addPath(f.file(text)), Cause{}); err != nil {
					t.Fatal(err)
				}
				far := f.third(till, active, standby)
				f.until("its artifacts go on", time.Minute, func() (bool, string) { return far.read("notes/till.txt") == text, f.report() })
			})
		})
	}
}

// A leaf that can be reached is a leaf no more, with no restart; what it publishes comes as before.
func TestALeafThatCanBeReachedEntersTheRing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, till := leafFleet(t, 34, false)
		defer f.end()
		f.until("all see it", time.Minute, func() (bool, string) { return f.allSee("till", "alive") })
		f.net.NAT(till.addr, false)
		begin := time.Now()
		for till.agent.mesh.Standing() != mesh.InRing && time.Since(begin) < 20*time.Minute {
			time.Sleep(time.Second)
		}
		f.until("it is in the ring", time.Minute, f.whole)
		t.Logf("in the ring %v after it could be reached", time.Since(begin))
		f.until("nobody takes it for a leaf", time.Minute, func() (bool, string) {
			for name, m := range f.nodes {
				if m.sees("till").Leaf {
					return false, name
				}
			}
			return true, ""
		})
	})
}

// Who was on the way to the ring and became a leaf has nothing left that makes it look without a pause.
func TestANodeThatBecameALeafRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, till := leafFleet(t, 36, false)
		defer f.end()
		var asked atomic.Int64
		f.halt(till, false)
		f.setUp = func(c *Config) { c.Wall = func() time.Time { asked.Add(1); return time.Now() } }
		f.start(till)
		f.until("all see it", 2*time.Minute, func() (bool, string) { return f.allSee("till", "alive") })
		time.Sleep(30 * time.Second)
		before := asked.Load()
		time.Sleep(time.Minute)
		if n := asked.Load() - before; n > 20*60 {
			t.Errorf("it asked for the time %d times in an idle minute, at most 20 a second are expected", n)
		} else {
			t.Logf("it asked for the time %d times in an idle minute", n)
		}
	})
}

func TestAnIdleLeafCostsLittle(t *testing.T) {
	t.Run("told to be one", func(t *testing.T) { idleLeaf(t, true) })
	t.Run("that asks to be dialled back", func(t *testing.T) { idleLeaf(t, false) })
}

func idleLeaf(t *testing.T, byFlag bool) {
	synctest.Test(t, func(t *testing.T) {
		f, till := leafFleet(t, 35, byFlag)
		defer f.end()
		f.points(till)
		f.until("all see it", time.Minute, func() (bool, string) { return f.allSee("till", "alive") })
		look := 20 * time.Minute // five pings; all that is rarer is a comparison of 100 bytes an hour
		if os.Getenv("MESHD_TEST_ALL") != "" {
			look = 3 * time.Hour
		}
		time.Sleep(2 * time.Minute)
		before := carried(f, till)
		time.Sleep(look)
		idle := (carried(f, till) - before) * int64(time.Hour/time.Minute) / int64(look/time.Minute)
		t.Logf("an idle leaf that stays attached: %d bytes an hour, of streams as they are on the wire, over %v", idle, look)
		if idle > 15_000 {
			t.Errorf("%d bytes an hour, want at most 15,000", idle)
		}
		if n := f.parent.sees("till"); n.Status != "alive" {
			t.Errorf("it is %s after an idle while", n.Status)
		}
	})
}

// carried is how many bytes a machine has sent and received.
func carried(f *fleet, m *simNode) int64 {
	sent, received := f.net.Passed(m.addr)
	return sent + received
}

// One server and one phone, everybody else off: a member that begins alone takes the leaf in, though nobody is there who
// could dial it back.
func TestAMemberThatBeginsAloneTakesALeafIn(t *testing.T) {
	for _, byFlag := range []bool{true, false} {
		t.Run(fmt.Sprint("by flag ", byFlag), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, till := leafFleet(t, 47, byFlag)
				defer f.end()
				f.until("the till is attached", time.Minute, func() (bool, string) { return f.allSee("till", "alive") })
				f.waitScore(till)
				for _, name := range []string{"till", "shop_1", "shop_2", "host"} {
					f.halt(f.nodes[name], false)
				}
				host := f.nodes["host"]
				f.start(host)
				time.Sleep(time.Minute)
				f.setUp = func(c *Config) { c.Leaf = byFlag }
				f.start(till)
				f.setUp = nil
				took := f.until("the till is attached to who is there", 20*time.Second, func() (bool, string) {
					is, at := host.sees("till"), till.sees("host")
					return is.Status == "alive" && is.Leaf && at.Alive, fmt.Sprint(is.Status, ", ", at.Status)
				})
				t.Logf("attached after %v", took)
				if _, err := f.publishFile(till, "note/till", "1.0.0", "from the till"); err != nil {
					t.Fatal(err)
				}
				f.until("its news are in place", 20*time.Second, func() (bool, string) {
					return host.read("notes/till.txt") == "from the till", host.read("notes/till.txt")
				})
			})
		})
	}
}
