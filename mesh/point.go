package mesh

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"net"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/link"
	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

// Limits of an attach point.
const (
	maxLodgers   = 64                // leaves that one node takes, standbys included (SPEC, notes/gossip.md)
	lodgerFrames = 64                // that wait to be written to one leaf
	lodgerWrite  = 10 * time.Second  // for one frame
	leafPing     = 280 * time.Second // how often a leaf says that it is there: what stands between forgets idle streams after 5 minutes
	standbyPings = 3                 // times rarer to a standby: if that is forgotten, another one is dialled
	leafSilence  = 3 * leafPing      // after which an attach point gives a leaf up, a standby later
	leafPace     = time.Hour         // between comparisons of catalogs with a leaf: pongs tell of unlike roots
	leafProbe    = 20 * time.Minute  // of the system, on streams of a leaf where something else is said more often
	lostPatience = 3 * time.Second   // before it is told that a leaf was lost: it may be back
	restartGrace = 15 * time.Second  // for leaves to come back to an attach point that began anew
	leaseEvery   = 2 * time.Second   // lease records of one leaf
)

// errNotTaken is wrapped where a node does not take a leaf.
var errNotTaken = errors.New("not taken in")

// A lodger is a leaf that is attached here.
type lodger struct {
	peer id.Node
	conn net.Conn
	out  chan lodgerFrame
	kick chan struct{} // capacity 1: who is alive may have changed

	standby bool // guarded by Mesh.mu: this node is its second choice
}

type lodgerFrame struct {
	kind byte
	body any
}

// serveLeaf takes a leaf in until it goes.
func (m *Mesh) serveLeaf(ctx context.Context, peer trust.Cert, c net.Conn) error {
	m.reachedByLeaf()
	if reason := m.fullFor(peer.ID); reason != "" {
		return sendAttach(c, frameRefused, &refusedFrame{reason})
	}
	if err := sendAttach(c, frameOffer, &offerFrame{m.nextCount(peer.ID)}); err != nil {
		return err
	}
	said, err := readAttach[leaseFrame](c, frameLease)
	if err != nil {
		return err
	}
	signed, err := m.checkLease(peer, said.Lease)
	if err != nil {
		return errors.Join(err, sendAttach(c, frameRefused, &refusedFrame{cutText(err.Error(), 400)}))
	}
	l := &lodger{peer: peer.ID, conn: c, standby: said.Standby, out: make(chan lodgerFrame, lodgerFrames), kick: make(chan struct{}, 1)}
	if reason := m.takeIn(l); reason != "" {
		return sendAttach(c, frameRefused, &refusedFrame{reason})
	}
	if err := sendAttach(c, frameTaken, &emptyFrame{}); err != nil {
		m.letGo(l, 0)
		return err
	}
	link.Quiet(c, leafProbe)
	m.swarm.DropSilent(peer.ID, time.Now().Add(-heardLately)) // it may have come from somewhere else than before
	undo := m.link.Through(peer.ID, l.call)
	if !said.Standby {
		m.let(signed, said.Lease, catalog.LeaseHere, 0)
	}
	m.tendSoon()
	m.notify()
	written := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer close(written)
		m.writeLodger(ctx, l)
		_ = c.Close() // ends the reader too
	}()
	state, err := m.readLodger(ctx, peer, l)
	cancel()
	_ = c.Close()
	<-written
	undo()
	m.letGo(l, state)
	m.tendSoon()
	m.notify()
	return err
}

// reachedByLeaf lets a node that seeks into the ring where nobody is there who could dial it back: that a leaf came from
// outside shows the same, and leaves answer no dial back.
func (m *Mesh) reachedByLeaf() {
	if m.Standing() == Seeking && !m.Attached() {
		m.stand(InRing)
	}
}

// fullFor says why this node takes no leaf now; "" if it does.
func (m *Mesh) fullFor(n id.Node) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fullLocked(n)
}

func (m *Mesh) fullLocked(n id.Node) string {
	switch {
	case m.standing != InRing:
		return "this node is not in the ring itself"
	case m.lodgers[n] == nil && len(m.lodgers) >= maxLodgers:
		return fmt.Sprintf("full: %d leaves are attached here", len(m.lodgers))
	}
	return ""
}

// checkLease judges a lease that a leaf shows. A lie is refused, named and counted.
func (m *Mesh) checkLease(peer trust.Cert, b []byte) (trust.Lease, error) {
	leaf := peer.ID
	l, err := trust.ParseLease(b, func(n id.Node) ed25519.PublicKey {
		if n == leaf {
			return peer.Key // its certificate may not be in the catalog yet
		}
		return m.keyOf(n)
	})
	next := m.nextCount(leaf)
	switch {
	case err != nil:
	case l.Leaf != leaf:
		err = fmt.Errorf("lease of %s, shown by %s", l.Leaf.Short(), leaf.Short())
	case l.At != m.self:
		err = fmt.Errorf("lease of %s: it is for attach point %s", leaf.Short(), l.At.Short())
	case l.Count < next:
		err = fmt.Errorf("lease of %s has count %d, and %d was heard: a replay", leaf.Short(), l.Count, next-1)
	default:
		return l, nil
	}
	err = fmt.Errorf("%w: %w", errLie, err)
	m.refuseLease(leaf, leaf.String(), l.Count, err)
	return trust.Lease{}, err
}

