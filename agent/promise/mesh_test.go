//go:build linux

package promise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"meshd/policies"
)

// A fakeMesh offers what the test says and remembers what it was asked. One goroutine.
type fakeMesh struct {
	newest  map[string]string // name -> what was published last
	version int
	offers  []Placement // what Choose gives
	noOffer bool
	invites []string
	expel   []string
	retired [][]Placement
	fail    error
}

func (m *fakeMesh) content(o Offer) (string, error) {
	var all strings.Builder
	for _, path := range o.From {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		rel, err := filepath.Rel(o.Base, path)
		if o.Base == "" {
			rel, err = "", nil
		}
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&all, "%s=%s;", rel, b)
	}
	return all.String(), nil
}

func (m *fakeMesh) Outdated(_ context.Context, o Offer) (bool, ArtifactCause, error) {
	now, err := m.content(o)
	last, made := m.newest[o.Name]
	return !made || now != last, ArtifactCause{Name: o.Name, Version: fmt.Sprint(m.version)}, err
}

func (m *fakeMesh) Publish(_ context.Context, o Offer) (ArtifactCause, error) {
	if m.fail != nil {
		return ArtifactCause{}, m.fail
	}
	now, err := m.content(o)
	m.version++
	m.newest[o.Name] = now
	return ArtifactCause{Name: o.Name, Version: fmt.Sprint(m.version)}, err
}

func (m *fakeMesh) Choose(context.Context, Wish) ([]Placement, error) {
	if m.noOffer {
		return nil, &WaitingError{For: "artifact app"}
	}
	return m.offers, nil
}

func (m *fakeMesh) InPlace(_ context.Context, p Placement) (bool, string, error) {
	b, err := os.ReadFile(p.Path)
	if os.IsNotExist(err) {
		return false, "not there", nil
	}
	return string(b) == p.Artifact.Version, "other bytes", err
}

func (m *fakeMesh) Fetch(_ context.Context, p Placement) error {
	if m.fail != nil {
		return m.fail
	}
	return os.WriteFile(p.Path, []byte(p.Artifact.Version), 0o600)
}

func (m *fakeMesh) Retire(_ context.Context, _ string, now []Placement) error {
	m.retired = append(m.retired, now)
	return m.fail
}

func (m *fakeMesh) Invite(_ context.Context, name string, tags map[string]string) (string, error) {
	m.invites = append(m.invites, fmt.Sprint(name, tags))
	return "token-" + name, m.fail
}

func (m *fakeMesh) Expel(_ context.Context, name string) error {
	m.expel = append(m.expel, name)
	return m.fail
}

func meshSite(t *testing.T, h Host) (Site, *fakeMesh) {
	t.Helper()
	m := &fakeMesh{newest: map[string]string{}}
	s := newSite(t, h)
	s.Mesh = m
	return s, m
}

func TestArtifactIsOfferedWhenItsContentIsNew(t *testing.T) {
	s, m := meshSite(t, nil)
	k := keeper(t, s, policies.Artifact{Name: "app", From: "out/*.txt"})
	if _, err := k.Check(t.Context()); !waiting(err) || !strings.Contains(err.Error(), "out/*.txt") {
		t.Errorf("nothing to offer: %v", err)
	}
	write(t, filepath.Join(s.Work, "out/a.txt"), "1")
	write(t, filepath.Join(s.Work, "out/b.txt"), "2")
	write(t, filepath.Join(s.Work, "out/c.log"), "3")
	keep(t, k)
	if m.newest["app"] != "a.txt=1;b.txt=2;" {
		t.Errorf("published %q", m.newest["app"])
	}
	if keep(t, k) {
		t.Error("published again")
	}
	write(t, filepath.Join(s.Work, "out/a.txt"), "9")
	if !keep(t, k) || m.version != 2 {
		t.Errorf("version %d after an edit", m.version)
	}
	m.fail = errors.New("disk is full")
	write(t, filepath.Join(s.Work, "out/a.txt"), "10")
	if _, err := k.Repair(t.Context()); !errors.Is(err, m.fail) || !strings.Contains(err.Error(), `"app"`) {
		t.Errorf("error %v", err)
	}
}

