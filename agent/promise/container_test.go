package promise

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshd/policies"
)

// dock is a site with a fake engine, on a node that others reach.
func dock(t *testing.T) (Site, *fakeMesh, *fakeEngine) {
	t.Helper()
	s, m := meshSite(t, NewSim(nil))
	e := newEngine()
	s.Node, s.Exe = "00112233", "/meshd"
	s.Addrs = func() []string { return []string{"10.0.0.9:6374"} }
	s.Containers = func(kind string) (Containers, error) {
		if kind != "docker" {
			return nil, fmt.Errorf("no %s here", kind)
		}
		return e, nil
	}
	return s, m, e
}

var boxed = policies.Guest{
	Kind: "docker", Name: "child", State: "running", Image: "meshd:latest", Network: "bridge",
	Tags: map[string]string{"kind": "child"}, Memory: 64 << 20, NanoCPUs: 1e9,
}

func TestContainerIsBornOnceAndDeletedWhole(t *testing.T) {
	s, m, e := dock(t)
	k := keeper(t, s, boxed)
	keep(t, k)
	c := e.only()
	if c.Labels[LabelNode] != s.Node || c.Labels[LabelGuest] != "child" || c.Name != "meshd-child" || c.files[joinPath] != "token-child\n" {
		t.Errorf("made %+v", c)
	}
	want := []string{"run", "--data-dir", "/var/lib/meshd", "--name", "child", "--listen", ":6374", "--join", "@/join"}
	if diff := cmp.Diff(want, c.spec.Args); diff != "" {
		t.Error(diff)
	}
	if keep(t, k) {
		t.Error("made twice")
	}
	k.(Yielder).Yield()
	k = keeper(t, s, boxed)
	if keep(t, k) || len(e.watchers) != 1 {
		t.Errorf("a second keeper made it anew, or left %d watches", len(e.watchers))
	}
	f := check(t, k)
	e.lose(c.ID)
	wait(t, "the loss", f.Wakes)
	if !keep(t, k) || e.only().ID == c.ID || len(m.invites) != 1 {
		t.Errorf("a lost container came back as %s with %d invites in all", e.only().ID, len(m.invites))
	}

	gone := boxed
	gone.State = "absent"
	k.(Yielder).Yield()
	k = keeper(t, s, gone)
	m.fail = errors.New("no revoker")
	if _, err := k.Repair(t.Context()); err == nil || len(e.volumes) != 1 {
		t.Errorf("error %v, %d volumes: the key went before the identity", err, len(e.volumes))
	}
	m.fail = nil
	keep(t, k)
	if len(e.containers)+len(e.volumes) != 0 || !slices.Contains(m.expel, "child") || len(s.Memory.(*shelf).m) != 0 {
		t.Errorf("left %v %v %v, expelled %v", e.containers, e.volumes, s.Memory.(*shelf).m, m.expel)
	}
	if keep(t, k) {
		t.Error("deleted twice")
	}
	if err := k.End(t.Context(), true); err != nil || len(e.watchers) != 0 {
		t.Errorf("End: %v, %d watches left", err, len(e.watchers))
	}
}

func TestContainerThatDriftedIsMadeAnew(t *testing.T) {
	for why, spoil := range map[string]func(*fakeEngine, *fakeContainer){
		"renamed to other":   func(_ *fakeEngine, c *fakeContainer) { c.Name = "other" },
		"memory is":          func(_ *fakeEngine, c *fakeContainer) { c.Memory = 0 },
		"processors are":     func(_ *fakeEngine, c *fakeContainer) { c.NanoCPUs = 5 },
		"networks are []":    func(_ *fakeEngine, c *fakeContainer) { c.Networks = nil },
		"networks are [a":    func(_ *fakeEngine, c *fakeContainer) { c.Networks = []string{"a", "bridge"} },
		"paused":             func(_ *fakeEngine, c *fakeContainer) { c.Paused = true },
		"told to restart it": func(_ *fakeEngine, c *fakeContainer) { c.Restarts = "always" },
		"promise changed":    func(_ *fakeEngine, c *fakeContainer) { c.Labels[labelSpec] = "?" },
		"another one now":    func(e *fakeEngine, _ *fakeContainer) { e.images["meshd:latest"] = "sha256:2" },
		"2 containers": func(e *fakeEngine, c *fakeContainer) {
			twin := *c
			twin.ID, twin.Name = "twin", "twin"
			e.containers["twin"] = &twin
		},
	} {
		t.Run(why, func(t *testing.T) {
			s, m, e := dock(t)
			k := keeper(t, s, boxed)
			keep(t, k)
			before := e.only()
			spoil(e, before)
			if f := check(t, k); f.OK || !strings.Contains(f.Reason, why) {
				t.Errorf("found %+v", f)
			}
			keep(t, k)
			if after := e.only(); after.ID == before.ID || after.Name != "meshd-child" || len(m.invites) != 1 {
				t.Errorf("now %+v, %d invites", after, len(m.invites))
			}
		})
	}
	t.Run("an image that is not there any more is no drift", func(t *testing.T) {
		s, _, e := dock(t)
		k := keeper(t, s, boxed)
		keep(t, k)
		delete(e.images, "meshd:latest")
		if keep(t, k) {
			t.Error("repaired")
		}
	})
}

