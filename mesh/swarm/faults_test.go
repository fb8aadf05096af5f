package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

func TestLiarIsNamedAndBannedAndTheArtifactCompletes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		honest, liar, me := w.node(1), w.node(2), w.node(9)
		ref := honest.store.put(t, 1, 1, 6<<20)
		liar.store.copyOf(honest.store)
		honest.hook, liar.hook = tenMegabytes, tenMegabytes
		me.store.known = map[artifact.Digest]bool{}
		for _, d := range honest.store.ids() {
			me.store.known[d] = true
		}
		for d, b := range liar.store.chunks {
			if len(b) > 20<<10 {
				liar.store.chunks[d] = append([]byte{b[0] ^ 1}, b[1:]...)
			}
		}
		if err := me.pull(t, ref, time.Minute, liar, honest); err != nil {
			t.Fatal(err)
		}
		me.mustHave(t, honest)
		s := me.swarm.Stats()
		if me.store.alien != 0 || s.Lies != 1 || len(s.Banned) != 1 || s.Banned[0].Node != liar.name {
			t.Errorf("%d false chunks kept; %+v", me.store.alien, s)
		}
		if s.WastedBytes > maxExtent {
			t.Errorf("%d bytes wasted on one lie", s.WastedBytes)
		}

		me.store.chunks = map[artifact.Digest][]byte{}
		dials := liar.dials
		if err := me.pull(t, ref, 9*time.Minute, liar); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "is banned: artifact app") {
			t.Errorf("pull from a banned node = %v", err)
		}
		if liar.dials != dials {
			t.Errorf("a banned node was dialled %d times", liar.dials-dials)
		}
		liar.store.put(t, 1, 1, 6<<20) // repaired
		if err := me.pull(t, ref, 2*time.Minute, liar); err != nil {
			t.Errorf("ten minutes later: %v", err)
		}
	})
}

func TestNoFlippedBitIsEverAccepted(t *testing.T) {
	const tries = 10_000
	random := rand.New(rand.NewPCG(7, 7))
	s := New(Config{Chunks: newMemory()})
	good := make([]byte, 4096)
	for i := range good {
		good[i] = byte(random.Uint32())
	}
	chunk := artifact.Chunk{ID: artifact.Sum(good), SizeBytes: uint32(len(good))}
	accepted := 0
	for range tries {
		p := &pull{s: s, wake: make(chan struct{}, 1), fetch: newFetch(1, id.Node{9})}
		lack := newBitset(1)
		lack.fill(1)
		p.plan.begin([]artifact.Chunk{chunk}, lack, false, time.Now())
		p.plan.join(id.Node{1})
		a := p.plan.next(time.Now(), maxHeld)[0]
		buf := s.buffers.get(len(good))
		copy(buf.b, good)
		bit := random.IntN(8 * len(good))
		buf.b[bit/8] ^= 1 << (bit % 8)
		p.answer(a, answer{body: buf})
		if len(p.ready) > 0 || p.plan.missing == 0 {
			accepted++
		}
	}
	if lies := s.Stats().Lies; accepted != 0 || lies != tries {
		t.Errorf("%d of %d chunks with a flipped bit accepted, %d lies counted", accepted, tries, lies)
	}
}

// A staller answers so many bytes and then nothing, with the stream open.
func staller(after int) func(net.Conn) net.Conn {
	return func(c net.Conn) net.Conn {
		sent := 0
		return &tap{Conn: c, write: func(b []byte) ([]byte, error) {
			if sent += len(b); sent > after {
				return nil, nil
			}
			return b, nil
		}}
	}
}

