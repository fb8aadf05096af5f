package swarm

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

// bubble runs f on a world with no network and no real clock; whatever is left running fails it.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.end()
		f(t, w)
	})
}

func TestPullBringsTheWholeArtifact(t *testing.T) {
	tests := []struct {
		name             string
		files, sizeBytes int
	}{
		{"nothing but a manifest", 0, 0},
		{"one small file", 1, 10 << 10},
		{"one large file", 1, 5 << 20},
		{"many small files", 2000, 300},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.node(1), w.node(2)
				ref := a.store.put(t, 1, tt.files, tt.sizeBytes)
				var steps []int64
				total := int64(-1)
				err := b.swarm.Pull(t.Context(), ref, names(a), func(done, all int64) {
					steps, total = append(steps, done), all
				})
				if err != nil {
					t.Fatal(err)
				}
				b.mustHave(t, a)
				if ok, err := b.swarm.Has(ref.Root); !ok || err != nil {
					t.Errorf("Has = %v, %v after the pull", ok, err)
				}
				if tt.files > 0 && (!slices.IsSorted(steps) || steps[len(steps)-1] != total || total != ref.SizeBytes) {
					t.Errorf("progress %v of %d, size %d", steps, total, ref.SizeBytes)
				}
				if got, size := a.swarm.Stats().ServedBytes, b.store.sizeBytes(); got != size {
					t.Errorf("%d bytes served for an artifact of %d", got, size)
				}
			})
		})
	}
}

func TestSeveralHoldersShareThePull(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		me := w.node(9)
		a, b, c := w.node(1), w.node(2), w.node(3)
		ref := a.store.put(t, 1, 3, 6<<20)
		b.store.copyOf(a.store)
		c.store.copyOf(a.store)
		a.hook, b.hook, c.hook = tenMegabytes, tenMegabytes, tenMegabytes
		if err := me.pull(t, ref, time.Minute, a, b, c); err != nil {
			t.Fatal(err)
		}
		me.mustHave(t, a)
		var sum int64
		for _, n := range []*node{a, b, c} {
			served := n.swarm.Stats().ServedBytes
			if sum += served; served < ref.SizeBytes/4 {
				t.Errorf("node %s served %d of %d bytes: the work is not shared", n.name.Short(), served, ref.SizeBytes)
			}
		}
		if sum > me.store.sizeBytes() {
			t.Errorf("%d bytes sent for %d", sum, me.store.sizeBytes())
		}
	})
}

func TestPullsOfOneArtifactShareOneTransfer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1), w.node(2)
		ref := a.store.put(t, 1, 1, 3<<20)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := b.pull(t, ref, time.Minute, a); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got, size := a.swarm.Stats().ServedBytes, b.store.sizeBytes(); got != size {
			t.Errorf("%d bytes served for %d", got, size)
		}
	})
}

func TestAdvertThatLiesAboutTheArtifactIsRefusedBeforeItsContent(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1), w.node(2)
		ref := a.store.put(t, 1, 1, 1<<20)
		ref.SizeBytes--
		err := b.pull(t, ref, time.Minute, a)
		if err == nil || !strings.Contains(err.Error(), "its advert said") {
			t.Fatalf("pull = %v", err)
		}
		if got := a.swarm.Stats().ServedBytes; got > 1000 {
			t.Errorf("%d bytes fetched of an artifact that was to be refused", got)
		}
	})
}

func TestOnlyWhatIsMissingIsFetched(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1), w.node(2)
		ref := a.store.put(t, 1, 1, 8<<20)
		random := rand.New(rand.NewPCG(1, 1))
		var here int64
		for _, d := range a.store.ids() {
			if random.IntN(3) > 0 {
				b.store.chunks[d] = a.store.chunks[d]
				here += int64(len(a.store.chunks[d]))
			}
		}
		if err := b.pull(t, ref, time.Minute, a); err != nil {
			t.Fatal(err)
		}
		b.mustHave(t, a)
		if got, want := a.swarm.Stats().ServedBytes, a.store.sizeBytes()-here; got != want {
			t.Errorf("fetched %d bytes, %d were missing", got, want)
		}
		if err := b.pull(t, ref, time.Minute); err != nil {
			t.Errorf("what is all here needs no holder: %v", err)
		}
	})
}

func TestAnInterruptedPullGoesOnWhereItWas(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1), w.node(2)
		ref := a.store.put(t, 1, 4, 4<<20)
		a.hook = tenMegabytes
		for range 3 { // each time, leave after a batch
			b.store.wrote = make(chan struct{}, 1)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- b.swarm.Pull(ctx, ref, names(a), nil) }()
			<-b.store.wrote
			cancel()
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
		}
		b.store.wrote = nil
		before := b.store.sizeBytes()
		if before == 0 || before >= a.store.sizeBytes() {
			t.Fatalf("%d bytes kept after three interruptions", before)
		}
		served := a.swarm.Stats().ServedBytes
		if err := b.pull(t, ref, time.Minute, a); err != nil {
			t.Fatal(err)
		}
		b.mustHave(t, a)
		if got := a.swarm.Stats().ServedBytes - served; got > a.store.sizeBytes()-before {
			t.Errorf("%d bytes fetched, %d were missing", got, a.store.sizeBytes()-before)
		}
	})
}

