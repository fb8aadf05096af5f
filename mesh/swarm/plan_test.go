package swarm

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

// checkPlan fails unless each chunk is in exactly one place: received, under way, or to do.
func checkPlan(t *rapid.T, p *plan) {
	copies := make([]uint8, len(p.chunks))
	var flight int64
	for _, a := range p.open {
		if a.chunks == nil {
			flight += a.bytes // a share of which nothing is known yet
			continue
		}
		var bytes int64
		for _, c := range a.chunks {
			copies[c]++
			bytes += sizeOf(p.chunks[c])
		}
		if bytes != a.bytes || len(a.chunks) == 0 || len(a.chunks) > maxWant || bytes > maxExtent {
			t.Fatalf("request of %d chunks, %d bytes, said to be %d", len(a.chunks), bytes, a.bytes)
		}
		if !slices.IsSorted(a.chunks) || p.source(a.to.node) != a.to {
			t.Fatal("request out of order, or to nobody")
		}
		flight += bytes
	}
	missing := 0
	for i := range p.chunks {
		rare := 0
		for _, s := range p.sources {
			if s.has != nil && s.has.has(i) {
				rare++
			}
		}
		if rare != int(p.rare[i]) {
			t.Fatalf("%d sources have chunk %d, plan says %d", rare, i, p.rare[i])
		}
		if !p.got.has(i) {
			missing++
		}
		if copies[i] != p.copies[i] || copies[i] > maxCopies {
			t.Fatalf("chunk %d is asked for %d times, plan says %d", i, copies[i], p.copies[i])
		}
		if todo := !p.got.has(i) && copies[i] == 0; todo != p.todo.has(i) {
			t.Fatalf("chunk %d: got %v, under way %d, to do %v", i, p.got.has(i), copies[i], p.todo.has(i))
		}
	}
	if missing != p.missing || flight != p.flight {
		t.Fatalf("missing %d, plan says %d; under way %d, plan says %d", missing, p.missing, flight, p.flight)
	}
	for _, s := range p.sources {
		open, shares, queued := 0, 0, int64(0)
		for _, a := range p.open {
			if a.to == s && a.chunks == nil {
				shares++
			} else if a.to == s {
				open++
				queued += a.bytes
			}
		}
		if open != s.open || queued != s.queued || shares != s.shares {
			t.Fatalf("source has %d requests of %d bytes, %d shares; plan says %d, %d, %d", open, queued, shares, s.open, s.queued, s.shares)
		}
		if s.has != nil && s.lacking != len(p.chunks)-s.has.count() {
			t.Fatalf("source lacks %d chunks, plan says %d", len(p.chunks)-s.has.count(), s.lacking)
		}
	}
}

// disturb has something happen to a plan.
func disturb(t *rapid.T, p *plan, now time.Time) {
	n := id.Node{byte(rapid.IntRange(1, 4).Draw(t, "node"))}
	switch rapid.IntRange(0, 6).Draw(t, "event") {
	case 0:
		p.join(n)
	case 1:
		p.leave(n)
	case 2:
		has := newBitset(len(p.chunks))
		for i := range p.chunks {
			if rapid.Bool().Draw(t, "has") {
				has.set(i)
			}
		}
		p.learn(n, has, rapid.Bool().Draw(t, "shy"))
	case 3:
		p.giveUp(now)
		from := rapid.IntRange(0, len(p.chunks)-1).Draw(t, "from")
		p.more(n, runs{{from, len(p.chunks)}})
	case 4:
		p.next(now, int64(rapid.IntRange(0, 4<<20).Draw(t, "room")))
	default:
		if len(p.open) == 0 {
			return
		}
		a := p.open[rapid.IntRange(0, len(p.open)-1).Draw(t, "request")]
		if a.chunks == nil {
			if c := p.todo.next(0, nil); c >= 0 && rapid.Bool().Draw(t, "granted") {
				p.granted(a, []int{c}, now)
			} else {
				p.close(a)
			}
			return
		}
		for i := range a.chunks {
			switch rapid.IntRange(0, 3).Draw(t, "chunk") {
			case 0:
				p.lacks(a, i)
			case 1: // the source lied from here on
			default:
				p.arrived(a, i, now)
			}
		}
		p.answered(a, now, a.bytes)
	}
}

