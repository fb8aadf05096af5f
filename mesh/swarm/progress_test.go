package swarm

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheRateIsThatOfLateAndSinksInAStall(t *testing.T) {
	var p progress
	now := time.Now()
	p.move(1<<30, 2<<30, 3, now) // was there before
	if p.rate != 0 {
		t.Errorf("what was there before has a rate of %.0f", p.rate)
	}
	step := func(n int, bytes int64) {
		for range n {
			now = now.Add(100 * time.Millisecond)
			p.move(bytes, 2<<30, 3, now)
		}
	}
	step(20, 1e6)
	if math.Abs(p.rate-10e6) > 1 {
		t.Errorf("10 MB/s is told as %.0f", p.rate)
	}
	step(100, 1e5)
	if p.rate < 1e6 || p.rate > 1.4e6 {
		t.Errorf("10 s after it fell to 1 MB/s it is told as %.0f", p.rate)
	}
	if r := p.rateAt(now.Add(time.Minute)); r > 1 {
		t.Errorf("after a minute with nothing it is told as %.0f", r)
	}
}

func TestUnderwayTellsHowFarAndFromHowMany(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b := w.node(1), w.node(2)
		ref := a.store.put(t, 3, 1, 8<<20)
		a.swarm.SetLimits(Limits{All: {Egress: 1 << 20}})
		done := make(chan error, 1)
		go func() { done <- b.pull(t, ref, time.Hour, a) }()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		all := b.swarm.Underway()
		if len(all) != 1 {
			t.Fatalf("%d pulls under way", len(all))
		}
		p := all[0]
		if p.Root != ref.Root || p.TotalBytes != ref.SizeBytes || p.DoneBytes < 3<<20 || p.DoneBytes > 6<<20 || p.Sources != 1 {
			t.Errorf("half way: %+v", p)
		}
		if p.BytesPerSecond < 0.8*(1<<20) || p.BytesPerSecond > 1.3*(1<<20) {
			t.Errorf("1 MiB/s is told as %.0f", p.BytesPerSecond)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if left := b.swarm.Underway(); len(left) != 0 {
			t.Errorf("%d pulls under way after the last", len(left))
		}
	})
}
