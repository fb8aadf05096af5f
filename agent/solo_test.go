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

	"meshd/agent/promise"
	"meshd/policies"
)

const scoreHead = `score "test" {
  version  = "VERSION"
  language = 1
}
`

// soloScore completes the text of a score.
func soloScore(version, text string) string {
	return strings.Replace(scoreHead, "VERSION", version, 1) + text
}

// solo plays a score on one node and lets the test look.
func solo(t *testing.T, text string, play func(f *fleet, m *simNode)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 7)
		defer f.end()
		m := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", text))
		play(f, m)
	})
}

// outcome is how one promise of m stands.
func (f *fleet) outcome(m *simNode, address string) (outcome, reason string) {
	list, err := m.agent.ownPromises(f.t.Context(), policies.Address(address))
	if err != nil || len(list) != 1 {
		return "", ""
	}
	return list[0].Outcome, list[0].Reason
}

// waitOutcome waits until a promise stands like that.
func (f *fleet) waitOutcome(m *simNode, address, want string) (reason string) {
	f.t.Helper()
	f.until(address+" is "+want, time.Minute, func() (bool, string) {
		var got string
		got, reason = f.outcome(m, address)
		return got == want, got + ": " + reason
	})
	return reason
}

func (f *fleet) waitGood(m *simNode, address string) {
	f.t.Helper()
	f.until(address+" is kept", time.Minute, func() (bool, string) {
		got, reason := f.outcome(m, address)
		return got == "kept" || got == "repaired", got + ": " + reason
	})
}

func TestOnlyWhatNeedsAFailedPromiseWaits(t *testing.T) {
	solo(t, `part "p" {
  command "broken" { run = ["nosuch"] }
  file "after" {
    path    = "after.txt"
    content = "x"
    needs   = [command.broken]
  }
  file "free" {
    path    = "free.txt"
    content = "y"
  }
}`, func(f *fleet, m *simNode) {
		if why := f.waitOutcome(m, "p.command.broken", "failed"); !strings.Contains(why, `"nosuch"`) {
			t.Errorf("the reason does not name the program: %s", why)
		}
		f.waitGood(m, "p.file.free")
		if why := f.waitOutcome(m, "p.file.after", "waiting"); !strings.Contains(why, "p.command.broken") {
			t.Errorf("it waits for %q, not for what it needs", why)
		}
		if m.read("after.txt") != "" || m.read("free.txt") != "y" {
			t.Errorf("after.txt %q, free.txt %q", m.read("after.txt"), m.read("free.txt"))
		}
	})
}

func TestAFailingPromiseBacksOff(t *testing.T) {
	solo(t, `part "p" {
  command "broken" {
    run     = ["tar"]
    outputs = ["never.txt"]
  }
}`, func(f *fleet, m *simNode) {
		f.waitOutcome(m, "p.command.broken", "failed")
		before := m.host.Execs("tar")
		time.Sleep(10 * time.Minute)
		// 1, 2, 4 .. 256, 300, 300 s: about ten tries in ten minutes, not six hundred.
		if n := m.host.Execs("tar") - before; n < 5 || n > 12 {
			t.Errorf("%d tries in ten minutes", n)
		}
	})
}

const packScore = `part "p" {
  file "in" {
    path    = "results/a.txt"
    content = "CONTENT"
  }
  command "pack" {
    run     = ["tar"]
    inputs  = ["results/*"]
    outputs = ["package.tgz"]
    needs   = [file.in]
  }
}`

