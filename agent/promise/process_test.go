//go:build linux

package promise

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/policies"
)

// ends stops what k keeps when the test is over.
func ends(t *testing.T, k Keeper) Keeper {
	t.Helper()
	t.Cleanup(func() {
		if err := k.End(context.Background(), false); err != nil {
			t.Error(err)
		}
	})
	return k
}

func sleeper(s Site) policies.Process {
	return policies.Process{Run: []string{"sleep", "1000"}, StopGrace: 10 * time.Second}
}

func pidOf(t *testing.T, k Keeper) int {
	t.Helper()
	p, ok := k.(*processKeeper)
	if g, isGuest := k.(*guestKeeper); isGuest {
		p, ok = g.process, true
	}
	if !ok || p.child == nil {
		t.Fatal("no process")
	}
	return p.child.PID()
}

func TestProcessKilledIsBack(t *testing.T) {
	s := newSite(t, realHost(t))
	k := ends(t, keeper(t, s, sleeper(s)))
	keep(t, k)
	f := check(t, k)
	first := pidOf(t, k)
	if err := k.(*processKeeper).child.Signal("KILL"); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	wait(t, "Wakes", f.Wakes)
	f = check(t, k)
	if f.OK || !strings.Contains(f.Reason, "killed") || f.Again != 0 {
		t.Errorf("found %+v", f)
	}
	if !keep(t, k) || pidOf(t, k) == first {
		t.Error("not started anew")
	}
	t.Logf("kill -9 to a new process: %s", time.Since(killed))
}

