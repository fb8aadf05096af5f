package swarm

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

func deskOf(chunks int) *desk {
	list := make([]artifact.Chunk, chunks)
	for i := range list {
		list[i] = artifact.Chunk{ID: artifact.Digest{1, byte(i)}, SizeBytes: 64 << 10}
	}
	return newDesk(artifact.Digest{1}, list)
}

// checkDesk fails unless the counts of a desk are those of its wanters.
func checkDesk(t *rapid.T, d *desk) {
	short := 0
	have := make([]int, d.cut.count())
	for _, w := range d.wanters {
		lacking := 0
		for e := range have {
			lacks := int32(0)
			for c := d.cut[e]; c < d.cut[e+1]; c++ {
				if !w.has.has(c) {
					lacks++
				}
			}
			if lacks != w.lacks[e] {
				t.Fatalf("%s lacks %d chunks of extent %d, desk says %d", w.node.Short(), lacks, e, w.lacks[e])
			}
			if lacks == 0 {
				have[e]++
			} else {
				lacking++
			}
		}
		if lacking != w.lacking {
			t.Fatalf("%s lacks %d extents, desk says %d", w.node.Short(), lacking, w.lacking)
		}
		if lacking > 0 {
			short++
		}
	}
	for e := range have {
		if have[e] != d.have[e] {
			t.Fatalf("%d have extent %d, desk says %d", have[e], e, d.have[e])
		}
	}
	if short != d.short {
		t.Fatalf("%d wanters lack something, desk says %d", short, d.short)
	}
}

// Whatever wanters tell, in whatever order, nobody is given what it has; and who stays alone is given all.
func TestDeskGivesAllUnderAnySchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := deskOf(rapid.IntRange(1, 100).Draw(t, "chunks"))
		now := time.Unix(1, 0)
		node := func() id.Node { return id.Node{byte(rapid.IntRange(1, 4).Draw(t, "node"))} }
		for range rapid.IntRange(0, 100).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1500).Draw(t, "ms")) * time.Millisecond)
			switch n := node(); rapid.IntRange(0, 5).Draw(t, "event") {
			case 0:
				has := newBitset(len(d.chunks))
				for i := range d.chunks {
					if rapid.Bool().Draw(t, "has") {
						has.set(i)
					}
				}
				d.tell(n, has, now)
			case 1:
				d.leave(n)
			case 2:
				from := rapid.IntRange(0, len(d.chunks)-1).Draw(t, "from")
				d.more(n, runs{{from, min(from+3, len(d.chunks))}}, now)
			case 3:
				d.sent(n)
			case 4:
				d.elsewhere(n, rapid.IntRange(0, len(d.chunks)-1).Draw(t, "chunk"), now)
			default:
				if e, ok := d.give(n, rapid.IntRange(0, 1).Draw(t, "part"), 2, now); ok && d.wanters[n].lacks[e] == 0 {
					t.Fatalf("%s was given extent %d, which it has", n.Short(), e)
				}
			}
			checkDesk(t, d)
		}
		for n := range 5 {
			d.leave(id.Node{byte(n)})
		}
		last := id.Node{9}
		d.tell(last, newBitset(len(d.chunks)), now)
		for rounds := 0; d.wanters[last].lacking > 0; rounds++ {
			now = now.Add(partTime + time.Millisecond)
			e, ok := d.give(last, 0, 1, now)
			if !ok || rounds > d.cut.count() {
				t.Fatalf("nothing is given to the only wanter, which lacks %d extents", d.wanters[last].lacking)
			}
			d.sent(last)
			d.more(last, runs{{d.cut[e], d.cut[e+1]}}, now)
		}
	})
}

func TestExtentGoesToOneWanterAndTheOthersAreSentToIt(t *testing.T) {
	d, now := deskOf(32), time.Unix(1, 0)
	a, b := id.Node{1}, id.Node{2}
	d.tell(a, newBitset(32), now)
	d.tell(b, newBitset(32), now)
	e, ok := d.give(a, 0, 1, now)
	if !ok {
		t.Fatal("nothing given")
	}
	if at, ok := d.elsewhere(b, d.cut[e], now); !ok || at != a {
		t.Errorf("what a was given is to be had from %s, %v", at.Short(), ok)
	}
	if at, ok := d.elsewhere(a, d.cut[e], now); ok {
		t.Errorf("a is sent to %s for what it was given", at.Short())
	}
	d.leave(a)
	if at, ok := d.elsewhere(b, d.cut[e], now); ok {
		t.Errorf("b is sent to %s, which is gone", at.Short())
	}
}

func TestWhoPassesNothingOnIsGivenNoMore(t *testing.T) {
	d, now := deskOf(200), time.Unix(1, 0)
	a, b := id.Node{1}, id.Node{2}
	d.tell(a, newBitset(200), now)
	d.tell(b, newBitset(200), now)
	given := 0
	for range 50 {
		if _, ok := d.give(a, 0, 1, now); ok {
			given++
			d.sent(a)
		}
	}
	if given > firstHard {
		t.Errorf("%d extents given to one that passes none on", given)
	}
	if _, ok := d.give(b, 0, 1, now); !ok {
		t.Error("nothing is given to the other one")
	}
}

// Of 32 MiB the first 4 are handed out a chunk at a time, what follows two at a time, the last quarter again one.
func TestTheFirstExtentsAreSingleChunks(t *testing.T) {
	chunks := make([]artifact.Chunk, 512)
	for i := range chunks {
		chunks[i].SizeBytes = 64 << 10
	}
	cut := cutExtents(chunks)
	for _, at := range []struct{ extent, chunk int }{{0, 0}, {63, 63}, {64, 65}, {65, 67}} {
		if cut[at.extent] != at.chunk {
			t.Errorf("extent %d begins with chunk %d, want %d", at.extent, cut[at.extent], at.chunk)
		}
	}
	if n := cut.count(); cut[n-1] != 511 {
		t.Errorf("the last extent begins with chunk %d", cut[n-1])
	}
	small := make([]artifact.Chunk, 10_000)
	for i := range small {
		small[i].SizeBytes = 4 << 10
	}
	if cut := cutExtents(small); cut[1] != startAim/(4<<10) {
		t.Errorf("of chunks of 4 KiB the first extent has %d", cut[1])
	}
}
