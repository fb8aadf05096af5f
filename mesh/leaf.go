package mesh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/link"
	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

const (
	attachEvery  = time.Second      // tries of one attach point while this leaf has none
	standbyEvery = 10 * time.Second // tries of one for a standby
	notTakenFor  = time.Minute      // an attach point that refused is not asked for a standby again
	notTakenSoon = 5 * time.Second  // nor, while there is none at all, for the first place
	pongLimit    = 10 * time.Second // for the answer to a ping
	probeLimit   = 3 * time.Second  // for that of a ping out of turn
	countJump    = uint64(1) << 20  // by which a point may say that the own leases are ahead
	pointFrames  = 16               // that wait to be written to one attach point
)

// A point is an attach point of this leaf, with the session open.
type point struct {
	id   id.Node
	conn net.Conn
	out  chan lodgerFrame
	due  atomic.Int64 // the answer to the last ping, in nanoseconds since the Unix epoch of package time; 0: none

	reached chan reachedFrame // capacity 1: what came of a dial back
	ended   chan struct{}     // closed with the session

	standby bool             // guarded by Mesh.mu
	count   uint64           // guarded by Mesh.mu: of the last lease signed for it
	alive   map[id.Node]bool // guarded by Mesh.mu: the ring, as it tells
}

// lodge keeps this leaf attached to one point, with another one as standby.
func (t *tender) lodge(ctx context.Context, open map[id.Node]bool, now time.Time) {
	m := t.m
	m.mu.Lock()
	var active, standby *point
	for _, p := range m.points {
		if p.standby {
			standby = p
		} else {
			active = p
		}
	}
	resting := m.resting
	m.mu.Unlock()
	if resting {
		return
	}
	if active == nil && standby != nil {
		if m.promote(standby) {
			active, standby = standby, nil
		}
	}
	if active != nil && m.outrun(active) && t.due(leaseKey, standbyEvery, now) {
		t.dialled[leaseKey] = now
		m.renewLease(active)
	}
	if active != nil && !open[active.id] && t.due("sync/"+active.id.String(), attachEvery, now) {
		t.dial(ctx, "sync/"+active.id.String(), func(ctx context.Context) { m.openSession(ctx, active.id) })
	}
	if (active != nil && (standby != nil || m.cfg.LeafPoll > 0)) || t.dialling[attachKey] {
		return
	}
	every, wait := attachEvery, notTakenSoon
	if active != nil {
		every, wait = standbyEvery, notTakenFor
	}
	if !t.due(attachKey, every, now) {
		return
	}
	targets := t.pointsToTry(active, now)
	if len(targets) == 0 {
		return
	}
	t.dial(ctx, attachKey, func(ctx context.Context) {
		for _, to := range targets {
			err := m.attach(ctx, to, active != nil)
			if err == nil || ctx.Err() != nil {
				return
			}
			m.cfg.Log.Debug("attach", "to", to, "error", err)
			if errors.Is(err, errNotTaken) {
				m.mu.Lock()
				m.notTaken[to], m.notTakenWhy = time.Now().Add(wait), err.Error()
				m.mu.Unlock()
			}
		}
	})
}

const (
	attachKey   = "attach" // of tender.dialling: one attach at a time
	leaseKey    = "lease"  // of tender.due
	pointsAtAll = 4        // attach points that one try asks
)

// pointsToTry lists whom to ask, as node id or HOST:PORT: ring members that the attach point tells of, then
// those last seen, then seeds.
func (t *tender) pointsToTry(active *point, now time.Time) []string {
	m := t.m
	alive, _ := m.inRing()
	delete(alive, m.self)
	if active != nil {
		delete(alive, active.id)
	}
	var out []string
	for _, n := range id.Rank(m.self[:], keys(alive)) {
		out = append(out, n.String())
	}
	if active == nil {
		for _, p := range m.absent(nil, nil) {
			if m.absentLeaf(p.ID) {
				continue
			}
			out = append(out, p.ID.String())
		}
		out = append(out, m.cfg.Seeds...)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	out = slices.DeleteFunc(out, func(to string) bool { return now.Before(m.notTaken[to]) })
	// All have their turn: a try begins where the last one ended.
	if len(out) > pointsAtAll {
		from := t.tried % len(out)
		t.tried += pointsAtAll
		out = append(slices.Clone(out[from:]), out[:from]...)[:pointsAtAll]
	}
	return out
}

// NotTaken says why the member that was asked last does not take this leaf in; "" while one does, or none answered.
func (m *Mesh) NotTaken() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.standing != AsLeaf || len(m.points) > 0 {
		return ""
	}
	return m.notTakenWhy
}

// absentLeaf reports whether n was heard to be a leaf: nobody can attach to it.
func (m *Mesh) absentLeaf(n id.Node) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.leases[n]
	return l != nil && l.state != catalog.LeaseInRing
}

