package mesh

import (
	"strings"
	"testing"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/trust"
)

func TestALeaseIsJudgedByItsAttachPointBeforeAnyClock(t *testing.T) {
	heard := time.Unix(1_000_000, 0)
	said := time.Unix(9_000_000, 0) // its clock is years off
	tests := []struct {
		name        string
		state       uint8
		after, wall time.Duration // since heard; of the wall clock since said
		atPoint     bool
		want        presence
	}{
		{"there, whatever the clocks say", catalog.LeaseHere, 30 * 24 * time.Hour, 99 * 365 * 24 * time.Hour, true, presence{leaf: true, alive: true, live: true}},
		{"its point is gone: it is about to be elsewhere", catalog.LeaseHere, time.Minute, 0, false, presence{leaf: true, live: true}},
		{"its point is gone for long", catalog.LeaseHere, 11 * time.Minute, 0, false, presence{leaf: true}},
		{"away for a moment", catalog.LeaseAway, time.Minute, time.Minute, true, presence{leaf: true, live: true}},
		{"away for a moment, said by a clock of the future", catalog.LeaseAway, time.Minute, -40 * 24 * time.Hour, true, presence{leaf: true, live: true}},
		{"away for longer than it lasts", catalog.LeaseAway, 10 * time.Minute, time.Minute, true, presence{leaf: true}},
		{"heard now and said long ago", catalog.LeaseAway, 0, 2 * time.Hour, true, presence{leaf: true}},
		{"said goodbye", catalog.LeaseOver, 0, 0, true, presence{leaf: true}},
		{"is in the ring now", catalog.LeaseInRing, 0, 0, true, presence{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := lease{Lease: trust.Lease{Lasts: leaseLasts}, state: tt.state, heard: heard, said: said}
			if got := l.judge(heard.Add(tt.after), said.Add(tt.wall), tt.atPoint); got != tt.want {
				t.Errorf("judge = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestTheHighestCountStandsAndAReplayIsALie(t *testing.T) {
	m := &Mesh{leases: map[id.Node]*lease{}}
	leaf, a, b := id.Node{1}, id.Node{2}, id.Node{3}
	now := time.Unix(1_000_000, 0)
	take := func(at id.Node, count uint64, state uint8, said time.Time) error {
		return m.takeLease(lease{Lease: trust.Lease{Leaf: leaf, At: at, Count: count, Lasts: leaseLasts}, state: state, said: said})
	}
	for _, step := range []struct {
		at    id.Node
		count uint64
		state uint8
		after time.Duration
		want  id.Node
		lie   bool
	}{
		{a, 1, catalog.LeaseHere, 0, a, false},
		{b, 2, catalog.LeaseHere, time.Minute, b, false},
		{a, 1, catalog.LeaseAway, 2 * time.Minute, b, false}, // honest: it lost the leaf
		{a, 1, catalog.LeaseHere, 0, b, false},               // heard late
		{a, 1, catalog.LeaseHere, time.Hour, b, true},        // said again, long after
		{b, 2, catalog.LeaseAway, time.Hour, b, false},
		{a, 3, catalog.LeaseHere, 2 * time.Hour, a, false},
		{b, 3, catalog.LeaseAway, 2 * time.Hour, b, false}, // one count twice: in any order the same one stands
		{a, 3, catalog.LeaseHere, 2 * time.Hour, b, false},
		{a, 4, catalog.LeaseHere, 3 * time.Hour, a, false},
	} {
		err := take(step.at, step.count, step.state, now.Add(step.after))
		if (err != nil) != step.lie {
			t.Errorf("count %d at %s: %v", step.count, step.at.Short(), err)
		}
		if got := m.leases[leaf]; got.At != step.want {
			t.Errorf("after count %d at %s the leaf is at %s", step.count, step.at.Short(), got.At.Short())
		}
	}
}

// A leaf that lost its store attaches itself to a node that had not heard of its last leases: others believe those.
func TestALeafHearsThatAnotherLeaseStands(t *testing.T) {
	self, a, b := id.Node{1}, id.Node{2}, id.Node{3}
	m := &Mesh{self: self, leases: map[id.Node]*lease{}}
	p := &point{id: a, count: 3}
	if m.outrun(p) {
		t.Error("before anything was heard")
	}
	for _, tt := range []struct {
		at    id.Node
		count uint64
		want  bool
	}{{b, 2, false}, {b, 3, true}, {b, 9, true}, {a, 3, false}} {
		m.leases[self] = &lease{Lease: trust.Lease{Leaf: self, At: tt.at, Count: tt.count}}
		if got := m.outrun(p); got != tt.want {
			t.Errorf("count %d at %s is heard, %d was signed at %s: %v", tt.count, tt.at.Short(), p.count, a.Short(), got)
		}
	}
}

func TestAnAttachPointHasAnEnd(t *testing.T) {
	m := &Mesh{lodgers: map[id.Node]*lodger{}}
	if reason := m.fullFor(id.Node{1}); !strings.Contains(reason, "not in the ring") {
		t.Errorf("a node that seeks its own place takes leaves in: %q", reason)
	}
	m.standing = InRing
	for i := range maxLodgers {
		if reason := m.takeIn(&lodger{peer: id.Node{1, byte(i)}}); reason != "" {
			t.Fatalf("leaf %d: %s", i, reason)
		}
	}
	if reason := m.takeIn(&lodger{peer: id.Node{2}}); !strings.Contains(reason, "full") {
		t.Errorf("leaf %d is taken in: %q", maxLodgers+1, reason)
	}
	if reason := m.fullFor(id.Node{1, 5}); reason != "" {
		t.Errorf("a leaf that is attached can't come back: %s", reason)
	}
}
