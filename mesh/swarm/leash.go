package swarm

import (
	"math"
	"time"

	"meshd/mesh/link"
)

// What of a stream waits in queues on the way delays all that shares them, and is lost where they are full, which TCP
// finds out only by losing it. So a stream that waits there has no more bytes under way than it carries in its shortest
// round trip and leashTime: over a link that is full, the sum of all streams is about what that carries in leashTime.
// Where half as much under way waits as long, the queue is not its own, or the way is just unsteady, as radio is: then it is
// left to TCP for leashRest of being busy.
const (
	leashTime  = 30 * time.Millisecond
	leashFree  = leashTime / 2 // a round trip longer than the shortest by less says that the way carries more
	leashLeast = 24 << 10      // bytes: a record of TLS on its way, and half of one behind it
	leashMost  = 256 << 10     // bytes: what carries more in that time is fast, and left to TCP
	leashLook  = 64 << 10      // bytes between two looks
	leashTries = 8             // looks after which half as much under way must have shortened the wait by a quarter,
	leashRest  = 10 * time.Second
)

// A carrier is a stream that tells what it carries, and can be bounded: a link.Conn.
type carrier interface {
	Carried() (w link.Way, ok bool)
	LimitHeld(bytes int) error
}

// A leash bounds what of a stream is under way. It belongs to the goroutine that writes.
type leash struct {
	last  link.Way
	bound int // bytes; 0: none

	from  float64       // bytes that were under way when they waited so long:
	wait  time.Duration // what is half of that is judged by it
	looks int           // since then
	rest  time.Duration // until link.Way.Busy is that, it is not bounded
}

// next is the bound from now on, and says whether it is to be set.
func (l *leash) next(w link.Way) (bound int, changed bool) {
	bytes, busy := w.Bytes-l.last.Bytes, w.Busy-l.last.Busy
	if bytes < leashLook || busy <= 0 {
		return l.bound, false
	}
	l.last = w
	if w.Busy < l.rest {
		return 0, false
	}
	want := 2 * float64(l.bound)
	if wait := w.RoundTrip - w.Least; wait >= leashFree {
		rate := float64(bytes) / busy.Seconds()
		want = max(rate*(w.Least+leashTime).Seconds(), leashLeast)
		if l.bound == 0 {
			l.from, l.wait, l.looks = rate*w.RoundTrip.Seconds(), wait, 0
		}
		if l.looks++; l.looks > leashTries && want <= l.from/2 {
			if wait > l.wait/4*3 {
				l.bound, l.rest = 0, w.Busy+leashRest
				return 0, true
			}
			l.from, l.wait, l.looks = want, wait, 0
		}
	}
	if bound = int(min(want, leashMost+1)); bound > leashMost {
		bound = 0
	}
	if d := bound - l.bound; bound > 0 && max(d, -d) < l.bound/8 {
		return l.bound, false // not worth a call
	}
	changed = bound != l.bound
	l.bound = bound
	return bound, changed
}

// tighten looks what the stream carries now.
func (x *session) tighten() {
	c, ok := x.conn.(carrier)
	if !ok {
		return
	}
	w, ok := c.Carried()
	if !ok {
		return
	}
	if bound, changed := x.leash.next(w); changed {
		if err := c.LimitHeld(bound); err != nil {
			x.leash.rest = math.MaxInt64 // nor will it be later
			x.s.log.Debug("queues on the way are not kept short", "peer", x.peer.Short(), "why", err)
		}
	}
}