func TestACommandRunsByContentAcrossRestarts(t *testing.T) {
	solo(t, strings.Replace(packScore, "CONTENT", "one", 1), func(f *fleet, m *simNode) {
		f.waitGood(m, "p.command.pack")
		if n := m.host.Execs("tar"); n != 1 {
			t.Fatalf("the command ran %d times at first", n)
		}
		work := m.agent.cfg.WorkDir
		now := time.Now().Add(time.Hour)
		if err := os.Chtimes(filepath.Join(work, "results/a.txt"), now, now); err != nil {
			t.Fatal(err)
		}
		m.host.Touch(filepath.Join(work, "results"), "a.txt")
		time.Sleep(5 * time.Minute)
		f.halt(m, true)
		f.start(m)
		time.Sleep(5 * time.Minute)
		f.waitGood(m, "p.command.pack")
		if n := m.host.Execs("tar"); n != 1 {
			t.Errorf("a touched file, the clock and a restart made the command run %d times", n)
		}
		if err := os.Remove(filepath.Join(work, "package.tgz")); err != nil {
			t.Fatal(err)
		}
		m.host.Touch(work, "package.tgz")
		f.until("the output is back", time.Minute, func() (bool, string) { return m.host.Execs("tar") == 2, "not run" })
	})
}

func TestANewScoreDisturbsOnlyWhatItChanges(t *testing.T) {
	solo(t, strings.Replace(packScore, "CONTENT", "one", 1), func(f *fleet, m *simNode) {
		f.waitGood(m, "p.command.pack")
		f.publishScore(soloScore("1.1.0", strings.Replace(packScore, "CONTENT", "one", 1)+`
part "more" {
  file "new" {
    path    = "new.txt"
    content = "new"
  }
}`))
		f.waitGood(m, "more.file.new")
		time.Sleep(5 * time.Minute)
		if n := m.host.Execs("tar"); n != 1 {
			t.Errorf("a score that did not change the command ran it again, %d times in all", n)
		}
		// A part that ends leaves its files, unwatched.
		f.publishScore(soloScore("1.2.0", strings.Replace(packScore, "CONTENT", "two", 1)))
		f.until("the changed file is repacked", time.Minute, func() (bool, string) { return strings.Contains(m.read("package.tgz"), "two"), m.read("package.tgz") })
		if got, _ := f.outcome(m, "more.file.new"); got != "" || m.read("new.txt") != "new" {
			t.Errorf("the ended promise is %q and its file %q", got, m.read("new.txt"))
		}
	})
}

func TestAFaultyOrOlderScoreIsRefusedAndTheLastGoodOnePlaysOn(t *testing.T) {
	good := strings.Replace(packScore, "CONTENT", "good", 1)
	solo(t, good, func(f *fleet, m *simNode) {
		f.waitGood(m, "p.command.pack")
		err := f.tryScore(soloScore("0.9.0", good))
		if err == nil || !strings.Contains(err.Error(), "older") {
			t.Errorf("an older score: %v", err)
		}
		if err := f.tryScore(soloScore("1.0.0", strings.Replace(good, "good", "evil", 1))); err == nil {
			t.Error("an unlike score of the same version was taken")
		}
		if err := f.tryScore(soloScore("2.0.0", `part "p" { fil "x" {} }`)); err == nil || !strings.Contains(err.Error(), "score.hcl:") {
			t.Errorf("a faulty score: %v", err)
		}
		// One that this version can't read, but its publisher could: it comes over the mesh.
		if err := f.forceScore("3.0.0", []byte("nonsense {")); err != nil {
			t.Fatal(err)
		}
		f.until("it is refused", time.Minute, func() (bool, string) {
			s, err := door{m.agent}.Score(f.t.Context())
			return err == nil && strings.Contains(s.Problem, "3.0.0"), s.Problem
		})
		f.halt(m, false)
		f.start(m)
		f.waitGood(m, "p.command.pack")
		s, err := door{m.agent}.Score(f.t.Context())
		if err != nil || s.Version != "1.0.0" || s.State != stateInForce || !strings.Contains(s.Problem, "3.0.0") {
			t.Errorf("after a restart: version %s, %s, problem %q, %v", s.Version, s.State, s.Problem, err)
		}
	})
}

func TestALoopWithoutEndFailsItsPromiseAlone(t *testing.T) {
	solo(t, `locals {
  ten = "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
  n   = split("", "${local.ten}${local.ten}")
}
part "p" {
  file "endless" {
    path    = "endless.txt"
    content = join(",", flatten([for a in local.n : [for b in local.n : [for c in local.n : [for d in local.n : "x"]]]]))
  }
  file "free" {
    path    = "free.txt"
    content = "y"
  }
}`, func(f *fleet, m *simNode) {
		if why := f.waitOutcome(m, "p.file.endless", "failed"); !strings.Contains(why, "fuel") {
			t.Errorf("it fails with %q, not for want of fuel", why)
		}
		f.waitGood(m, "p.file.free")
	})
}

