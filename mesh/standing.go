package mesh

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
)

// A Standing is this node's place in the mesh.
type Standing uint8

// A node seeks until a peer has dialled it back; only then does it take part in the ring (SPEC 5).
const (
	Seeking Standing = iota
	InRing
	AsLeaf // nobody reaches it, or it was told to dial out only
)

const (
	enoughRefusals = 2               // peers that tried in vain, before this node counts as unreachable
	askPeerAgain   = 5 * time.Minute // for a dial back, after it tried in vain; twice that the next time,
	askPeerMost    = time.Hour       // up to this: a change of addresses is another matter
	askPeerSoon    = 2 * time.Second // after it could not try
	oddGap         = 5 * time.Second // between two looks, beyond which this node was stopped or asleep
	checkLimit     = 3 * time.Second // for a session to say anything, when it is doubted
	addrsEvery     = 2 * time.Second // how often own addresses are looked at
	aloneLong      = time.Minute     // with nobody there, after which this node proves anew that it can be reached
)

// Standing returns this node's place.
func (m *Mesh) Standing() Standing {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.standing
}

// A proof is what one peer's dial back came to.
type proof struct {
	peer id.Node
	err  error
}

// A placer decides when to ask whom for a dial back. It belongs to the tend goroutine.
type placer struct {
	asked   map[id.Node]time.Time // when this peer may be asked again
	refused map[id.Node]bool      // it tried in vain
	under   bool                  // a dial back is under way
	renew   bool                  // in the ring, and to be proven anew
	again   time.Duration         // until a peer that tried in vain is asked again
	proofs  chan proof            // capacity 1: one is under way
}

func newPlacer() *placer {
	return &placer{asked: map[id.Node]time.Time{}, refused: map[id.Node]bool{}, proofs: make(chan proof, 1), again: askPeerAgain}
}

// afresh forgets what peers tried: the network is another now.
func (p *placer) afresh() {
	clear(p.asked)
	clear(p.refused)
	p.renew, p.again = true, askPeerAgain
}

// place brings this node towards the ring, asking one peer in session at a time.
func (t *tender) place(ctx context.Context, open map[id.Node]bool, now time.Time) {
	m, p := t.m, t.placer
	standing := m.Standing()
	switch {
	case p.under || (standing == InRing && !p.renew) || m.cfg.Leaf:
		return
	case standing == Seeking && !m.KnowsOthers():
		m.stand(InRing) // who founds a mesh has nobody to ask
		return
	}
	for _, n := range id.Rank(m.self[:], keys(open)) {
		if now.Before(p.asked[n]) {
			continue
		}
		p.asked[n] = now.Add(p.again)
		p.under = true
		t.wg.Go(func() { p.proofs <- proof{n, m.proveReach(ctx, n)} })
		return
	}
}

// proven takes what a dial back came to.
func (t *tender) proven(ctx context.Context, got proof) {
	m, p := t.m, t.placer
	p.under = false
	switch {
	case ctx.Err() != nil:
		return
	case got.err == nil:
		clear(p.refused)
		p.renew = false
		m.stand(InRing)
		return
	case !errors.Is(got.err, errNotReached):
		p.asked[got.peer] = time.Now().Add(askPeerSoon)
		m.cfg.Log.Debug("dial back", "peer", got.peer.Short(), "error", got.err)
		return
	}
	p.refused[got.peer] = true
	if len(p.refused) < enoughRefusals && t.anotherToAsk() {
		return
	}
	p.renew = false
	if m.Standing() == AsLeaf {
		p.again = min(2*p.again, askPeerMost)
	} else {
		m.cfg.Log.Warn("this node is a leaf; it asks again", "error", got.err, "after", askPeerAgain, "then_up_to", askPeerMost)
	}
	m.stand(AsLeaf)
}

// anotherToAsk reports whether a peer in session has not tried yet.
func (t *tender) anotherToAsk() bool {
	return slices.ContainsFunc(t.m.inSession(), func(n id.Node) bool { return !t.placer.refused[n] })
}