func TestProcessOutlivesItsHostAndIsAdopted(t *testing.T) {
	for _, how := range []string{"by pid", "by mark, the pid was never written", "by mark, memory was lost"} {
		t.Run(how, func(t *testing.T) {
			first, err := NewReal()
			if err != nil {
				t.Fatal(err)
			}
			s := newSite(t, first)
			mem := s.Memory.(*shelf)
			before := keeper(t, s, sleeper(s))
			keep(t, before)
			pid := pidOf(t, before)
			if err := before.End(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			p := before.(*processKeeper)
			switch how {
			case "by mark, the pid was never written":
				err = p.writeRecord(record{Hash: p.hash()})
			case "by mark, memory was lost":
				err = mem.Put(p.memoryKey(), nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			s.Host = realHost(t)
			after := ends(t, keeper(t, s, sleeper(s)))
			f := check(t, after)
			if !f.OK || pidOf(t, after) != pid {
				t.Fatalf("found %+v", f)
			}
			if err := after.(*processKeeper).child.Signal("KILL"); err != nil {
				t.Fatal(err)
			}
			wait(t, "the end of an adopted process", f.Wakes)
			if check(t, after).OK {
				t.Error("kept though it was killed")
			}
		})
	}
}

// A crash after the spawn and before the pid was written doubles nothing.
func TestProcessIsNotDoubledByACrashInTheMiddle(t *testing.T) {
	s := newSite(t, realHost(t))
	k := keeper(t, s, sleeper(s)).(*processKeeper)
	if err := k.adopt(); err != nil {
		t.Fatal(err)
	}
	mem := s.Memory.(*shelf)
	pids := 0
	s.Spawned = func(int) { pids++; mem.fail = errors.New("disk is full") }
	k.site = s
	if _, err := k.Repair(t.Context()); err == nil {
		t.Error("no error though the pid was not written")
	}
	mem.fail = nil
	after := ends(t, keeper(t, s, sleeper(s)))
	if f := check(t, after); !f.OK || pidOf(t, after) != k.child.PID() || pids != 1 {
		t.Errorf("found %+v, %d were spawned", f, pids)
	}
}

func TestProcessRestartsOnlyWhenWhatRunsChanged(t *testing.T) {
	s := newSite(t, realHost(t))
	spec := sleeper(s)
	k := keeper(t, s, spec)
	keep(t, k)
	pid := pidOf(t, k)
	spec.StopGrace = 5 * time.Second
	spec.BackoffMax = time.Hour
	k.(Yielder).Yield()
	k = keeper(t, s, spec)
	if keep(t, k) || pidOf(t, k) != pid {
		t.Error("a change of how it is watched restarted it")
	}
	spec.Env = map[string]string{"A": "b"}
	k.(Yielder).Yield()
	k = ends(t, keeper(t, s, spec))
	if !keep(t, k) || pidOf(t, k) == pid {
		t.Error("a change of its environment did not restart it")
	}
	if _, err := s.Host.Adopt(pid, 0); !errors.Is(err, ErrNotFound) {
		t.Error("the old one still runs")
	}
	pid = pidOf(t, k)
	if err := k.(Restarter).Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	k.(Yielder).Yield()
	k = ends(t, keeper(t, s, spec)) // the wish for a restart outlives a crash
	if !keep(t, k) || pidOf(t, k) == pid {
		t.Error("Restart did not restart it")
	}
}

func TestProcessStops(t *testing.T) {
	s := newSite(t, realHost(t))
	ready := filepath.Join(s.Work, "ready")
	told := make(chan string, 10)
	stop, err := s.Host.Watch(s.Work, func(name string) { told <- name })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	spec := policies.Process{
		Run:       []string{"sh", "-c", "trap '' TERM; sleep 1000 & echo >" + ready + "; wait; wait"},
		StopGrace: 50 * time.Millisecond,
	}
	k := ends(t, keeper(t, s, spec))
	keep(t, k)
	wait(t, "the trap", told)
	spec.State = "stopped"
	k.(Yielder).Yield()
	k = keeper(t, s, spec)
	if !keep(t, k) {
		t.Error("it ran, and nothing was to do")
	}
	if _, _, err := s.Host.Find(markOf(s.Data, "part.type.name")); !errors.Is(err, ErrNotFound) {
		t.Errorf("after the stop Find says %v", err)
	}
	if keep(t, keeper(t, s, spec)) {
		t.Error("stopped twice")
	}
}

func TestProcessEndsWithItsPromise(t *testing.T) {
	s := newSite(t, realHost(t))
	spec := sleeper(s)
	k := keeper(t, s, spec)
	keep(t, k)
	done := k.(*processKeeper).child.Done()
	if err := k.End(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
		t.Fatal("it ended with the agent")
	default:
	}
	if err := k.End(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end", done)
	spec.StopWithAgent = true
	k = keeper(t, s, spec)
	keep(t, k)
	done = k.(*processKeeper).child.Done()
	if err := k.End(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end with the agent", done)
}

func TestProcessThatCrashesAtOnceBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sim := NewSim(map[string]Program{"app": nil})
		s := Site{Host: sim, Memory: newShelf(), Work: "/work", Data: t.TempDir(), Wall: time.Now}
		k := keeper(t, s, policies.Process{Run: []string{"app"}, BackoffMin: time.Second, BackoffMax: 8 * time.Second})
		kill := func() {
			for pid := range sim.Running() {
				sim.Kill(pid)
			}
		}
		keep(t, k)
		var waits []time.Duration
		for range 7 {
			kill()
			f := check(t, k)
			if f.OK {
				t.Fatal("kept though it was killed")
			}
			waits = append(waits, f.Again)
			if f.Again > 0 {
				f, err := k.Repair(t.Context())
				if err == nil || f.Again == 0 {
					t.Fatalf("Repair before its time: %+v, %v", f, err)
				}
				time.Sleep(f.Again)
			}
			if !keep(t, k) {
				t.Fatal("not started")
			}
		}
		want := []time.Duration{0, 1, 2, 4, 8, 8, 8}
		for i, w := range want {
			if waits[i] != w*time.Second {
				t.Fatalf("waits %v, want %v seconds", waits, want)
			}
		}
		time.Sleep(steadyAfter)
		kill()
		if f := check(t, k); f.Again != 0 {
			t.Errorf("after a minute up: waits %s", f.Again)
		}
	})
}

// The first restart is at once also where the look that started a process finds it ended already.
func TestProcessThatEndsBeforeItIsLookedAtStartsAgainAtOnce(t *testing.T) {
	sim := NewSim(map[string]Program{"app": nil})
	s := Site{Host: sim, Memory: newShelf(), Work: "/work", Data: t.TempDir(), Wall: time.Now}
	k := keeper(t, s, policies.Process{Run: []string{"app"}})
	for _, want := range []time.Duration{soon, defaultBackoffMin} {
		if _, err := k.Repair(t.Context()); err != nil && want == soon {
			t.Fatal(err)
		}
		for pid := range sim.Running() {
			sim.Kill(pid)
		}
		if f := check(t, k); f.OK || f.Again > want || f.Again < want/2 {
			t.Errorf("found %+v, want another look in %v", f, want)
		}
		if f := check(t, k); want == soon && f.Again != 0 {
			t.Errorf("found %+v: nothing new, so that nobody need look", f)
		}
	}
}

func TestProcessThatCannotStart(t *testing.T) {
	s := newSite(t, realHost(t))
	k := keeper(t, s, policies.Process{Run: []string{"no-such-program"}})
	for range 3 {
		f, err := k.Repair(t.Context())
		if err == nil || !strings.Contains(err.Error(), "no-such-program") || f.Again <= 0 {
			t.Errorf("%+v, %v", f, err)
		}
	}
}

func checked(p policies.Process, c policies.Check) policies.Process {
	p.Check = &c
	return p
}

func TestProcessCheckByHTTP(t *testing.T) {
	var well atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	s := newSite(t, realHost(t))
	spec := sleeper(s)
	spec = checked(spec, policies.Check{HTTP: server.URL, Every: time.Nanosecond, Timeout: patience, Passes: 2, Fails: 2})
	k := ends(t, keeper(t, s, spec))
	if _, err := k.Repair(t.Context()); err != nil {
		t.Fatal(err)
	}
	well.Store(true)
	if _, err := k.Check(t.Context()); !waiting(err) {
		t.Errorf("after one pass of two: %v", err)
	}
	if f := check(t, k); !f.OK || f.Again == 0 {
		t.Errorf("after two passes: %+v", f)
	}
	pid := pidOf(t, k)
	well.Store(false)
	if f := check(t, k); !f.OK || !strings.Contains(f.Reason, "503") {
		t.Errorf("after one failure of two: %+v", f)
	}
	if f := check(t, k); f.OK || !strings.Contains(f.Reason, "503") {
		t.Errorf("after two failures: %+v", f)
	}
	if _, err := k.Repair(t.Context()); err != nil || pidOf(t, k) == pid {
		t.Errorf("not restarted: %v", err)
	}
}

func TestProbe(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	closed.Close()
	s := newSite(t, realHost(t))
	tests := []struct {
		name  string
		check policies.Check
		ok    bool
	}{
		{"tcp", policies.Check{TCP: listener.Addr().String()}, true},
		{"tcp, nobody there", policies.Check{TCP: closed.Addr().String()}, false},
		{"run", policies.Check{Run: []string{"true"}}, true},
		{"run fails", policies.Check{Run: []string{"false"}}, false},
		{"run takes too long", policies.Check{Run: []string{"sleep", "1000"}, Timeout: 10 * time.Millisecond}, false},
		{"http that never answers", policies.Check{HTTP: "http://" + listener.Addr().String(), Timeout: 10 * time.Millisecond}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := newProbe(checked(policies.Process{}, tt.check), s)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.once(t.Context(), s.Host); (err == nil) != tt.ok {
				t.Errorf("error %v", err)
			}
		})
	}
	for _, bad := range []policies.Check{{}, {TCP: "x:1", HTTP: "http://x"}, {HTTP: "ftp://x"}, {TCP: "nohost"}} {
		if _, err := newProbe(checked(policies.Process{}, bad), s); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
}

func TestProcessLogIsTrimmed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	if err := os.WriteFile(path, make([]byte, maxLogBytes+10), 0o600); err != nil {
		t.Fatal(err)
	}
	trimLog(path)
	old, err := os.Stat(path + ".1")
	if err != nil || old.Size() != maxLogBytes || read(t, path) != "" {
		t.Errorf("%v, %d bytes left", err, len(read(t, path)))
	}
}