func TestPullWaitsForAHolder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, me := w.node(1), w.node(9)
		ref := a.store.put(t, 1, 1, 1<<20)
		err := me.pull(t, ref, time.Minute)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no node is known to hold it") {
			t.Errorf("pull = %v", err)
		}
		w.set(a, true)
		err = me.pull(t, ref, time.Minute, a)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("pull = %v", err)
		}

		// It comes to be known, and is told at once.
		w.set(a, false)
		var mu sync.Mutex
		var known []id.Node
		done := make(chan error, 1)
		go func() {
			done <- me.swarm.Pull(t.Context(), ref, func() []id.Node {
				mu.Lock()
				defer mu.Unlock()
				return known
			}, nil)
		}()
		synctest.Wait()
		start := time.Now()
		mu.Lock()
		known = []id.Node{a.name}
		mu.Unlock()
		me.swarm.Kick()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 100*time.Millisecond {
			t.Errorf("took %v after the kick", took)
		}
	})
}

func TestHolderThatVanishesAndReturnsIsAskedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, me := w.node(1), w.node(9)
		ref := a.store.put(t, 1, 1, 8<<20)
		sent := 0
		a.hook = func(c net.Conn) net.Conn {
			return &tap{Conn: c, write: func(b []byte) ([]byte, error) {
				if sent += len(b); sent > 2<<20 && sent-len(b) <= 2<<20 {
					w.set(a, true)
					time.AfterFunc(20*time.Second, func() { w.set(a, false) })
					return nil, errors.New("gone")
				}
				return b, nil
			}}
		}
		if err := me.pull(t, ref, time.Minute, a); err != nil {
			t.Fatal(err)
		}
		me.mustHave(t, a)
		if a.dials != 2 {
			t.Errorf("%d streams opened, want 2", a.dials)
		}
	})
}

func TestPartialHoldersTogetherAreEnough(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		whole, a, b, me := newMemory(), w.node(1), w.node(2), w.node(9)
		ref := whole.put(t, 1, 1, 6<<20)
		for i, d := range whole.ids() {
			content := whole.chunks[d]
			if small := len(content) < 16<<10; small || i%2 == 0 {
				a.store.chunks[d] = content
			}
			if small := len(content) < 16<<10; small || i%2 == 1 {
				b.store.chunks[d] = content
			}
		}
		for d := range whole.chunks { // root block and parts, without which nobody serves
			if m, err := load(whole, ref.Root); err == nil && !slices.ContainsFunc(m.chunks, func(c artifact.Chunk) bool { return c.ID == d }) {
				a.store.chunks[d], b.store.chunks[d] = whole.chunks[d], whole.chunks[d]
			}
		}
		if err := me.pull(t, ref, time.Minute, a, b); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(me.store.ids(), whole.ids()) {
			t.Error("not all of it came")
		}
	})
}

func TestNodeServesWhatItIsStillFetching(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, c := w.node(1), w.node(2), w.node(3)
		ref := a.store.put(t, 1, 1, 30<<20)
		a.hook = tenMegabytes
		start := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := b.pull(t, ref, time.Minute, a); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := c.pull(t, ref, time.Minute, b); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		c.mustHave(t, a)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("one after the other: %v", took)
		}
		if got := a.swarm.Stats().ServedBytes; got > a.store.sizeBytes() {
			t.Errorf("the origin sent %d bytes of %d", got, a.store.sizeBytes())
		}
	})
}

func TestPullAndServeEndWithTheSwarm(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1), w.node(2)
		ref := a.store.put(t, 1, 1, 1<<20)
		a.hook = staller(0)
		done := make(chan error, 1)
		go func() { done <- b.swarm.Pull(t.Context(), ref, names(a), nil) }()
		synctest.Wait()
		start := time.Now()
		w.end()
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("pull = %v", err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("took %v", took)
		}
		if err := b.swarm.Pull(t.Context(), ref, names(a), nil); !errors.Is(err, ErrClosed) {
			t.Errorf("pull afterwards = %v", err)
		}
	})
}

func TestSlowProgressDelaysNobody(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1), w.node(2)
		ref := a.store.put(t, 1, 1, 20<<20)
		release := make(chan struct{})
		slow := make(chan error, 1)
		go func() {
			slow <- b.swarm.Pull(t.Context(), ref, names(a), func(_, _ int64) { <-release })
		}()
		if err := b.pull(t, ref, time.Minute, a); err != nil {
			t.Error(err)
		}
		close(release)
		if err := <-slow; err != nil {
			t.Error(err)
		}
	})
}

func TestIdleStreamIsClosed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1), w.node(2)
		ref := a.store.put(t, 1, 1, 1000)
		other := b.store.put(t, 2, 1, 1000)
		if err := b.pull(t, ref, time.Minute, a); err != nil {
			t.Fatal(err)
		}
		// The stream is there for the other direction too.
		if err := a.pull(t, other, time.Minute, b); err != nil {
			t.Fatal(err)
		}
		if a.dials+b.dials != 1 {
			t.Errorf("%d streams opened, want 1", a.dials+b.dials)
		}
		if s := b.swarm.Stats(); s.Sessions != 1 {
			t.Errorf("%d streams open", s.Sessions)
		}
		<-time.After(dialledIdle + time.Second)
		if s := b.swarm.Stats(); s.Sessions != 0 {
			t.Errorf("%d streams open when idle", s.Sessions)
		}
	})
}