// stand takes a place.
func (m *Mesh) stand(s Standing) {
	m.mu.Lock()
	was := m.standing
	m.standing = s
	var open []net.Conn
	if s == AsLeaf && was != AsLeaf {
		for _, one := range m.sessions { // they go on at another pace, with the attach point alone
			open = append(open, one.conn)
		}
	}
	m.mu.Unlock()
	for _, c := range open {
		_ = c.Close()
	}
	switch {
	case s == InRing:
		m.ring.Enter()
		m.detach(catalog.LeaseInRing)
	case s != was:
		m.ring.Leave()
	}
	m.tendSoon()
	m.notify()
}

// slept returns for how long this node was not there between two looks, by the steady clock and by the wall:
// one of them jumps when the machine was suspended, both when the process was stopped. Zero for none.
func slept(steady, wall time.Duration) time.Duration {
	gap := max(steady, wall)
	if gap < oddGap+tendEvery {
		return 0
	}
	return gap
}

// notice looks whether this node was away, or its addresses changed, and begins afresh if so.
func (t *tender) notice(open map[id.Node]bool, now time.Time) {
	m := t.m
	wall := m.cfg.Wall().Round(0)
	gap := time.Duration(0)
	if !t.looked.IsZero() {
		gap = slept(now.Sub(t.looked), wall.Sub(t.lookedWall))
	}
	t.looked, t.lookedWall = now, wall
	if gap > 0 {
		m.cfg.Log.Info("this node was away: it looks at all its links", "for", gap.Round(time.Second))
		t.afresh(open, now)
	}
	if now.Sub(t.addrsAt) >= addrsEvery {
		t.addrsAt = now
		addrs := m.link.Advertised()
		if t.addrs != nil && !slices.Equal(addrs, t.addrs) {
			m.cfg.Log.Info("own addresses changed: this node looks at all its links", "addresses", addrs)
			t.afresh(open, now)
		}
		t.addrs = addrs
	}
}

// afresh has everybody dialled again with no wait, doubts every open session, lets artifacts take other streams than
// those that are silent, and has this node's place proven anew. What works goes on.
func (t *tender) afresh(open map[id.Node]bool, now time.Time) {
	clear(t.dialled)
	clear(t.joined)
	t.placer.afresh()
	t.m.Wake()
	t.m.probePoints()
	for n := range open {
		t.doubt(n, now)
		t.m.swarm.DropSilent(n, now.Add(-heardLately))
	}
}

// doubt asks the peer of a session to say something; one that says nothing is closed by checkDoubts.
func (t *tender) doubt(n id.Node, now time.Time) {
	if t.listenFor(n, now) {
		t.m.catalog.Kick(n)
	}
}

// listenFor has the session of a peer that was asked something closed by checkDoubts if it says nothing. It reports
// whether nobody waited for that yet.
func (t *tender) listenFor(n id.Node, now time.Time) bool {
	if _, under := t.doubts[n]; under {
		return false
	}
	t.doubts[n] = now
	return true
}

// checkDoubts closes sessions whose peer was silent since it was doubted, and has artifacts take other streams.
func (t *tender) checkDoubts(now time.Time) {
	for n, since := range t.doubts {
		if now.Sub(since) < checkLimit {
			continue
		}
		delete(t.doubts, n)
		t.m.mu.Lock()
		s := t.m.sessions[n]
		t.m.mu.Unlock()
		if s != nil && s.opened.Before(since) && !heardSince(s.conn, since) {
			_ = s.conn.Close() // a stream to a node that is gone without a word
			t.m.swarm.DropSilent(n, since)
		}
	}
}

// heardSince reports whether anything came on a stream of link since then.
func heardSince(c net.Conn, since time.Time) bool {
	h, ok := c.(interface{ LastHeard() time.Time })
	return ok && !h.LastHeard().Before(since)
}