func TestArtifactFromAPathThatLeadsOut(t *testing.T) {
	s, _ := meshSite(t, nil)
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	mustLink(t, outside, filepath.Join(s.Work, "out"))
	for _, from := range []string{"out/secret", "../data/x", "out/*"} {
		k, err := New(promiseOf(policies.Artifact{Name: "app", From: from}), s)
		if err == nil {
			_, err = k.Check(t.Context())
		}
		if err == nil {
			t.Errorf("from %q: no error", from)
		}
	}
}

func TestWantPlacesAndRetires(t *testing.T) {
	s, m := meshSite(t, nil)
	k := keeper(t, s, policies.Want{Name: "app/*", Place: "in/${artifact.name}"})
	m.noOffer = true
	if _, err := k.Check(t.Context()); !waiting(err) {
		t.Errorf("nobody offers: %v", err)
	}
	m.noOffer = false
	place := func(name, version string) Placement {
		return Placement{Path: filepath.Join(s.Work, name), Artifact: ArtifactCause{Name: "app/" + name, Version: version}}
	}
	m.offers = []Placement{place("a", "1"), place("b", "1")}
	keep(t, k)
	writes := s.Memory.(*shelf).writes
	m.offers[0] = place("a", "2")
	if !keep(t, k) || read(t, filepath.Join(s.Work, "a")) != "2" {
		t.Error("the new version was not placed")
	}
	if s.Memory.(*shelf).writes != writes {
		t.Error("a new version in the same place wrote to memory")
	}
	if w := k.Watches(); len(w) != 2 || w[0].Path != filepath.Join(s.Work, "a") {
		t.Errorf("watches %v", w)
	}
	m.offers = m.offers[:1]
	k = keeper(t, s, policies.Want{Name: "app/*", Place: "in/${artifact.name}"}) // withdrawn while it was away
	m.retired = nil
	if !keep(t, k) || len(m.retired) != 1 || len(m.retired[0]) != 1 {
		t.Errorf("retired %v", m.retired)
	}
	m.offers = []Placement{place("a", "2"), place("a", "3")}
	if _, err := k.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "both") {
		t.Errorf("two on one path: %v", err)
	}
	if _, err := New(promiseOf(policies.Want{Name: "x", Place: "../x"}), s); err == nil {
		t.Error("place may lead out")
	}
}

func TestReportTellsOnChangeOnly(t *testing.T) {
	s := newSite(t, nil)
	var log strings.Builder
	s.Log = &log
	keep(t, keeper(t, s, policies.Report{Message: "hello\nworld"}))
	if keep(t, keeper(t, s, policies.Report{Message: "hello\nworld"})) {
		t.Error("told twice")
	}
	keep(t, keeper(t, s, policies.Report{Message: "bye", Level: "warn"}))
	if want := "info part.type.name: hello | world\nwarn part.type.name: bye\n"; log.String() != want {
		t.Errorf("told %q, want %q", log.String(), want)
	}
}

// fledgling plays a meshd that joins and then runs until it is stopped; it keeps a process of its own.
const fledgling = `#!/bin/sh
echo "$@" >>"$3/args"
case "$*" in *--join*) test "$(cat "$3.join")" = token-child && echo cert >"$3/node.crt";; esac
MESHD_PROMISE="$3:its.own.process" setsid sleep 1000 &
echo $! >"$3/own.new"; mv "$3/own.new" "$3/own"
exec sleep 1000
`