func TestContainerOfAnotherMakerIsNeverTouched(t *testing.T) {
	s, _, e := dock(t)
	e.volumes["meshd-child"] = map[string]string{LabelNode: "another", LabelGuest: "child"}
	e.containers["theirs"] = &fakeContainer{Container: Container{ID: "theirs", Name: "meshd-child", Running: true, Labels: map[string]string{LabelNode: "another", LabelGuest: "child"}}}
	for _, state := range []string{"running", "stopped", "absent"} {
		g := boxed
		g.State = state
		k := keeper(t, s, g)
		if _, err := k.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "not made by this node") {
			t.Errorf("%s: Check says %v", state, err)
		}
		if _, err := k.Repair(t.Context()); err == nil {
			t.Errorf("%s: Repair says nothing", state)
		}
		if err := k.End(t.Context(), false); err == nil {
			t.Errorf("%s: End says nothing", state)
		}
	}
	delete(e.volumes, "meshd-child") // only the container's name is taken
	if _, err := keeper(t, s, boxed).Repair(t.Context()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Repair says %v", err)
	}
	if c := e.only(); c.ID != "theirs" || !c.Running || slices.ContainsFunc(e.log, func(l string) bool { return strings.Contains(l, "theirs") }) {
		t.Errorf("now %+v after %v", c, e.log)
	}
}

// After a write that failed, applied or not, the next repairs bring the one container and no other.
func TestContainerSurvivesEveryFault(t *testing.T) {
	for _, after := range []bool{false, true} {
		for _, op := range []string{"volume", "create", "copy", "start"} {
			t.Run(fmt.Sprintf("%s applied %v", op, after), func(t *testing.T) {
				s, _, e := dock(t)
				e.fault, e.after = op, after
				k := keeper(t, s, boxed)
				if _, err := k.Repair(t.Context()); !errors.Is(err, errEngine) {
					t.Fatalf("Repair says %v", err)
				}
				keep(t, keeper(t, s, boxed)) // as after a crash
				if c := e.only(); !c.Running || len(e.volumes) != 1 {
					t.Errorf("now %+v, %d volumes", c, len(e.volumes))
				}
			})
		}
		for _, op := range []string{"stop", "remove", "remove-volume"} {
			t.Run(fmt.Sprintf("%s applied %v", op, after), func(t *testing.T) {
				s, m, e := dock(t)
				keep(t, keeper(t, s, boxed))
				e.fault, e.after = op, after
				gone := boxed
				gone.State = "absent"
				if _, err := keeper(t, s, gone).Repair(t.Context()); !errors.Is(err, errEngine) {
					t.Fatalf("Repair says %v", err)
				}
				keep(t, keeper(t, s, gone))
				if len(e.containers)+len(e.volumes) != 0 || len(m.expel) == 0 {
					t.Errorf("left %v %v, expelled %v", e.containers, e.volumes, m.expel)
				}
			})
		}
	}
}

func TestContainerThatEndsAtOnceIsStartedEverMoreSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _, e := dock(t)
		e.dies = true
		k := keeper(t, s, boxed)
		starts := func() (n int) {
			for _, l := range e.log {
				if strings.HasPrefix(l, "start ") {
					n++
				}
			}
			return n
		}
		began := time.Now()
		for time.Since(began) < time.Minute {
			f, err := k.Repair(t.Context())
			if err == nil {
				f = check(t, k)
			} else if !strings.Contains(err.Error(), "exit status 78: the last words") {
				t.Fatal(err)
			}
			time.Sleep(max(f.Again, time.Millisecond))
		}
		if n := starts(); n < 5 || n > 9 {
			t.Errorf("%d starts in a minute", n)
		}
		if e.only().files[joinPath] == "" || e.made != 1 {
			t.Errorf("%d containers were made", e.made)
		}
	})
}

func TestContainerRestartsAndStops(t *testing.T) {
	s, _, e := dock(t)
	k := keeper(t, s, boxed)
	keep(t, k)
	id := e.only().ID
	if err := k.(Restarter).Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.log = nil
	if !keep(t, keeper(t, s, boxed)) || !slices.Equal(e.log, []string{"stop " + id, "start " + id}) {
		t.Errorf("a restart did %v", e.log)
	}
	if err := k.End(t.Context(), true); err != nil || !e.only().Running {
		t.Errorf("the agent's leave: %v, %+v", err, e.only())
	}
	stopped := boxed
	stopped.State = "stopped"
	if !keep(t, keeper(t, s, stopped)) || e.only().Running || len(e.volumes) != 1 {
		t.Errorf("stopped: %+v", e.only())
	}
	keep(t, keeper(t, s, boxed))
	if err := keeper(t, s, boxed).End(t.Context(), false); err != nil || e.only().Running || len(e.volumes) != 1 {
		t.Errorf("the promise's end: %v, %+v", err, e.only())
	}
}

