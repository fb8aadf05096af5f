package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

const oneFile = `part "p" {
  file "a" {
    path    = "a.txt"
    content = "CONTENT"
  }
}`

func TestMetricsAreCleanAndBounded(t *testing.T) {
	solo(t, oneFile, func(f *fleet, m *simNode) {
		f.waitGood(m, "p.file.a")
		metrics := m.agent.Metrics()
		metrics.gossip.IncrCounter([]string{"serf", "member", "join"}, 2)
		metrics.gossip.IncrCounter([]string{"serf", "events", "a name that a peer made up"}, 1)
		problems, err := testutil.GatherAndLint(metrics.registry)
		if err != nil || len(problems) > 0 {
			t.Fatalf("lint: %v %v", problems, err)
		}
		families, err := metrics.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, family := range families {
			for _, one := range family.Metric {
				name := family.GetName()
				for _, l := range one.Label {
					name += "," + l.GetValue()
				}
				got[name] = one.GetGauge().GetValue() + one.GetCounter().GetValue()
			}
		}
		for name, want := range map[string]float64{
			"meshd_members,alive": 1, "meshd_gossip_member_joins_total": 2, "meshd_score_in_force": 1,
			"meshd_artifacts_published_total": 1, "meshd_repairs_total,file": 1, "meshd_promises,failed": 0,
		} {
			if v, told := got[name]; !told || v != want {
				t.Errorf("%s = %v (told: %v), want %v", name, v, told, want)
			}
		}
		if n := got["meshd_promises,kept"] + got["meshd_promises,repaired"]; n != 1 {
			t.Errorf("%v promises are kept, want 1", n)
		}
		if got["meshd_catalog_records"] < 2 || got["meshd_journal_records"] < 2 || got["meshd_store_bytes,state"] == 0 || got["go_goroutines"] == 0 {
			t.Errorf("not all is told: %v", got)
		}
		for name := range got {
			if strings.Contains(name, "made up") {
				t.Errorf("a peer's word became a metric: %s", name)
			}
		}
	})
}

func TestAFaultyLocalScoreIsRefusedAndTheOldOnePlaysOn(t *testing.T) {
	solo(t, oneFile, func(f *fleet, m *simNode) {
		dir := t.TempDir()
		write := func(text string) {
			if err := os.WriteFile(filepath.Join(dir, "score.hcl"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		first := strings.Replace(oneFile, "CONTENT", "first", 1)
		write(soloScore("1.0.0", first))
		if err := m.agent.ReloadPolicy(f.t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		f.until("the local score plays", time.Minute, func() (bool, string) { return m.read("a.txt") == "first", m.read("a.txt") })
		write(soloScore("1.1.0", strings.Replace(first, "content", "contend", 1)))
		if err := m.agent.ReloadPolicy(f.t.Context(), dir); err == nil || !strings.Contains(err.Error(), "contend") {
			t.Errorf("a faulty score: %v", err)
		}
		if v := m.agent.view.Load(); v.program.Score().Version != "1.0.0" {
			t.Errorf("score %s is in force after a faulty one", v.program.Score().Version)
		}
		write(soloScore("1.2.0", strings.Replace(oneFile, "CONTENT", "second", 1)))
		if err := m.agent.ReloadPolicy(f.t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		f.until("the mended score plays", time.Minute, func() (bool, string) { return m.read("a.txt") == "second", m.read("a.txt") })
		if err := m.agent.ReloadPolicy(f.t.Context(), ""); !errors.Is(err, ErrRestart) {
			t.Errorf("back to the mesh's score: %v", err)
		}
	})
}

func TestTheManagerHearsOfEachTurnAndOfTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 7)
		defer f.end()
		m := f.found("host", nil)
		f.halt(m, false)
		told := make(chan string, 1000)
		f.setUp = func(c *Config) { c.Notify, c.Watchdog = func(s string) { told <- s }, 3*time.Second }
		f.start(m)
		f.publishScore(soloScore("1.0.0", oneFile))
		f.waitGood(m, "p.file.a")
		time.Sleep(time.Minute)
		f.halt(m, false)
		close(told)
		var all []string
		for s := range told {
			all = append(all, s)
		}
		if all[0] != "READY=1" || !strings.HasPrefix(all[len(all)-1], "STOPPING=1") {
			t.Errorf("begins with %q, ends with %q", all[0], all[len(all)-1])
		}
		if n := len(all); n < 55 || n > 70 {
			t.Errorf("told %d times in a minute, want about one a second", n)
		}
		if !slices.Contains(all, "WATCHDOG=1\nSTATUS=1 members, 1 kept, 0 failed") {
			t.Errorf("no line says how the node stands: %q", all[len(all)-2])
		}
	})
}

// A node that runs once gets the score, does its part, tells the others, and ends by itself.
func TestOnceConvergesTellsItsPeersAndLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 11)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", `part "p" {
  file "a" {
    path    = "a.txt"
    content = node.name
  }
  artifact "a" {
    name  = "card/${node.name}"
    from  = "a.txt"
    needs = [file.a]
  }
  process "stays" { run = ["sleeper"] }
}`))
		f.setUp = func(c *Config) { c.Once = true }
		phone := f.join("phone", 2, nil)
		select {
		case err := <-phone.done:
			if err != nil {
				t.Errorf("it ended with %v", err)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("it did not end\n%s", f.report())
		}
		phone.stop()
		phone.stop = nil
		if len(host.agent.supply.named("card/phone")) != 1 {
			t.Error("the peer has not heard of what was made")
		}
		if b, err := os.ReadFile(filepath.Join(phone.dir, "work", "a.txt")); err != nil || string(b) != "phone" {
			t.Errorf("a.txt holds %q, %v", b, err)
		}
	})
}

func TestOnceSaysWhatFailedAndThatNobodyAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 12)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", `part "p" {
  command "broken" { run = ["nosuch"] }
}`))
		phone := f.join("phone", 2, nil)
		f.waitOutcome(phone, "p.command.broken", "failed")
		f.halt(phone, false)
		f.halt(host, true)
		f.setUp = func(c *Config) { c.Once = true }
		f.start(phone)
		err := <-phone.done
		phone.stop()
		phone.stop = nil
		if !errors.Is(err, ErrNotKept) || !errors.Is(err, ErrNoPeer) || !strings.Contains(err.Error(), "p.command.broken") {
			t.Errorf("it ended with %v", err)
		}
	})
}

func TestAHealthyNodeIsReadyAndAStoppedOneIsNot(t *testing.T) {
	solo(t, oneFile, func(f *fleet, m *simNode) {
		f.waitGood(m, "p.file.a")
		if err := m.agent.Healthy(); err != nil {
			t.Error(err)
		}
		a := m.agent
		f.halt(m, false)
		if err := a.Healthy(); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after its end: %v", err)
		}
	})
}
