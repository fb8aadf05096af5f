package mesh

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"meshd/mesh/id"
)

// Limits of dialling back.
const (
	kindReach    = 'd' // of packets
	reachLimit   = 5 * time.Second
	reachDial    = 2 * time.Second
	reachPackets = 5 // with reachGap between them, until the asker has one
	reachGap     = 200 * time.Millisecond
	reachEvery   = time.Second // of one asker
	reachAtOnce  = 16
	reachAskers  = 4096            // remembered; more are forgotten
	syncedWait   = 2 * time.Second // for the first comparison of catalogs, before the ring
)

// errNotReached is wrapped where a peer tried to dial this node back and could not, or its packet did not come.
var errNotReached = errors.New("this node can't be reached")

// A reach is what dialling back needs to remember. It is safe for concurrent use.
type reach struct {
	mu      sync.Mutex
	waiting map[[8]byte]chan struct{} // nonces of packets that are to come
	last    map[id.Node]time.Time     // when each asker was dialled back
	under   int                       // dials back under way
}

func newReach() *reach {
	return &reach{waiting: map[[8]byte]chan struct{}{}, last: map[id.Node]time.Time{}}
}

// expect returns what is closed when the packet with that nonce comes.
func (r *reach) expect(nonce [8]byte) (come <-chan struct{}, forget func()) {
	ch := make(chan struct{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[nonce] = ch
	return ch, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting, nonce)
	}
}

// packet is the handler of kindReach.
func (r *reach) packet(_ id.Node, b []byte, _ time.Time) {
	if len(b) != 8 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if ch := r.waiting[[8]byte(b)]; ch != nil {
		delete(r.waiting, [8]byte(b))
		close(ch)
	}
}

// begin takes a place for a dial back to n, or says why there is none now.
func (r *reach) begin(n id.Node, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.under >= reachAtOnce {
		return fmt.Errorf("%d dials back at once are the limit", reachAtOnce)
	}
	if last, asked := r.last[n]; asked && now.Sub(last) < reachEvery {
		return fmt.Errorf("one dial back in %v is the limit", reachEvery)
	}
	if len(r.last) >= reachAskers {
		clear(r.last)
	}
	r.last[n] = now
	r.under++
	return nil
}

func (r *reach) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.under--
}

// serveReach dials the asker back and then sends it a packet until it hangs up.
func (m *Mesh) serveReach(ctx context.Context, n id.Node, ask reachFrame, c net.Conn) error {
	told := m.dialBack(ctx, n, c)
	if err := sendAttach(c, frameReached, &told); err != nil || told.Problem != "" {
		return err
	}
	one := make([]byte, 1)
	for range reachPackets {
		if err := m.link.Send(n, kindReach, ask.Nonce[:]); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(reachGap)); err != nil {
			return err
		}
		if _, err := c.Read(one); err == nil || !isTimeout(err) {
			return nil // it has its packet, or gave up
		}
	}
	return nil
}

// dialBack dials whoever opened c back over TCP, and tells how that went.
func (m *Mesh) dialBack(ctx context.Context, n id.Node, c net.Conn) reachedFrame {
	if err := m.reach.begin(n, time.Now()); err != nil {
		return reachedFrame{Busy: true, Problem: err.Error()}
	}
	defer m.reach.end()
	ctx, cancel := context.WithTimeout(ctx, reachDial)
	defer cancel()
	if err := m.link.ReachBack(ctx, c); err != nil {
		m.cfg.Log.Debug("a node could not be dialled back", "peer", n.Short(), "error", err)
		return reachedFrame{Problem: cutText(err.Error(), 400)}
	}
	return reachedFrame{}
}

// reachLodger dials back a leaf that asked for it on its session: it costs that much less than a stream for it.
func (m *Mesh) reachLodger(ctx context.Context, l *lodger, ask reachFrame) {
	told := m.dialBack(ctx, l.peer, l.conn)
	if l.queue(frameReached, &told) != nil || told.Problem != "" {
		return
	}
	for range reachPackets {
		if m.link.Send(l.peer, kindReach, ask.Nonce[:]) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(reachGap):
		}
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// proveReach has peer dial this node back, by stream and by packet, and waits until catalogs were compared
// once, so that the ring knows this node's certificate. The error wraps errNotReached where the peer tried in
// vain; any other says nothing of how this node can be reached.
func (m *Mesh) proveReach(ctx context.Context, peer id.Node) error {
	ctx, cancel := context.WithTimeout(ctx, reachLimit)
	defer cancel()
	var ask reachFrame
	_, _ = crand.Read(ask.Nonce[:]) // never fails
	come, forget := m.reach.expect(ask.Nonce)
	defer forget()
	told, end, err := m.askReach(ctx, peer, ask)
	defer end()
	switch {
	case err != nil:
		return fmt.Errorf("ask %s for a dial back: %w", peer.Short(), err)
	case told.Busy:
		return fmt.Errorf("ask %s for a dial back: %q", peer.Short(), told.Problem)
	case told.Problem != "":
		return fmt.Errorf("%w by node %s over TCP: %q", errNotReached, peer.Short(), told.Problem)
	}
	select {
	case <-come:
	case <-ctx.Done():
		return fmt.Errorf("%w by node %s over UDP: its packets don't arrive", errNotReached, peer.Short())
	}
	end() // the peer need not send more packets
	select {
	case <-m.catalog.Checked():
	case <-time.After(syncedWait):
	case <-ctx.Done():
	}
	return nil
}

// askReach asks peer for a dial back: a leaf on the session that it has with an attach point, else on a stream that
// end closes.
func (m *Mesh) askReach(ctx context.Context, peer id.Node, ask reachFrame) (told reachedFrame, end func(), err error) {
	m.mu.Lock()
	p := m.points[peer]
	m.mu.Unlock()
	if p != nil {
		told, err = p.askReach(ctx, ask)
		return told, func() {}, err
	}
	c, err := m.link.Dial(ctx, peer, protoAttach)
	if err != nil {
		return told, func() {}, err
	}
	end = func() { _ = c.Close() } // nothing is lost with it
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(reachLimit))
	if err := sendAttach(c, frameReach, &ask); err != nil {
		return told, end, err
	}
	told, err = readAttach[reachedFrame](c, frameReached)
	return told, end, err
}

// askReach asks the point on the session with it.
func (p *point) askReach(ctx context.Context, ask reachFrame) (told reachedFrame, err error) {
	select {
	case <-p.reached: // the answer to an earlier one, that came late
	default:
	}
	if !p.queue(frameReach, &ask) {
		return told, errors.New("it reads nothing")
	}
	select {
	case told = <-p.reached:
		return told, nil
	case <-ctx.Done():
		return told, ctx.Err()
	}
}