// A guest whose kind changes is stopped in the old one before it starts in the new one.
func TestGuestRunsInOneKindAtATime(t *testing.T) {
	s, _, e := dock(t)
	sim := NewSim(map[string]Program{"/meshd": nil})
	s.Host, s.Exe = sim, "/meshd"
	process := policies.Guest{Kind: "process", Name: "child", State: "running"}
	k := keeper(t, s, process)
	keep(t, k)
	k.(Yielder).Yield()
	k = keeper(t, s, boxed)
	keep(t, k)
	if len(sim.Running()) != 0 || !e.only().Running {
		t.Errorf("%d processes, %+v", len(sim.Running()), e.only())
	}
	k.(Yielder).Yield()
	k = keeper(t, s, process)
	keep(t, k)
	if len(sim.Running()) != 1 || e.only().Running {
		t.Errorf("%d processes, %+v", len(sim.Running()), e.only())
	}
	if err := k.End(t.Context(), false); err != nil {
		t.Fatal(err)
	}
}

func TestContainerListensWhereItsMakerCanReachIt(t *testing.T) {
	both := []policies.Port{{Host: 7000, Guest: 6374, Proto: "tcp"}, {Host: 7000, Guest: 6374, Proto: "udp"}}
	for _, tt := range []struct {
		name    string
		addrs   []string
		network string
		ports   []policies.Port
		want    string // behind --listen; "" is an error
	}{
		{"bridge", []string{"10.0.0.9:1"}, "bridge", nil, ":6374"},
		{"bridge from loopback", []string{"127.0.0.1:1", "[::1]:1"}, "bridge", nil, ""},
		{"host", []string{"10.0.0.9:1"}, "host", nil, ":0"},
		{"host from loopback", []string{"127.0.0.1:1"}, "host", nil, "127.0.0.1:0"},
		{"published", []string{"h.example:1", "10.0.0.9:1"}, "bridge", both, ":6374 --advertise 10.0.0.9:7000 --advertise h.example:7000"},
		{"half published", []string{"10.0.0.9:1"}, "bridge", both[:1], ":6374"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _, e := dock(t)
			s.Addrs = func() []string { return tt.addrs }
			g := boxed
			g.Network, g.Ports = tt.network, tt.ports
			_, err := keeper(t, s, g).Repair(t.Context())
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), "loopback") || len(e.log) != 0 {
					t.Errorf("error %v after %v", err, e.log)
				}
				return
			}
			want := strings.Replace(tt.want, " ", " --join @/join ", 1)
			if !strings.Contains(tt.want, " ") {
				want += " --join @/join"
			}
			if got := strings.Join(e.only().spec.Args[6:], " "); err != nil || got != want {
				t.Errorf("listens %q, want %q (%v)", got, want, err)
			}
		})
	}
}

// What a new container lacks is told before an old one is given up for it.
func TestContainerIsNotGivenUpForOneThatCannotBe(t *testing.T) {
	s, _, e := dock(t)
	keep(t, keeper(t, s, boxed))
	before := e.only().ID
	other := boxed
	other.Image = "meshd:2"
	if _, err := keeper(t, s, other).Repair(t.Context()); err == nil || !strings.Contains(err.Error(), "meshd image meshd:2") {
		t.Errorf("no image: %v", err)
	}
	mounted := boxed
	mounted.Mounts = []policies.Mount{{Source: "shared", Target: "/srv"}}
	k := keeper(t, s, mounted)
	if _, err := k.Repair(t.Context()); !waiting(err) {
		t.Errorf("no source: %v", err)
	}
	if c := e.only(); c.ID != before || !c.Running {
		t.Errorf("now %+v", c)
	}
	write(t, filepath.Join(s.Work, "shared", "x"), "x")
	keep(t, k)
	if got := e.only().spec.Mounts; len(got) != 1 || got[0].Source != filepath.Join(s.Work, "shared") {
		t.Errorf("mounts %+v", got)
	}
}

func TestContainerNeedsAnEngine(t *testing.T) {
	s, _, _ := dock(t)
	g := boxed
	g.Kind = "podman"
	if _, err := keeper(t, s, g).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "no podman here") {
		t.Errorf("Check says %v", err)
	}
	s.Containers = nil
	if _, err := New(promiseOf(g), s); err == nil || !strings.Contains(err.Error(), "no container engine") {
		t.Errorf("New says %v", err)
	}
	if got := maps.Clone(s.Memory.(*shelf).m); len(got) != 0 {
		t.Errorf("remembers %v", got)
	}
}