// attach asks one node to take this leaf in; it returns once it did, and the session goes on by itself.
func (m *Mesh) attach(ctx context.Context, to string, standby bool) error {
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, n, err := m.dialPoint(dialCtx, to)
	if err != nil {
		return err
	}
	_ = c.SetDeadline(time.Now().Add(reachLimit))
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	p := &point{
		id: n, conn: c, standby: standby, alive: map[id.Node]bool{n: true}, out: make(chan lodgerFrame, pointFrames),
		reached: make(chan reachedFrame, 1), ended: make(chan struct{}),
	}
	err = sendAttach(c, frameAttach, &emptyFrame{})
	if err == nil {
		err = m.askLease(p)
	}
	if err == nil {
		_, err = readAttach[emptyFrame](c, frameTaken)
	}
	if err == nil {
		err = m.settle(ctx, p)
	}
	if err != nil {
		_ = c.Close()
	}
	return err
}

// dialPoint opens attach/1 with a node of that id, or whichever answers at HOST:PORT or ID@HOST:PORT.
func (m *Mesh) dialPoint(ctx context.Context, to string) (net.Conn, id.Node, error) {
	if n, err := id.Parse(to); err == nil {
		c, err := m.link.Dial(ctx, n, protoAttach)
		return c, n, err
	}
	want, addr, named := strings.Cut(to, "@")
	if !named {
		addr = to
	}
	c, cert, err := m.link.DialAddr(ctx, addr, protoAttach)
	if err != nil {
		return nil, id.Node{}, err
	}
	if named && cert.ID.String() != want {
		_ = c.Close() // nothing was said on it
		return nil, id.Node{}, fmt.Errorf("node %s answers at %s", cert.ID.Short(), to)
	}
	return c, cert.ID, nil
}

// askLease shows the point a lease with the count that it asks for.
func (m *Mesh) askLease(p *point) error {
	offer, err := readAttach[offerFrame](p.conn, frameOffer)
	if err != nil {
		return err
	}
	b, err := m.newLease(p, offer.Next)
	if err != nil {
		return err
	}
	return sendAttach(p.conn, frameLease, &leaseFrame{b, p.standby})
}

// newLease signs a lease at p, with a count that is above all that this node signed or heard, and above
// least unless that is beyond belief.
func (m *Mesh) newLease(p *point, least uint64) ([]byte, error) {
	next := m.nextCount(m.self)
	next = max(next, min(least, next+countJump))
	m.mu.Lock()
	m.leaseCount, p.count = next, next
	m.mu.Unlock()
	return trust.SignLease(trust.Lease{At: p.id, Count: next, Lasts: m.leaseTime()}, m.cfg.Identity)
}

// settle makes p one of the points, and keeps its session in the background.
func (m *Mesh) settle(ctx context.Context, p *point) error {
	if err := p.conn.SetDeadline(time.Time{}); err != nil {
		return err
	}
	link.Quiet(p.conn, leafProbe)
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil || m.offline || m.resting || m.standing != AsLeaf {
		return errors.New("this node is no leaf any more, or rests")
	}
	if old := m.points[p.id]; old != nil {
		_ = old.conn.Close()
	}
	m.points[p.id] = p
	m.running.Go(func() { m.stay(ctx, p) })
	m.cfg.Log.Info("attached", "to", p.id.Short(), "standby", p.standby)
	return nil
}

// promote makes the standby the attach point.
func (m *Mesh) promote(p *point) bool {
	if !m.renewLease(p) {
		return false
	}
	m.mu.Lock()
	p.standby = false
	m.mu.Unlock()
	m.cfg.Log.Info("the standby is the attach point now", "node", p.id.Short())
	m.notify()
	return true
}

// renewLease shows p a lease that makes it the attach point, above all that this leaf heard of.
func (m *Mesh) renewLease(p *point) bool {
	b, err := m.newLease(p, 0)
	if err != nil {
		m.cfg.Log.Error("a lease can't be signed", "error", err)
		return false
	}
	return p.queue(frameLease, &leaseFrame{Lease: b})
}

func (p *point) queue(kind byte, body any) bool {
	select {
	case p.out <- lodgerFrame{kind, body}:
		return true
	default:
		_ = p.conn.Close() // it reads nothing: another one will
		return false
	}
}

// probe asks a point for a sign of life within the limit.
func (p *point) probe(limit time.Duration) {
	due := time.Now().Add(limit)
	if old := p.due.Load(); old != 0 && old < due.UnixNano() {
		return
	}
	p.due.Store(due.UnixNano())
	_ = p.conn.SetReadDeadline(due)
	p.queue(framePing, &emptyFrame{})
}

// stay keeps the session with a point until it ends, then closes what else is open with it.
func (m *Mesh) stay(ctx context.Context, p *point) {
	defer close(p.ended)
	m.tendSoon()
	life := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.writePoint(ctx, p)
		_ = p.conn.Close() // ends the reader too
	}()
	err := m.readPoint(ctx, p)
	_ = p.conn.Close()
	cancel()
	<-done
	m.mu.Lock()
	if m.points[p.id] == p {
		delete(m.points, p.id)
	}
	if s := m.sessions[p.id]; s != nil && m.standing == AsLeaf {
		_ = s.conn.Close() // it would go on for minutes with a node that is gone
	}
	m.mu.Unlock()
	if life.Err() == nil {
		m.cfg.Log.Info("the session with an attach point ended", "node", p.id.Short(), "error", err)
	}
	m.tendSoon()
	m.notify()
}

