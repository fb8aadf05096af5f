package catalog

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"

	"meshd/mesh/id"

	"pgregory.net/rapid"
)

// write appends to the newest state of a log as its origin would, and returns the entry. keep is the floor
// of a checkpoint.
func write(s *set, log LogID, kind uint8, name string, keep int, text string) *entry {
	r := &Record{Log: log, Seq: 1, Kind: kind, Name: name, Body: []byte(text)}
	if h := s.logs[log]; h != nil {
		r.Seq = h.last() + 1
	}
	e := &entry{
		log: &r.Log, name: name, seq: r.Seq, kind: kind, keep: uint16(keep), rec: r,
		hash: sha256.Sum256(fmt.Append(nil, log, kind, name, keep, text)),
	}
	if kind == KindCheckpoint {
		e.more = &extra{floor: uint64(keep)}
	}
	after := newSet()
	if h := s.logs[log]; h != nil {
		for _, r := range h.recs.list() {
			after.add(r)
		}
	}
	after.add(e)
	r.Live = after.logs[log].sum.digest()
	s.add(e)
	return e
}

// drawHistory writes a random history of few origins, epochs and names.
func drawHistory(t *rapid.T, s *set, label string, wild bool) []*entry {
	var all []*entry
	for i := range rapid.IntRange(1, 40).Draw(t, label) {
		kind := rapid.SampledFrom([]uint8{KindArtifact, KindArtifact, KindWithdraw, KindPlaced, KindStatus, KindCheckpoint}).Draw(t, "kind")
		log := LogID{id.Node{1 + byte(rapid.IntRange(0, 1).Draw(t, "origin"))}, uint64(rapid.IntRange(1, 2).Draw(t, "epoch")), scopeOf(kind)}
		name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name")
		keep := 0
		switch kind {
		case KindArtifact:
			keep = rapid.IntRange(1, 4).Draw(t, "keep")
		case KindCheckpoint: // an honest origin's floors ascend
			name, keep = "", 1
			if h := s.logs[log]; h != nil {
				least := int(h.floor) + 1
				if wild {
					least = 1
				}
				keep = rapid.IntRange(least, max(least, int(h.last())+1)).Draw(t, "floor")
			}
		}
		all = append(all, write(s, log, kind, name, keep, fmt.Sprint(label, i)))
	}
	return all
}

func settled(s *set) *set {
	s.settle()
	return s
}

// TestMergeIsASet: whatever order, repetition and whatever relays drop as needless, one result; and so for
// two branches of a forked log.
func TestMergeIsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		wild := rapid.Bool().Draw(t, "wild")
		origin := newSet()
		common := drawHistory(t, origin, "common", wild)
		branch := newSet()
		for _, e := range common {
			branch.add(e)
		}
		records := slices.Concat(common, drawHistory(t, origin, "one", wild))
		fork := rapid.Bool().Draw(t, "fork")
		if fork {
			records = append(records, drawHistory(t, branch, "two", wild)...)
		}
		want := newSet()
		for _, e := range records {
			want.add(e)
		}
		graves := drawGraves(t, want)
		for _, g := range graves {
			want.inter(g)
		}
		settled(want)

		// Two relays hear any part in any order, a third hears what they still hold, and the rest.
		relays := []*set{newSet(), newSet()}
		for _, e := range rapid.Permutation(records).Draw(t, "order") {
			relay := relays[rapid.IntRange(0, 1).Draw(t, "relay")]
			relay.add(e)
			if len(graves) > 0 && rapid.Bool().Draw(t, "grave too") {
				relay.inter(rapid.SampledFrom(graves).Draw(t, "grave"))
			}
		}
		last := newSet()
		for range 2 { // twice: repetition
			for _, g := range rapid.Permutation(graves).Draw(t, "graves") {
				last.inter(g)
			}
			for _, r := range relays {
				for _, h := range r.order {
					for _, e := range rapid.Permutation(h.recs.list()).Draw(t, "sent") {
						last.add(e)
					}
				}
			}
		}
		if settled(last).root != want.root {
			t.Fatalf("roots differ:\n%s\n%s", lines(want), lines(last))
		}
		for _, h := range last.order {
			if !fork && !wild && (h.forked || !h.complete()) {
				t.Fatalf("log %s: forked %v, complete %v", h.id, h.forked, h.complete())
			}
		}
	})
}

