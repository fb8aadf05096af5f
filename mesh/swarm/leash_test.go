package swarm

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"meshd/mesh/link"
)

func TestAStreamThatQueuesIsBounded(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name         string
		before       int
		rate         float64 // bytes a second
		least, waits time.Duration
		want         int
	}{
		{"a share of a slow link", 0, 600e3, 0, 60 * ms, leashLeast},
		{"a slow link alone", 0, 5e6, 0, 50 * ms, 150_000},
		{"far away", 0, 1e6, 100 * ms, 40 * ms, 130_000},
		{"far away, and still getting faster", 0, 200e3, 100 * ms, 2 * ms, 0},
		{"fast", 0, 500e6, 0, 20 * ms, 0},
		{"nothing waits any more", 100_000, 3e6, 0, 5 * ms, 200_000},
		{"nor with twice as much", 200_000, 3e6, 0, 5 * ms, 0},
		{"about as before", 150_000, 4.8e6, 0, 30 * ms, 150_000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			began := link.Way{Bytes: 1 << 20, Busy: time.Minute}
			l := leash{last: began, bound: tt.before}
			busy := time.Duration(1e6 / tt.rate * float64(time.Second))
			got, changed := l.next(link.Way{Bytes: began.Bytes + 1e6, Busy: began.Busy + busy, RoundTrip: tt.least + tt.waits, Least: tt.least})
			if got < tt.want*99/100 || got > tt.want*101/100 || changed != (got != tt.before) {
				t.Errorf("bound = %d (changed: %v), want %d", got, changed, tt.want)
			}
		})
	}
}

// Streams that share a link come to wait leashTime together, however many bytes each began with.
func TestBoundsTogetherAreWhatTheLinkCarries(t *testing.T) {
	const rate = 5e6
	streams := make([]leash, 3)
	held := []float64{400e3, 200e3, 100e3} // as TCP alone would have it
	for range 40 {
		var sum float64
		for _, h := range held {
			sum += h
		}
		for i := range streams {
			l := &streams[i]
			busy := time.Second
			w := l.last
			w.Bytes += int64(rate * held[i] / sum)
			w.Busy += busy
			w.RoundTrip = time.Duration(sum / rate * float64(time.Second))
			if bound, _ := l.next(w); bound > 0 {
				held[i] = float64(bound)
			}
		}
	}
	wait := time.Duration((held[0] + held[1] + held[2]) / rate * float64(time.Second))
	if wait < leashFree || wait > leashTime*5/4 {
		t.Errorf("what is under way waits %v (%.0f bytes), want about %v", wait, held, leashTime)
	}
}

// Whatever a stream does, others keep a queue of 40 ms, or radio takes so long: it is let go again, and most of the time it
// carries what TCP alone would. Where its own queue comes on top, that is not cut for long either.
func TestAStreamIsLetGoWhereTheQueueIsNotItsOwn(t *testing.T) {
	const ms, rate = time.Millisecond, 2.5e6
	for _, own := range []time.Duration{0, 60 * ms} {
		var l leash
		w := link.Way{Least: 40 * ms}
		var held, carried float64
		for w.Busy < 10*time.Minute {
			at, trip := rate, 80*ms+own
			if held > 0 {
				trip = 80 * ms
				at = min(rate, held/trip.Seconds())
			}
			w.RoundTrip = trip
			w.Bytes += leashLook
			w.Busy += time.Duration(leashLook / at * float64(time.Second))
			carried += leashLook
			if bound, changed := l.next(w); changed {
				held = float64(bound)
			}
		}
		if part := carried / w.Busy.Seconds() / rate; part < 0.85 {
			t.Errorf("with a queue of its own of %v it carried %.2f of what it could", own, part)
		}
	}
}

func TestASessionBoundsItsStreamAsItServes(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := &queued{paced: paced{recorded: recorded{in: bytes.NewReader(nil)}, wait: 32 * time.Millisecond}}
		x := newSession(w.node(1).swarm, [16]byte{7}, c, idleTime)
		if err := x.sendAnswer(mustFrame(t, kindData, &data{Req: 1}), make([]byte, headRoom+256<<10), false); err != nil {
			t.Fatal(err)
		}
		if c.held != leashLeast {
			t.Errorf("bounded to %d bytes, want %d", c.held, leashLeast)
		}
	})
}

// A system that can't bound what it holds is asked for it once.
func TestAStreamThatCannotBeBoundedIsLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := &queued{paced: paced{recorded: recorded{in: bytes.NewReader(nil)}, wait: 32 * time.Millisecond}, refuse: errors.ErrUnsupported}
		x := newSession(w.node(1).swarm, [16]byte{7}, c, idleTime)
		for range 4 {
			if err := x.sendAnswer(mustFrame(t, kindData, &data{Req: 1}), make([]byte, headRoom+256<<10), false); err != nil {
				t.Fatal(err)
			}
		}
		if c.asked != 1 {
			t.Errorf("asked %d times to bound what it holds, want once", c.asked)
		}
	})
}

// queued is a paced stream over a way with a queue.
type queued struct {
	paced
	way    link.Way
	held   int
	asked  int
	refuse error // what LimitHeld returns
}

func (q *queued) Write(b []byte) (int, error) {
	q.way.Bytes += int64(len(b))
	q.way.Busy += q.wait
	q.way.RoundTrip = 60 * time.Millisecond
	return q.paced.Write(b)
}

func (q *queued) Carried() (link.Way, bool) { return q.way, true }

func (q *queued) LimitHeld(bytes int) error {
	q.held = bytes
	q.asked++
	return q.refuse
}
