package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/agent/control"
	"meshd/mesh/catalog"
	"meshd/mesh/id"
)

// publishFile offers one file by hand.
func (f *fleet) publishFile(m *simNode, name, version, content string) (control.Artifact, error) {
	path := filepath.Join(f.t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		f.t.Fatal(err)
	}
	return door{m.agent}.Publish(f.t.Context(), name, version, packed(f.t, path), nil)
}

const wantApp = `role "late" { when = tag.late == "yes" }
part "p" {
  role = "late"
  want "app" {
    name  = "app"
    place = "app.txt"
  }
}`

// The publisher is gone for ever: a latecomer still gets what it published, from the copies, also after the time when
// of nodes that left nothing no more than a grave is kept.
func TestALatecomerGetsWhatADeadPublisherLeft(t *testing.T) {
	for _, buried := range []bool{false, true} {
		t.Run(fmt.Sprintf("buried=%v", buried), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 3)
				defer f.end()
				var ahead atomic.Int64 // how far all clocks are
				f.setUp = func(c *Config) { c.Wall = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) } }
				f.found("host", nil)
				f.publishScore(soloScore("1.0.0", wantApp+`
access "open" {
  allow "publish" {
    names = ["app"]
    roles = ["maker"]
  }
  allow "pull" {
    names = ["**"]
    roles = ["maker", "late", "keeper"]
  }
}
role "maker" { when = tag.maker == "yes" }
role "keeper" { when = tag.keeper == "yes" }`))
				maker := f.join("maker", 2, map[string]string{"maker": "yes"})
				f.join("keeper_1", 3, map[string]string{"keeper": "yes"})
				f.join("keeper_2", 4, map[string]string{"keeper": "yes"})
				f.until("the maker plays the score", time.Minute, func() (bool, string) {
					v := maker.agent.view.Load()
					return v != nil && v.program != nil && len(maker.agent.mesh.Alive()) == 4, "not yet"
				})
				item, err := f.publishFile(maker, "app", "1.0.0", "the app")
				if err != nil {
					t.Fatal(err)
				}
				if len(item.Holders) != 3 {
					t.Errorf("publish reports the holders %v, want the maker and two copies", item.Holders)
				}
				if buried {
					f.join("idle", 6, nil) // leaves nothing, and so is buried
					f.until("all know of it", time.Minute, f.whole)
					f.halt(f.nodes["idle"], true)
					delete(f.nodes, "idle")
				}
				f.halt(maker, true)
				delete(f.nodes, "maker")
				if buried {
					f.until("both are seen to be gone", time.Minute, func() (bool, string) {
						for _, m := range f.nodes {
							if n := len(m.agent.mesh.Alive()); n != len(f.nodes) {
								return false, fmt.Sprintf("%s sees %d alive", m.name, n)
							}
						}
						return true, ""
					})
					ahead.Store(int64(catalog.BuryAfter + 24*time.Hour))
					for _, m := range f.nodes { // as each does every hour
						wall, alive := time.Now().Add(time.Duration(ahead.Load())), m.agent.mesh.Alive()
						logs, err := m.agent.mesh.Catalog().Bury(wall, func(n id.Node) (seen time.Time) {
							if alive[n] {
								seen = wall
							}
							return seen
						})
						if logs != 1 || err != nil {
							t.Errorf("%s buried %d logs, want the idle node's one: %v", m.name, logs, err)
						}
					}
				}
				late := f.join("late", 5, map[string]string{"late": "yes"})
				took := f.until("the latecomer has it", 2*time.Minute, func() (bool, string) { return late.read("app.txt") == "the app", f.report() })
				t.Logf("in place %v after the join", took)
			})
		})
	}
}