// Whatever sources do, in whatever order, no chunk is lost and none is asked for three times; and once
// one source has all and answers, the plan ends.
func TestPlanLosesNoChunkUnderAnySchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, artifact.MaxChunk), 1, 200).Draw(t, "sizes")
		chunks := make([]artifact.Chunk, len(sizes))
		lack := newBitset(len(sizes))
		for i, n := range sizes {
			chunks[i] = artifact.Chunk{ID: artifact.Digest{1, byte(i)}, SizeBytes: uint32(n)}
			if rapid.IntRange(0, 4).Draw(t, "missing") > 0 {
				lack.set(i)
			}
		}
		now := time.Unix(0, 0)
		p := newPlan(rapid.Uint64().Draw(t, "seed"), id.Node{77})
		p.begin(chunks, lack, false, now)
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
			disturb(t, p, now)
			checkPlan(t, p)
		}
		for _, s := range slices.Clone(p.sources) {
			p.leave(s.node)
		}
		p.join(id.Node{9})
		for rounds := 0; p.missing > 0; rounds++ {
			asks := p.next(now, maxHeld)
			if len(asks) == 0 || rounds > 1000 {
				t.Fatalf("nothing is asked of a source that has all, %d missing", p.missing)
			}
			for _, a := range asks {
				now = now.Add(time.Millisecond)
				for i := range a.chunks {
					p.arrived(a, i, now)
				}
				p.answered(a, now, a.bytes)
			}
			checkPlan(t, p)
		}
	})
}

func TestFastSourceIsAskedForMore(t *testing.T) {
	chunks := make([]artifact.Chunk, 4000)
	lack := newBitset(len(chunks))
	for i := range chunks {
		chunks[i] = artifact.Chunk{SizeBytes: 64 << 10}
	}
	lack.fill(len(chunks))
	p := newPlan(1, id.Node{77})
	p.begin(chunks, lack, false, time.Unix(0, 0))
	fast, slow := id.Node{1}, id.Node{2}
	p.join(fast)
	p.join(slow)
	rate := map[id.Node]float64{fast: 50e6, slow: 5e6}
	got := map[id.Node]int64{}
	free := map[id.Node]time.Time{} // when the link of the source is free
	now := time.Unix(0, 0)
	type event struct {
		at time.Time
		a  *ask
	}
	var events []event
	for p.missing > 0 {
		for _, a := range p.next(now, maxHeld-p.flight) {
			from := free[a.to.node]
			if from.Before(now) {
				from = now
			}
			done := from.Add(time.Duration(float64(a.bytes) / rate[a.to.node] * 1e9))
			free[a.to.node] = done
			events = append(events, event{done, a})
		}
		slices.SortFunc(events, func(a, b event) int { return a.at.Compare(b.at) })
		e := events[0]
		events = events[1:]
		now = e.at
		if !p.isOpen(e.a) {
			continue
		}
		got[e.a.to.node] += e.a.bytes
		for i := range e.a.chunks {
			p.arrived(e.a, i, now)
		}
		p.answered(e.a, now, e.a.bytes)
		p.giveUp(now)
	}
	ideal := float64(len(chunks)*64<<10) / 55e6
	if took := now.Sub(time.Unix(0, 0)).Seconds(); took > 1.1*ideal {
		t.Errorf("two sources of 50 and 5 MB/s took %.2f s, ideal %.2f s", took, ideal)
	}
	if got[fast] < 7*got[slow] {
		t.Errorf("the fast source sent %d bytes, the slow one %d", got[fast], got[slow])
	}
}

func TestBitsetKeepsItsWireForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		members := rapid.SliceOfN(rapid.Bool(), 0, 300).Draw(t, "members")
		b := newBitset(len(members))
		count := 0
		for i, in := range members {
			if in {
				b.set(i)
				count++
			}
		}
		wire := b.bytes(len(members))
		back := parseBits(wire, len(members))
		if b.count() != count || len(members) > 0 && !slices.Equal(b, back) {
			t.Fatalf("%v became %v", b, back)
		}
		next := b.next(0, nil)
		if want := slices.Index(members, true); next != want {
			t.Fatalf("first member %d, want %d", next, want)
		}
		if len(members)%8 != 0 {
			wire[len(wire)-1] |= 0x80
			if parseBits(wire, len(members)) != nil {
				t.Fatal("a bit beyond the end was taken")
			}
		}
	})
}
