package swarm

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

func TestBuffersAreKeptAsFarAsTheyAreOfUse(t *testing.T) {
	var p buffers
	p.pulling(1)
	var lent []*buffer
	for range 20 {
		lent = append(lent, p.get(largeBuffer), p.get(middleBuffer))
	}
	for _, x := range lent {
		x.release()
	}
	if p.lentBytes != 0 || p.spareBytes > maxLent || p.spareBytes < maxLent-largeBuffer {
		t.Errorf("%d bytes are lent and %d spare after 20 of each size, want at most %d", p.lentBytes, p.spareBytes, maxLent)
	}
	if x := p.get(largeBuffer - 1); x.all == nil || p.spareBytes+p.lentBytes > maxLent {
		t.Errorf("%d bytes are lent and %d spare, although one of the spare was of the size", p.lentBytes, p.spareBytes)
	} else {
		x.release()
	}
	p.pulling(-1)
	if p.spareBytes > maxRest {
		t.Errorf("%d bytes are spare when nothing is pulled, want at most %d", p.spareBytes, maxRest)
	}
}

// Whatever ends a pull, at whatever point, all that it borrowed is given back: end looks.
func TestAPullThatEndsEarlyGivesItsBuffersBack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1), w.node(2)
		a.hook = tenMegabytes
		ref := a.store.put(t, 3, 1, 12<<20)
		random := rand.New(rand.NewPCG(1, 2))
		failed := 0
		for i := range 60 {
			b.store.chunks = newMemory().chunks
			b.store.fault = func(int) (bool, error) { // a slow disk, which fails in every second run
				time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
				if i%2 == 0 && random.IntN(4) == 0 {
					return false, errors.New("no room")
				}
				return true, nil
			}
			err := b.pull(t, ref, time.Duration(random.IntN(1500)+1)*time.Millisecond, a)
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				failed++
			}
		}
		if failed == 0 {
			t.Error("no pull failed for want of room: the test shows less than it says")
		}
	})
}

func TestAnAnswerThatComesTooLateIsGivenBack(t *testing.T) {
	s := New(Config{Chunks: newMemory()})
	p := &pull{s: s, wake: make(chan struct{}, 1), fetch: newFetch(1, [16]byte{9})}
	p.bring(event{run: func() { t.Error("an event of a pull that ended is run") }, body: s.buffers.get(largeBuffer)})
	p.end()
	p.bring(event{run: func() { t.Error("an event after the end is run") }, body: s.buffers.get(largeBuffer)})
	if n := s.buffers.lentBytes; n != 0 || len(p.inbox) > 0 {
		t.Errorf("%d bytes were not given back, %d events are kept", n, len(p.inbox))
	}
}
