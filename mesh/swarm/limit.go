package swarm

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// MinLimit is the least cap (bytes a second): below it, a stream that shares it with others looks dead to its far end.
const MinLimit = 32 << 10

const (
	// Under a cap streams take turns after this much, a TLS record: who waits longest goes next.
	limitPiece = 16 << 10
	// What an idle bucket gathers, as time at its rate; at least one piece.
	limitBurst = 50 * time.Millisecond
	// What is small goes before what is large: it does not wait, what follows waits for it too, while the debt is at
	// most this long.
	limitDebt  = time.Second
	smallBytes = 64 << 10 // an answer of at most this is small: manifests, small artifacts
)

// A Class is a kind of link, told by the address at its far end.
type Class int

// The classes. What goes over a link counts for All and for one of the others.
const (
	All Class = iota
	LAN       // loopback, private and link-local addresses
	WAN       // every other
	classes
)

// A Limit caps the bytes a second that artifacts take in each direction; 0 is no cap.
type Limit struct{ Egress, Ingress int64 }

// Limits are the caps of all classes.
type Limits [classes]Limit

// SetLimits caps what goes over all streams together. It holds from the next piece on, 16 KiB a stream; caps below
// MinLimit are raised to it. Records and gossip go over other streams, never wait, and are not counted.
func (s *Swarm) SetLimits(l Limits) {
	var out, in [classes]int64
	for c, each := range l {
		out[c], in[c] = each.Egress, each.Ingress
	}
	s.egress.set(out)
	s.ingress.set(in)
}

// A throttle holds the buckets of one direction. The zero value caps nothing.
type throttle struct {
	mu      sync.Mutex
	buckets [classes]*rate.Limiter // nil: no cap
	changed chan struct{}          // closed when the buckets are replaced; nil while there are none
}

func (t *throttle) set(rates [classes]int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
	for c, r := range rates {
		t.buckets[c] = nil
		if r > 0 {
			r = max(r, MinLimit)
			burst := max(limitPiece, int(float64(r)*limitBurst.Seconds()))
			t.buckets[c] = rate.NewLimiter(rate.Limit(r), burst)
			t.changed = make(chan struct{})
		}
	}
}

// limit is the lower of the caps for a link of class c, in bytes a second; 0: none.
func (t *throttle) limit(c Class) (least float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range []*rate.Limiter{t.buckets[All], t.buckets[c]} {
		if b != nil && (least == 0 || float64(b.Limit()) < least) {
			least = float64(b.Limit())
		}
	}
	return least
}

// piece is how much to move at once over a link of class c, most where nothing caps it.
func (t *throttle) piece(c Class, most int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buckets[All] == nil && t.buckets[c] == nil {
		return most
	}
	return min(most, limitPiece)
}

// take waits until n bytes may go over a link of class c, or done is closed. What is small goes at once.
func (t *throttle) take(c Class, n int, small bool, done <-chan struct{}) {
	for n > 0 {
		piece := min(n, limitPiece)
		wait, changed := t.reserve(c, piece)
		if small {
			wait -= limitDebt
		}
		if wait > 0 && !pause(wait, changed, done) {
			select {
			case <-done:
				return
			default:
				continue // other buckets: ask those
			}
		}
		n -= piece
	}
}

// reserve takes the tokens for n bytes, at most a piece, and says how long they are in coming.
func (t *throttle) reserve(c Class, n int) (wait time.Duration, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	for _, class := range []Class{All, c} {
		if b := t.buckets[class]; b != nil && (class == All || c != All) {
			wait = max(wait, b.ReserveN(now, n).DelayFrom(now))
		}
	}
	return wait, t.changed
}

// pause waits; false if it was cut short.
func pause(d time.Duration, changed, done <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-changed:
	case <-done:
	}
	return false
}

// classOf tells the class of a link by its far end. An address of no IP, as in a simulation, is near.
func classOf(a net.Addr) Class {
	if a == nil {
		return LAN
	}
	at, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return LAN
	}
	ip := at.Addr().Unmap()
	if ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() {
		return LAN
	}
	return WAN
}