func TestGuestIsBornOnceAndDeletedWhole(t *testing.T) {
	s, m := meshSite(t, realHost(t))
	s.Exe = filepath.Join(t.TempDir(), "meshd")
	if err := os.WriteFile(s.Exe, []byte(fledgling), 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(s.Data, "guests", "child")
	if err := os.MkdirAll(filepath.Dir(data), 0o700); err != nil {
		t.Fatal(err)
	}
	spec := policies.Guest{Name: "child", Tags: map[string]string{"kind": "child"}}
	born := func(k Keeper) {
		t.Helper()
		if err := os.Remove(filepath.Join(data, "own")); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		if err := os.MkdirAll(data, 0o700); err != nil {
			t.Fatal(err)
		}
		told := make(chan string, 100)
		stop, err := s.Host.Watch(data, func(name string) { told <- name })
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		keep(t, k)
		for wait(t, "the child", told) != "own" {
		}
	}
	write(t, data+".guest", "part.type.name\n") // as a crash after the first step leaves it
	k := ends(t, keeper(t, s, spec))
	born(k)
	info, err := os.Stat(data + ".join")
	if err != nil || info.Mode() != 0o600 || !slices.Equal(m.invites, []string{"childmap[kind:child]"}) {
		t.Errorf("invites %v, %v", m.invites, err)
	}
	pid := pidOf(t, k)
	k.(Yielder).Yield()
	k = ends(t, keeper(t, s, spec))
	if keep(t, k) || pidOf(t, k) != pid {
		t.Error("the child was not adopted")
	}
	f := check(t, k)
	if err := k.(*guestKeeper).process.child.Signal("KILL"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of the child", f.Wakes)
	born(k)
	args := strings.Split(read(t, filepath.Join(data, "args")), "\n")
	if len(m.invites) != 1 || strings.Contains(args[1], "--join") || !strings.Contains(args[0], "--join @"+data+".join") {
		t.Errorf("%d invites, started with %q", len(m.invites), args)
	}
	if _, err := os.Stat(data + ".join"); !os.IsNotExist(err) {
		t.Errorf("the used invite is still there: %v", err)
	}
	spec.State = "stopped"
	k.(Yielder).Yield()
	k = keeper(t, s, spec)
	keep(t, k)
	if _, _, err := s.Host.Find(data + ":*"); !errors.Is(err, ErrNotFound) {
		t.Errorf("processes of a stopped guest: %v", err)
	}
	spec.State = "absent"
	m.fail = errors.New("no sponsor")
	k = keeper(t, s, spec)
	if _, err := k.Repair(t.Context()); err == nil {
		t.Error("no error though its identity is still good")
	}
	if _, err := os.Stat(data); err != nil {
		t.Errorf("the folder went before the identity: %v", err)
	}
	m.fail = nil
	keep(t, k)
	if got := names(t, filepath.Dir(data)); len(got) != 0 || !slices.Contains(m.expel, "child") {
		t.Errorf("left %v, expelled %v", got, m.expel)
	}
	if keep(t, k) {
		t.Error("deleted twice")
	}
}

func TestGuestTouchesNoFolderThatItDidNotMake(t *testing.T) {
	s, m := meshSite(t, realHost(t))
	s.Exe = "/bin/true"
	write(t, filepath.Join(s.Data, "guests/child/precious"), "precious")
	for _, state := range []string{"running", "absent"} {
		k := keeper(t, s, policies.Guest{Name: "child", State: state})
		if _, err := k.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "not made by") {
			t.Errorf("%s: Check says %v", state, err)
		}
		if _, err := k.Repair(t.Context()); err == nil {
			t.Errorf("%s: Repair says nothing", state)
		}
	}
	if len(m.invites)+len(m.expel) != 0 || read(t, filepath.Join(s.Data, "guests/child/precious")) != "precious" {
		t.Error("something was done")
	}
}

func TestGuestRefuses(t *testing.T) {
	s, _ := meshSite(t, nil)
	for _, g := range []policies.Guest{{Name: "../x"}, {Name: ""}, {Name: "x", Kind: "docker"}, {Name: "x", State: "asleep"}} {
		if _, err := New(promiseOf(g), s); err == nil {
			t.Errorf("%+v: no error", g)
		}
	}
}

func TestNewSaysWhatIsNotSupported(t *testing.T) {
	if _, err := New(policies.Promise{Address: "a.b.c", Type: "package", Problem: "waiting for fact.x"}, Site{}); err == nil || !strings.Contains(err.Error(), "fact.x") {
		t.Errorf("error %v", err)
	}
}
