package mesh

import (
	"context"
	"net"
	"strings"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/link"
	"meshd/mesh/trust"
)

// A session is an open sync stream with one peer.
type session struct {
	conn    net.Conn
	dialler id.Node   // who opened it: of two at once, both ends keep the smaller id's
	started time.Time // by the wall clock, as the ring tells its times
	opened  time.Time // by the steady one
}

// atOnce is how close the openings of two sessions are that both ends dialled; more than dialTimeout.
const atOnce = 3 * time.Second

// heardLately is how fresh a word on a stream is that shows, when all streams of its peer are in doubt, that it works.
const heardLately = time.Second

// staysBeside reports whether this session stays when a stream of dialler comes beside it. It does if both ends dialled
// at once and whoever dialled this one has the smaller id; whoever dials later has no session any more, whatever this
// end believes.
func (s *session) staysBeside(dialler id.Node, now time.Time) bool {
	return s.dialler != dialler && s.dialler.Compare(dialler) < 0 && now.Sub(s.opened) < atOnce
}

// openSession dials n and starts a sync session; it returns when the dial did, not the session.
func (m *Mesh) openSession(ctx context.Context, n id.Node) {
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := m.link.Dial(dialCtx, n, protoSync)
	if err != nil {
		m.cfg.Log.Debug("dial", "peer", n.Short(), "error", err)
		return
	}
	m.startSession(ctx, n, c)
}

// openSeed dials HOST:PORT or ID@HOST:PORT.
func (m *Mesh) openSeed(ctx context.Context, seed string) {
	dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	want, addr, named := strings.Cut(seed, "@")
	if !named {
		addr = seed
	}
	c, cert, err := m.link.DialAddr(dialCtx, addr, protoSync)
	if err != nil {
		m.cfg.Log.Debug("dial", "seed", seed, "error", err)
		return
	}
	if cert.ID == m.self || (named && cert.ID.String() != want) {
		if cert.ID != m.self {
			m.cfg.Log.Warn("another node answers at a seed", "seed", seed, "node", cert.ID)
		}
		_ = c.Close() // nothing was said on it
		return
	}
	m.startSession(ctx, cert.ID, c)
}

// startSession runs a session in the background of the mesh's life; one a peer, the newer one stays.
func (m *Mesh) startSession(ctx context.Context, n id.Node, c net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil || m.offline {
		_ = c.Close()
		return
	}
	m.running.Go(func() { m.runSession(ctx, n, c, m.self) })
}

func (m *Mesh) serveSync(ctx context.Context, p trust.Cert, c net.Conn) {
	m.runSession(ctx, p.ID, c, p.ID)
}

func (m *Mesh) runSession(ctx context.Context, n id.Node, c net.Conn, dialler id.Node) {
	s := &session{conn: c, dialler: dialler, started: m.cfg.Wall(), opened: time.Now()}
	m.mu.Lock()
	if old := m.sessions[n]; old != nil {
		if old.staysBeside(dialler, s.opened) {
			m.mu.Unlock()
			_ = c.Close() // both dialled at once: the other stream stays
			return
		}
		_ = old.conn.Close()
		m.swarm.DropSilent(n, s.opened.Add(-heardLately))
	}
	m.sessions[n] = s
	m.opened++
	m.mu.Unlock()
	m.tendSoon()
	m.notify()
	err := m.paced(n)(ctx, c, n)
	_ = c.Close() // the session is over either way
	m.mu.Lock()
	if m.sessions[n] == s {
		delete(m.sessions, n)
		delete(m.unlike, n)
	}
	m.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		m.cfg.Log.Debug("sync session ended", "peer", n.Short(), "error", err)
	}
	if ctx.Err() == nil {
		m.probePoints() // of a leaf: what ended one stream may have silenced the others
	}
	m.tendSoon()
	m.notify()
}

// paced is how a session with n is run: with a leaf seldom, so that it may sleep.
func (m *Mesh) paced(n id.Node) func(context.Context, net.Conn, id.Node) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	idle := leafProbe
	switch {
	case m.points[n] != nil:
		idle = leafPing // nothing else is said on it, and what stands between forgets it
	case m.lodgers[n] == nil:
		return m.catalog.Session
	}
	return func(ctx context.Context, c net.Conn, n id.Node) error {
		link.Quiet(c, idle)
		return m.catalog.PacedSession(ctx, c, n, leafPace)
	}
}

func (m *Mesh) closeSessions() {
	m.mu.Lock()
	for _, s := range m.sessions {
		_ = s.conn.Close()
	}
	m.mu.Unlock()
	m.running.Wait()
}