func TestStalledHolderDelaysThePullByLittle(t *testing.T) {
	whole := newMemory()
	ref := whole.put(t, 1, 1, 8<<20)
	for _, after := range []int{0, 1000, 100_000, 2 << 20} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				good, stalled, me := w.node(1), w.node(2), w.node(9)
				good.store.copyOf(whole)
				stalled.store.copyOf(whole)
				stalled.hook = staller(after)
				start := time.Now()
				if err := me.pull(t, ref, time.Minute, stalled, good); err != nil {
					t.Fatal(err)
				}
				me.mustHave(t, good)
				if took := time.Since(start); took > 3*duplicateIn {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestOnlyAStalledHolderIsToldWhenTimeIsUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		stalled, me := w.node(2), w.node(9)
		ref := stalled.store.put(t, 1, 1, 1<<20)
		stalled.hook = staller(100_000)
		err := me.pull(t, ref, 30*time.Second, stalled)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "silent for 10s") {
			t.Errorf("pull = %v", err)
		}
	})
}

func TestStreamsCutAtRandomPointsCostNoByteTwiceOver(t *testing.T) {
	whole := newMemory()
	ref := whole.put(t, 1, 1, 3<<20)
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				random := rand.New(rand.NewPCG(seed, 2))
				a, b, me := w.node(1), w.node(2), w.node(9)
				a.store.copyOf(whole)
				b.store.copyOf(whole)
				cutter := func(c net.Conn) net.Conn {
					left := 600<<10 + random.IntN(2<<20)
					return &tap{Conn: c, write: func(b []byte) ([]byte, error) {
						if left -= len(b); left < 0 {
							return b[:max(0, len(b)+left)], errors.New("cut")
						}
						return b, nil
					}}
				}
				a.hook, b.hook = cutter, cutter
				if err := me.pull(t, ref, time.Minute, a, b); err != nil {
					t.Fatal(err)
				}
				me.mustHave(t, a)
				if s := me.swarm.Stats(); s.Lies != 0 || len(s.Banned) != 0 || s.PulledBytes > me.store.sizeBytes() {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestFailedWriteFailsThePullAndTheNextGoesOn(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied %v", applied), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.node(1), w.node(2)
				ref := a.store.put(t, 1, 1, 20<<20)
				full := errors.New("no space left on device")
				b.store.fault = func(write int) (bool, error) {
					if write == 2 {
						return applied, full
					}
					return true, nil
				}
				if err := b.pull(t, ref, time.Minute, a); !errors.Is(err, full) {
					t.Fatalf("pull = %v", err)
				}
				before := b.store.sizeBytes()
				served := a.swarm.Stats().ServedBytes
				if err := b.pull(t, ref, time.Minute, a); err != nil {
					t.Fatal(err)
				}
				b.mustHave(t, a)
				if got, want := a.swarm.Stats().ServedBytes-served, a.store.sizeBytes()-before; got > want+maxHeld {
					t.Errorf("%d bytes fetched again, %d were missing", got, want)
				}
			})
		})
	}
}

func TestStoreThatLosesWhatItTookIsToldOf(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1), w.node(2)
		ref := a.store.put(t, 1, 1, 100<<10)
		b.store.fault = func(int) (bool, error) { return false, nil }
		err := b.pull(t, ref, time.Minute, a)
		if err == nil || !strings.Contains(err.Error(), "the store lost chunks") {
			t.Errorf("pull = %v", err)
		}
	})
}

// What a disk made of a part of the manifest is fetched again.
func TestAPartOfTheManifestThatIsWrongOnDiskIsFetchedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		from, to := w.node(1), w.node(2)
		ref := from.store.put(t, 1, 50, 8<<10)
		block, err := from.store.Read(ref.Root, nil)
		if err != nil {
			t.Fatal(err)
		}
		root, err := artifact.DecodeRoot(block)
		if err != nil || len(root.Parts) == 0 {
			t.Fatalf("%d parts, %v", len(root.Parts), err)
		}
		for _, c := range root.Parts {
			b := bytes.Clone(from.store.chunks[c.ID])
			b[len(b)/2] ^= 1
			to.store.chunks[c.ID] = b
		}
		if err := to.pull(t, ref, time.Minute, from); err != nil {
			t.Fatal(err)
		}
		to.mustHave(t, from)
		for _, c := range root.Parts {
			if got := artifact.Sum(to.store.chunks[c.ID]); got != c.ID {
				t.Errorf("part %s is still %s", c.ID.Short(), got.Short())
			}
		}
	})
}