// writePoint sends what waits, and pings, until the session ends; at the end of ctx it says goodbye.
func (m *Mesh) writePoint(ctx context.Context, p *point) {
	ping := time.NewTicker(leafPing)
	defer ping.Stop()
	pings := 0
	send := func(f lodgerFrame) bool {
		_ = p.conn.SetWriteDeadline(time.Now().Add(lodgerWrite))
		return sendAttach(p.conn, f.kind, f.body) == nil
	}
	for {
		select {
		case <-ctx.Done():
			_ = p.conn.SetWriteDeadline(time.Now().Add(time.Second))
			_ = sendAttach(p.conn, frameBye, &byeFrame{catalog.LeaseOver}) // else the point sees the stream end
			return
		case f := <-p.out:
			if !send(f) || f.kind == frameBye {
				return
			}
		case <-ping.C:
			pings++
			m.mu.Lock()
			standby := p.standby
			m.mu.Unlock()
			if !standby || pings%standbyPings == 0 {
				p.probe(pongLimit)
			}
		}
	}
}

// readPoint takes what a point says until the stream ends.
func (m *Mesh) readPoint(ctx context.Context, p *point) error {
	for {
		kind, b, err := wire.ReadFrame(p.conn, attachBytes)
		if err != nil {
			return err
		}
		if p.due.Swap(0) != 0 {
			_ = p.conn.SetReadDeadline(time.Time{})
		}
		switch kind {
		case framePong:
			f, err := parseAttach[pongFrame](b)
			if err != nil {
				return err
			}
			m.heardRoot(p.id, f.Root)
		case frameReached:
			f, err := parseAttach[reachedFrame](b)
			if err != nil {
				return err
			}
			select {
			case p.reached <- f:
			default: // nobody asked
			}
		case frameMembers:
			f, err := parseAttach[membersFrame](b)
			if err != nil {
				return err
			}
			if err := m.ringTold(p, f); err != nil {
				return err
			}
		case frameCall:
			f, err := parseAttach[callFrame](b)
			if err != nil {
				return err
			}
			m.running.Go(func() { m.answerCall(ctx, p, f) })
		default:
			return fmt.Errorf("frame of kind %d from an attach point: %w", kind, wire.ErrMalformed)
		}
	}
}

func (m *Mesh) answerCall(ctx context.Context, p *point, f callFrame) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	err := fmt.Errorf("a stream of %q can't be asked for: %w", f.Proto, errNotTaken)
	switch f.Proto {
	case protoSwarm, protoAsk:
		err = m.link.Answer(ctx, p.id, f.Token, f.Proto)
	case link.ProtoRelay:
		err = m.link.AnswerRelay(ctx, p.id, f.Token, protoAsk)
	}
	if err != nil && ctx.Err() == nil {
		m.cfg.Log.Debug("call", "peer", p.id.Short(), "error", err)
	}
}

// maxRing bounds what a leaf believes of the size of a ring.
const maxRing = 1 << 17

// ringTold takes who came and went in the ring. What the standby says of the attach point's death has that one
// asked for a sign of life.
func (m *Mesh) ringTold(p *point, f membersFrame) error {
	m.mu.Lock()
	for _, n := range f.Up {
		p.alive[n] = true
	}
	var doubted []*point
	for _, n := range f.Down {
		if n != p.id {
			delete(p.alive, n)
		}
		if other := m.points[n]; other != nil && n != p.id {
			doubted = append(doubted, other)
		}
	}
	size := len(p.alive)
	m.ringHeard(p)
	m.mu.Unlock()
	for _, other := range doubted {
		other.probe(probeLimit)
	}
	if size > maxRing {
		return &wire.LimitError{What: "members of a ring", Limit: maxRing, Got: size}
	}
	m.tendSoon()
	m.notify()
	return nil
}

// Here is the address from which this leaf reaches its attach point; "" while it has none, and in the ring.
func (m *Mesh) Here() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.points {
		if host, _, err := net.SplitHostPort(p.conn.LocalAddr().String()); err == nil && !p.standby {
			return host
		}
	}
	return ""
}

// detach ends the sessions with all points; state says why.
func (m *Mesh) detach(state uint8) {
	m.mu.Lock()
	points := make([]*point, 0, len(m.points))
	for _, p := range m.points {
		points = append(points, p)
	}
	m.mu.Unlock()
	for _, p := range points {
		p.queue(frameBye, &byeFrame{state})
	}
}

// probePoints asks all points for a sign of life.
func (m *Mesh) probePoints() {
	m.mu.Lock()
	points := make([]*point, 0, len(m.points))
	for _, p := range m.points {
		points = append(points, p)
	}
	m.mu.Unlock()
	for _, p := range points {
		p.probe(probeLimit)
	}
}