// drawGraves makes graves of logs that are known and of some that are not, each perhaps twice.
func drawGraves(t *rapid.T, s *set) []grave {
	settled(s)
	var out []grave
	for i := range rapid.IntRange(0, 6).Draw(t, "graves") {
		g := grave{origin: [8]byte{byte(i)}, tag: [8]byte{byte(rapid.IntRange(0, 2).Draw(t, "tag"))}, leaf: [8]byte{byte(i)}}
		if len(s.order) > 0 && rapid.Bool().Draw(t, "of a log") {
			g = rapid.SampledFrom(s.order).Draw(t, "log").grave()
		}
		out = append(out, g)
	}
	return out
}

// TestEveryPrefixOfALogIsComplete: a node that has heard a log up to any point can tell.
func TestEveryPrefixOfALogIsComplete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		origin, heard := newSet(), newSet()
		for _, e := range drawHistory(t, origin, "log", false) {
			heard.add(e)
			h := heard.logs[*e.log]
			if !h.complete() || h.sealed != e.seq {
				t.Fatalf("after %d of %s: complete %v, sealed %d", e.seq, *e.log, h.complete(), h.sealed)
			}
			if h.forked {
				t.Fatalf("an honest log counts as forked after %d", e.seq)
			}
		}
	})
}

// TestAMissingRecordIsNoticed: a relay that leaves out one live record can not pass the log off as whole,
// nor as forked.
func TestAMissingRecordIsNoticed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		origin := newSet()
		drawHistory(t, origin, "log", false)
		h := rapid.SampledFrom(origin.order).Draw(t, "of")
		out := rapid.IntRange(0, h.recs.n-1).Draw(t, "left out")
		heard := newSet()
		for i, e := range h.recs.list() {
			if i != out {
				heard.add(e)
			}
		}
		if got := heard.logs[h.id]; got != nil && got.complete() && got.last() == h.last() {
			t.Fatal("a log with a record left out seems whole")
		}
		heard.add(h.recs.list()[out]) // late, out of order
		if got := heard.logs[h.id]; !got.complete() || got.forked {
			t.Fatalf("with the record it is complete %v, forked %v", got.complete(), got.forked)
		}
	})
}

func TestForkIsProven(t *testing.T) {
	log := LogID{id.Node{1}, 1, ScopeMain}
	one, two := newSet(), newSet()
	for i := range 8 {
		e := write(one, log, KindArtifact, "common", 3, fmt.Sprint(i))
		two.add(e)
	}
	a := write(one, log, KindArtifact, "a", 1, "a9")
	b := write(two, log, KindArtifact, "b", 1, "b9")
	write(two, log, KindPlaced, "p", 0, "b10")

	if c := one.add(b); c.forked == nil || c.other != a {
		t.Error("two records of one seq are not taken for a fork")
	}
	if c := two.add(a); c.forked == nil {
		t.Error("a record that the signed live set leaves out is not taken for a fork")
	}
	for _, s := range []*set{one, two} {
		if !s.logs[log].forked {
			t.Error("the log does not count as forked")
		}
	}
}

func TestLiveReadsEpochsAsOneLog(t *testing.T) {
	s := newSet()
	first, second := LogID{id.Node{1}, 1, ScopeMain}, LogID{id.Node{1}, 2, ScopeMain}
	other := LogID{id.Node{2}, 1, ScopeMain}
	write(s, first, KindArtifact, "app", 2, "1")
	write(s, first, KindArtifact, "app", 2, "2")
	write(s, second, KindArtifact, "app", 2, "3")
	write(s, other, KindArtifact, "app", 2, "4")
	write(s, first, KindArtifact, "gone", 1, "5")
	write(s, second, KindWithdraw, "gone", 0, "6")
	write(s, other, KindArtifact, "apple", 1, "7")
	settled(s)
	tests := []struct {
		prefix string
		want   string
	}{
		{"", "[2 3 4 7]"},
		{"app", "[2 3 4 7]"},
		{"appl", "[7]"},
		{"gone", "[]"},
		{"z", "[]"},
	}
	for _, tt := range tests {
		var got []string
		s.live(kindKey{ScopeMain, KindArtifact}, tt.prefix, func(e *entry) { got = append(got, string(e.rec.Body)) })
		if fmt.Sprint(got) != tt.want {
			t.Errorf("live %q = %v, want %s", tt.prefix, got, tt.want)
		}
	}
}

func lines(s *set) string {
	out := ""
	for _, h := range s.order {
		out += h.id.String() + ":"
		for _, e := range h.recs.list() {
			out += fmt.Sprintf(" %d/%d/%s", e.seq, e.kind, e.name)
		}
		out += "\n"
	}
	return out
}