func TestAnUnknownFactIsWaitedForByName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 8)
		defer f.end()
		m := f.found("host", nil)
		f.halt(m, false)
		answer := make(chan string, 1)
		m.host = promise.NewSim(map[string]promise.Program{"probe": func(ctx context.Context, _ promise.Cmd) (int, []byte) {
			select {
			case s := <-answer:
				return 0, []byte(s)
			case <-ctx.Done():
				return 1, nil
			}
		}})
		f.start(m)
		f.publishScore(soloScore("1.0.0", `fact "rack" {
  command = ["probe"]
  timeout = "1h"
}
role "near" { when = fact.rack == "r1" }
part "p" {
  role = "near"
  file "x" {
    path    = "x.txt"
    content = fact.rack
  }
}
part "q" {
  file "y" {
    path    = "y.txt"
    content = "rack ${fact.rack}"
  }
}`))
		if why := f.waitOutcome(m, "q.file.y", "waiting"); !strings.Contains(why, "fact.rack") {
			t.Errorf("it waits for %q", why)
		}
		list, err := door{m.agent}.Roles(f.t.Context())
		if err != nil || len(list) != 1 || !list[0].Unknown {
			t.Errorf("roles: %+v, %v", list, err)
		}
		answer <- "r1\n"
		f.waitGood(m, "p.file.x")
		f.waitGood(m, "q.file.y")
		if m.read("x.txt") != "r1" || m.read("y.txt") != "rack r1" {
			t.Errorf("x %q, y %q", m.read("x.txt"), m.read("y.txt"))
		}
	})
}

func TestAProcessIsKeptAndStoppedWithItsPart(t *testing.T) {
	const text = `part "p" {
  process "web" { run = ["web", "--port", "80"] }
}`
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 9)
		defer f.end()
		m := f.found("host", nil)
		f.halt(m, false)
		m.host = promise.NewSim(map[string]promise.Program{"web": nil})
		f.start(m)
		f.publishScore(soloScore("1.0.0", text))
		running := func() []int {
			var pids []int
			for pid := range m.host.Running() {
				pids = append(pids, pid)
			}
			slices.Sort(pids)
			return pids
		}
		f.waitGood(m, "p.process.web")
		first := running()
		if len(first) != 1 {
			t.Fatalf("%d processes run", len(first))
		}
		m.host.Kill(first[0])
		took := f.until("it is back", 10*time.Second, func() (bool, string) {
			now := running()
			return len(now) == 1 && now[0] != first[0], "not back"
		})
		t.Logf("back after %v", took)
		second := running()
		f.halt(m, false)
		f.start(m)
		f.waitGood(m, "p.process.web")
		time.Sleep(5 * time.Minute)
		if now := running(); !slices.Equal(now, second) {
			t.Errorf("the restart of meshd left %v running, it was %v", now, second)
		}
		f.publishScore(soloScore("1.1.0", `part "q" {
  file "x" {
    path    = "x"
    content = "x"
  }
}`))
		f.until("it is stopped with its part", time.Minute, func() (bool, string) { return len(running()) == 0, "still running" })
	})
}

// tryScore publishes as an operator does.
func (f *fleet) tryScore(text string) error {
	dir := f.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "score.hcl"), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
	_, err := door{f.parent.agent}.PublishScore(f.t.Context(), packed(f.t, dir))
	return err
}

// forceScore publishes bytes as a score without the check that an honest door makes.
func (f *fleet) forceScore(version string, text []byte) error {
	dir := f.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "score.hcl"), text, 0o644); err != nil {
		return err
	}
	_, err := f.parent.agent.supply.offer(f.t.Context(), scoreName, version, scoreKeep, addPath(dir), Cause{Text: "test"})
	return errors.Join(err, f.parent.agent.loop.do(f.t.Context(), func() {}))
}