// takeIn makes l the one lodger of its leaf, or says why not.
func (m *Mesh) takeIn(l *lodger) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if reason := m.fullLocked(l.peer); reason != "" {
		return reason
	}
	if old := m.lodgers[l.peer]; old != nil {
		_ = old.conn.Close()
	}
	m.lodgers[l.peer] = l
	return ""
}

// letGo forgets a lodger; state is what it said at the end, 0 for nothing.
func (m *Mesh) letGo(l *lodger, state uint8) {
	m.mu.Lock()
	current := m.lodgers[l.peer] == l
	if current {
		delete(m.lodgers, l.peer)
	}
	standby := l.standby
	m.mu.Unlock()
	if !current || standby {
		return
	}
	if state == 0 {
		m.changeLet(l.peer, catalog.LeaseAway, lostPatience)
	} else {
		m.changeLet(l.peer, state, 0)
	}
}

// call asks the leaf for a stream. It does not wait.
func (l *lodger) call(token [16]byte, proto string) error {
	return l.queue(frameCall, &callFrame{token, proto})
}

// queue has a frame written to the leaf. It does not wait.
func (l *lodger) queue(kind byte, body any) error {
	select {
	case l.out <- lodgerFrame{kind, body}:
		return nil
	default:
		return fmt.Errorf("leaf %s does not read: %d frames wait, the limit", l.peer.Short(), lodgerFrames)
	}
}

// readLodger takes what the leaf says until the stream ends.
func (m *Mesh) readLodger(ctx context.Context, peer trust.Cert, l *lodger) (state uint8, err error) {
	for {
		if err := l.conn.SetReadDeadline(time.Now().Add(m.silenceOf(l))); err != nil {
			return 0, err
		}
		kind, b, err := wire.ReadFrame(l.conn, attachBytes)
		if err != nil {
			return 0, err
		}
		switch kind {
		case framePing:
			if _, err := parseAttach[emptyFrame](b); err != nil {
				return 0, err
			}
			if err := l.queue(framePong, &pongFrame{m.root8()}); err != nil {
				return 0, err
			}
		case frameReach:
			ask, err := parseAttach[reachFrame](b)
			if err != nil {
				return 0, err
			}
			m.running.Go(func() { m.reachLodger(ctx, l, ask) })
		case frameLease:
			said, err := parseAttach[leaseFrame](b)
			if err != nil {
				return 0, err
			}
			signed, err := m.checkLease(peer, said.Lease)
			if err != nil {
				return 0, err
			}
			m.mu.Lock()
			l.standby = said.Standby
			m.mu.Unlock()
			m.swarm.DropSilent(peer.ID, time.Now().Add(-heardLately))
			if !said.Standby {
				m.let(signed, said.Lease, catalog.LeaseHere, 0)
			}
			m.notify()
		case frameBye:
			said, err := parseAttach[byeFrame](b)
			if err == nil && (said.State < catalog.LeaseAway || said.State > catalog.LeaseInRing) {
				err = fmt.Errorf("a goodbye with state %d: %w", said.State, wire.ErrMalformed)
			}
			return said.State, err
		default:
			return 0, fmt.Errorf("frame of kind %d from a leaf: %w", kind, wire.ErrMalformed)
		}
	}
}

// silenceOf is how long a leaf may say nothing.
func (m *Mesh) silenceOf(l *lodger) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l.standby {
		return standbyPings * leafSilence
	}
	return leafSilence
}

// writeLodger sends the leaf what waits, and who is alive in the ring, until ctx ends or the stream fails.
func (m *Mesh) writeLodger(ctx context.Context, l *lodger) {
	told := map[id.Node]bool{}
	for {
		for _, f := range m.ringNews(told) {
			if !l.send(frameMembers, f) {
				return
			}
		}
		select {
		case <-ctx.Done():
			return
		case f := <-l.out:
			if !l.send(f.kind, f.body) {
				return
			}
		case <-l.kick:
		}
	}
}

func (l *lodger) send(kind byte, body any) bool {
	_ = l.conn.SetWriteDeadline(time.Now().Add(lodgerWrite))
	return sendAttach(l.conn, kind, body) == nil
}

// ringNews is what of the ring differs from told, which it brings up to date.
func (m *Mesh) ringNews(told map[id.Node]bool) []*membersFrame {
	alive, _ := m.inRing()
	var frames []*membersFrame
	f := &membersFrame{}
	full := func() {
		if len(f.Up)+len(f.Down) == membersPerFrame {
			frames = append(frames, f)
			f = &membersFrame{}
		}
	}
	for _, n := range keys(alive) {
		if !told[n] {
			told[n] = true
			f.Up = append(f.Up, n)
			full()
		}
	}
	for _, n := range keys(maps.Clone(told)) {
		if !alive[n] {
			delete(told, n)
			f.Down = append(f.Down, n)
			full()
		}
	}
	if len(f.Up)+len(f.Down) > 0 {
		frames = append(frames, f)
	}
	return frames
}

// kickLodgers has every leaf told of who came and went.
func (m *Mesh) kickLodgers() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.lodgers {
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
}

// AttachedHere reports whether this node is the attach point of leaf n, and its session is open.
func (m *Mesh) AttachedHere(n id.Node) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.lodgers[n]
	return l != nil && !l.standby
}