func TestAccessDecidesWhoPublishesAndWhoPulls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 4)
		defer f.end()
		f.found("host", nil)
		f.publishScore(soloScore("1.0.0", `role "maker" { when = tag.maker == "yes" }
role "user" { when = tag.user == "yes" }
part "p" {
  role = "user"
  want "app" {
    name  = "app"
    from  = "maker"
    place = "app.txt"
  }
}
access "x" {
  allow "publish" {
    names = ["app"]
    roles = ["maker"]
  }
  allow "pull" {
    names = ["app"]
    roles = ["user"]
  }
}`))
		user := f.join("user", 2, map[string]string{"user": "yes"})
		thief := f.join("thief", 3, nil)
		maker := f.join("maker", 4, map[string]string{"maker": "yes"})
		f.until("all play the score", time.Minute, func() (bool, string) {
			for _, m := range f.nodes {
				if v := m.agent.view.Load(); v == nil || v.program == nil {
					return false, m.name
				}
			}
			return true, ""
		})
		// Without the right, an honest door refuses; a dishonest node's advert is heard and not taken.
		if _, err := f.publishFile(thief, "app", "", "evil"); err == nil {
			t.Error("a node without the right may publish by hand")
		}
		dir := filepath.Join(t.TempDir(), "evil")
		if err := os.WriteFile(dir, []byte("evil"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := thief.agent.supply.offer(t.Context(), "app", "", 3, addPath(dir), Cause{}); err != nil {
			t.Fatal(err)
		}
		f.until("the advert is heard", time.Minute, func() (bool, string) { return len(user.agent.supply.named("app")) == 1, "not heard" })
		time.Sleep(2 * time.Minute)
		if got := user.read("app.txt"); got != "" {
			t.Errorf("what a node without the right published was placed: %q", got)
		}
		if _, err := f.publishFile(maker, "app", "", "good"); err != nil {
			t.Fatal(err)
		}
		f.until("the right one is placed", time.Minute, func() (bool, string) { return user.read("app.txt") == "good", user.read("app.txt") })
		// Who may not pull it gets nothing, by hand either.
		var out bytes.Buffer
		err := door{thief.agent}.Get(t.Context(), "app", &out, nil)
		if err == nil || out.Len() > 0 {
			t.Errorf("the thief got %d bytes, error %v", out.Len(), err)
		}
	})
}

func TestAWithdrawnArtifactLeavesAndComesBackNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 5)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", wantApp))
		late := f.join("late", 2, map[string]string{"late": "yes"})
		for _, v := range []string{"one", "two"} {
			if _, err := f.publishFile(host, "app", "", v); err != nil {
				t.Fatal(err)
			}
		}
		f.until("it is placed", time.Minute, func() (bool, string) { return late.read("app.txt") == "two", late.read("app.txt") })
		if err := (door{host.agent}).Withdraw(t.Context(), "app"); err != nil {
			t.Fatal(err)
		}
		f.until("it waits for a new one", time.Minute, func() (bool, string) {
			got, why := f.outcome(late, "p.want.app")
			return got == "waiting", got + why
		})
		item, err := f.publishFile(host, "app", "", "three")
		if err != nil {
			t.Fatal(err)
		}
		if item.Counter != 3 {
			t.Errorf("after versions 1 and 2 were withdrawn the next one is %d", item.Counter)
		}
		f.until("it is placed again", time.Minute, func() (bool, string) { return late.read("app.txt") == "three", late.read("app.txt") })
	})
}

// A store that was lost is refilled from peers, and the node goes on in an epoch of its own: no version
// is given out twice.
func TestANodeThatLostItsStoreGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 6)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", wantApp))
		late := f.join("late", 2, map[string]string{"late": "yes"})
		f.join("other", 3, nil)
		if _, err := f.publishFile(host, "app", "", "one"); err != nil {
			t.Fatal(err)
		}
		f.until("it is placed", time.Minute, func() (bool, string) { return late.read("app.txt") == "one", late.read("app.txt") })
		f.halt(host, true)
		if err := os.Truncate(filepath.Join(host.dir, "state.db"), 5000); err != nil {
			t.Fatal(err)
		}
		f.start(host)
		if aside := host.agent.store.SetAside(); !strings.Contains(aside, "broken") {
			t.Fatalf("the cut store was not set aside: %q", aside)
		}
		f.until("it plays the score again", time.Minute, func() (bool, string) {
			v := host.agent.view.Load()
			return v != nil && v.program != nil, "no score"
		})
		item, err := f.publishFile(host, "app", "", "two")
		if err != nil {
			t.Fatal(err)
		}
		if item.Counter != 2 {
			t.Errorf("after version 1 of its former life the next one is %d", item.Counter)
		}
		f.until("the new one is placed", time.Minute, func() (bool, string) { return late.read("app.txt") == "two", late.read("app.txt") })
	})
}

// A score that gives a guest the name of a machine expels nobody.
func TestAGuestTakesNobodysName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 13)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", wantApp))
		machine := f.join("container_1", 2, nil)
		f.until("the host knows it", time.Minute, func() (bool, string) { return len(host.agent.mesh.Alive()) == 2, "not yet" })
		_, err := host.agent.supply.Invite(t.Context(), "container_1", nil)
		if err == nil || !strings.Contains(err.Error(), "belongs to") {
			t.Errorf("a guest was given a machine's name: %v", err)
		}
		if err := host.agent.supply.Expel(t.Context(), "container_1"); err != nil {
			t.Errorf("a guest that was never born here can't be retired: %v", err)
		}
		for range 2 { // born, and born again after its key was lost
			if _, err := host.agent.supply.Invite(t.Context(), "child", nil); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Minute)
		if alive := host.agent.mesh.Alive(); !alive[machine.agent.mesh.Self()] {
			t.Error("the machine was expelled")
		}
	})
}
