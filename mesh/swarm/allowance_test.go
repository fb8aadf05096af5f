package swarm

import (
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

// Time in a bubble stands still while a core works: the compressor is said to take so long each time that it runs.
func ranFor(d time.Duration) func(time.Time) time.Duration {
	return func(time.Time) time.Duration { return d }
}

func TestAnAllowanceFillsByItsShareAndOwesWhatIsOverdrawn(t *testing.T) {
	now := time.Unix(1000, 0)
	a := allowance{share: 4}
	if !a.has(now) || !a.full(now) {
		t.Fatal("it does not begin full")
	}
	a.left -= packBurst + time.Second
	for _, tt := range []struct {
		after     time.Duration
		has, full bool
	}{
		{0, false, false},
		{4 * time.Second, false, false},
		{time.Second, true, false},
		{2 * time.Second, true, false},
		{time.Second, true, true},
		{time.Hour, true, true},
	} {
		now = now.Add(tt.after)
		if has, full := a.has(now), a.full(now); has != tt.has || full != tt.full {
			t.Errorf("%v later: something left %v, all of it %v; %v left", tt.after, has, full, a.left)
		}
	}
}

// Who says that its link is slow, and reads as fast as it can, has the holder compress for its share of the time and
// no longer; all together for theirs. Who is honest beside one of them is compressed for.
func TestTheTimeOfTheCompressorIsBounded(t *testing.T) {
	const each, long = 3 * time.Millisecond, 20 * time.Second
	text := make([]byte, 2*minPack)
	logText(1)(text)
	play := func(t *testing.T, liars int) (ran time.Duration, served int) {
		synctest.Test(t, func(t *testing.T) {
			p := packer{took: ranFor(each / 2)} // a sample and the whole
			room := make([]byte, 0, len(text))
			honest := id.Node{200}
			start := time.Now()
			for next := start; time.Since(start) < long; time.Sleep(each) {
				for i := range liars {
					if n := (id.Node{1, byte(i), byte(i >> 8)}); p.pays(n, text) {
						p.pack(n, text, room)
					}
				}
				if !time.Now().Before(next) { // 5 MB a second of compressed text
					next = next.Add(50 * time.Millisecond)
					if p.pays(honest, text) {
						p.pack(honest, text, room)
						served++
					}
				}
			}
			ran = time.Duration(p.ran.Load())
			time.Sleep(long)
			if p.pays(id.Node{201}, text); len(p.peers) > packPeers {
				t.Errorf("%d peers are remembered that have all their time again", len(p.peers))
			}
			if p.spent.Load() == 0 {
				t.Error("nobody is told that something was not compressed")
			}
		})
		return ran, served
	}
	ran, served := play(t, 1)
	if most := 2*packBurst + long/peerShare + long*each/(50*time.Millisecond); ran > most {
		t.Errorf("one liar and an honest peer took %v of the compressor, at most %v", ran, most)
	}
	if want := int(long / (50 * time.Millisecond)); served < want {
		t.Errorf("%d of %d answers were compressed for the honest one", served, want)
	}
	for _, liars := range []int{8, 300} {
		if ran, _ := play(t, liars); ran > packBurst+long/allShare+each*time.Duration(liars) {
			t.Errorf("%d liars took %v of the compressor in %v", liars, ran, long)
		}
	}
}

// What is beyond the time is answered all the same, and is right.
func TestAPeerThatSaysItsLinkIsSlowIsServedOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const each = 20 * time.Millisecond
		n, peer := w.node(1), id.Node{7}
		n.swarm.packer.took = ranFor(each)
		ref := n.store.putOf(t, 1, 4<<20, logText(1))
		m, err := load(n.store, ref.Root)
		if err != nil {
			t.Fatal(err)
		}
		c := w.speak(n, peer)
		defer func() { c.Close() }()
		req := uint32(0)
		packed := func() bool {
			t.Helper()
			chunk := m.chunks[int(req)%(len(m.chunks)-1)]
			req++
			kind, body, raw := exchange(t, c, mustFrame(t, kindWant, &want{Req: req, Root: ref.Root, IDs: chunk.ID[:], Rate: 1}))
			var d data
			if err := decode(body, &d); err != nil || kind != kindData {
				t.Fatalf("answer of kind %d: %v", kind, err)
			}
			if d.Plain > 0 {
				plain := make([]byte, d.Plain)
				var of packer
				if err := of.unpack(raw, plain); err != nil {
					t.Fatal(err)
				}
				raw = plain
			}
			if artifact.Sum(raw) != chunk.ID {
				t.Fatal("the answer is not what was asked for")
			}
			return d.Plain > 0
		}
		count := func(asks int) (out int) {
			for range asks {
				if packed() {
					out++
				}
			}
			return out
		}
		if got, most := count(100), int(packBurst/(2*each))+1; got < most/2 || got > most {
			t.Errorf("%d of 100 answers at one instant were compressed, at most %d", got, most)
		}
		c.Close()
		synctest.Wait()
		c = w.speak(n, peer)
		if got := count(10); got > 0 {
			t.Errorf("a new stream brought %d more", got)
		}
		time.Sleep(peerShare * packBurst)
		slow := 0
		for range 20 { // who reads slowly on purpose
			slow += count(1)
			time.Sleep(peerShare * 2 * each)
		}
		if slow != 20 {
			t.Errorf("%d of 20 answers within its share were compressed", slow)
		}
		if s := n.swarm.Stats(); s.PackSpent < 60 || s.PackTime == 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Random bytes among many on slow links: a sample of each answer is looked at, and nothing is compressed.
func TestRandomBytesAmongManyAreLookedAtAlone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		const run = time.Microsecond
		origin, others, ref := w.company(t, 8, 16<<20)
		all := append([]*node{origin}, others...)
		for _, n := range all {
			n.swarm.packer.took = ranFor(run)
		}
		pullAll(t, ref, origin, others)
		var runs, served int64
		for _, n := range all {
			s := n.swarm.Stats()
			runs += int64(s.PackTime / run)
			served += s.ServedBytes
			if s.SparedBytes != 0 || s.PackSpent != 0 {
				t.Errorf("%+v", s)
			}
		}
		t.Logf("%d samples for %d MiB", runs, served>>20)
		if runs == 0 || runs*samples*sampleSize > served/4 {
			t.Errorf("the compressor ran %d times for %d bytes", runs, served)
		}
	})
}

func TestAnAnswersSampleTakesNoMemory(t *testing.T) {
	var p packer
	noise := make([]byte, maxExtent)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(noise)
	if got := testing.AllocsPerRun(20, func() { p.pays(id.Node{1}, noise) }); got > 0 {
		t.Errorf("%g allocations", got)
	}
}
