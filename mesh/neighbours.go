package mesh

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/link"
	"meshd/mesh/ring"
)

const (
	maxNeighbours = 8               // open sync sessions that this node starts (SPEC 5)
	tendEvery     = time.Second     // how often neighbours are looked at with no event
	redialRecent  = 16              // absent peers, most recently seen first, that are redialled fast
	redialEvery   = 4 * time.Second // how often those are
	redialSlow    = time.Minute     // and the others, one at a time
	dialTimeout   = 2 * time.Second
	compareEvery  = 5 * time.Second  // at most, for one peer whose root is unlike
	randomCompare = 60 * time.Second // with a random neighbour, hint or not
	rejoinEvery   = 2 * time.Second  // joins of a peer that is in session and not in the ring
	buryEvery     = time.Hour        // looks for nodes that were unseen for 90 days
	joinPatience  = time.Second      // before the side that did not dial joins: who dialled does so at once
	slowAtOnce    = 4                // absent peers beyond the recent ones that one look dials
)

// tend is the goroutine that owns whom to talk to: it opens sessions with neighbours, joins the ring
// through them, and dials absent peers from the book.
func (m *Mesh) tend(ctx context.Context) error {
	t := &tender{m: m, rand: newRand(m.cfg.Seed ^ 0x7e4d), dialled: map[string]time.Time{}, joined: map[id.Node]time.Time{}, dialling: map[string]bool{}, done: make(chan string, 64), placer: newPlacer(), doubts: map[id.Node]time.Time{}}
	defer t.wg.Wait()
	ticker := time.NewTicker(tendEvery)
	defer ticker.Stop()
	for {
		t.look(ctx)
		select {
		case <-ctx.Done():
			m.closeSessions()
			return nil
		case <-ticker.C:
		case <-t.hintsDue():
		case <-m.kick:
		case key := <-t.done:
			delete(t.dialling, key)
		case got := <-t.placer.proofs:
			t.proven(ctx, got)
		}
	}
}

// tender is what only the tend goroutine touches.
type tender struct {
	m        *Mesh
	rand     *rand.Rand
	dialled  map[string]time.Time // last try, by peer id or seed
	joined   map[id.Node]time.Time
	dialling map[string]bool
	compared time.Time
	done     chan string
	wg       sync.WaitGroup
	placer   *placer
	doubts   map[id.Node]time.Time // sessions that are to show that they live, and since when

	away               bool      // by the operator's wish
	looked, lookedWall time.Time // when tend last looked
	addrs              []string  // own, at addrsAt
	addrsAt            time.Time
	met                time.Time // when somebody was last there
	tried              int       // attach points, of all that could be

	hinted time.Time // when hints are due; zero: not
	buried time.Time // when the long dead were last looked for
}

func (t *tender) look(ctx context.Context) {
	m := t.m
	t.hinted = time.Time{} // who is offline or a leaf passes none
	failed := map[id.Node]time.Time{}
	for _, member := range m.ring.Members() {
		if member.Status == ring.Failed {
			failed[member.ID] = member.Since
		}
	}
	m.mu.Lock()
	offline, standing := m.offline, m.standing
	open := make(map[id.Node]bool, len(m.sessions))
	fresh := map[id.Node]bool{} // that the peer opened a moment ago: it is about to join
	now := time.Now()
	var silent []id.Node
	for n, s := range m.sessions {
		if since, dead := failed[n]; dead && s.started.Before(since) {
			silent = append(silent, n)
		}
		open[n] = true
		fresh[n] = s.dialler == n && now.Sub(s.opened) < joinPatience
	}
	m.mu.Unlock()
	if offline || ctx.Err() != nil {
		t.looked, t.away = time.Time{}, true
		return
	}
	if t.away {
		t.away = false
		t.afresh(open, now)
	}
	t.notice(open, now)
	for _, n := range silent {
		t.doubt(n, now)
	}
	t.checkDoubts(now)
	t.alone(open, now)
	t.place(ctx, open, now)
	if m.Standing() == AsLeaf {
		t.lodge(ctx, open, now)
		t.bury(now)
		return
	}
	alive, _ := m.inRing()
	delete(alive, m.self)

	// Neighbours: everybody in a small ring, the best ranked of a large one.
	near := id.Rank(m.self[:], keys(alive))
	if len(near) > maxNeighbours {
		near = near[:maxNeighbours]
	}
	for _, n := range near {
		if !open[n] && t.due(n.String(), tendEvery, now) {
			t.dial(ctx, n.String(), func(ctx context.Context) { m.openSession(ctx, n) })
		}
	}
	// Whoever is in session and not in the ring belongs in it: a newcomer, or the far side of a healed split.
	for n := range open {
		if standing == InRing && !alive[n] && !fresh[n] && !m.lodges(n) && now.Sub(t.joined[n]) >= rejoinEvery {
			t.joined[n] = now
			t.wg.Go(func() {
				if _, err := m.ring.Join(ctx, []id.Node{n}); err != nil && ctx.Err() == nil {
					m.cfg.Log.Debug("join", "peer", n.Short(), "error", err)
				}
			})
		}
	}
	t.dialAbsent(ctx, alive, open, now)
	if len(near) > 0 && now.Sub(t.compared) >= randomCompare {
		t.compared = now
		m.catalog.Kick(near[t.rand.IntN(len(near))])
	}
	var asked map[id.Node]bool
	t.hinted, asked = m.passHints(now, len(alive)+1, t.rand)
	for n := range asked { // on a stream that died without a word no answer comes; a leaf may be asleep
		if !m.lodges(n) {
			t.listenFor(n, now)
		}
	}
	t.bury(now)
}

// hintsDue fires when hints are to be looked at before the next tick.
func (t *tender) hintsDue() <-chan time.Time {
	if t.hinted.IsZero() {
		return nil
	}
	return time.After(max(time.Until(t.hinted), time.Millisecond))
}

// bury lets what is known of the long dead age out. Who is alive or in session was seen now.
func (t *tender) bury(now time.Time) {
	m := t.m
	if t.buried.IsZero() {
		t.buried = now // not at once: after a start nobody was seen yet
	}
	if now.Sub(t.buried) < buryEvery {
		return
	}
	t.buried = now
	wall, alive, seen := m.cfg.Wall(), m.Alive(), map[id.Node]time.Time{}
	for _, p := range m.link.Peers() {
		seen[p.ID] = p.LastSeen
	}
	if _, err := m.catalog.Bury(wall, func(n id.Node) time.Time {
		if alive[n] {
			return wall
		}
		return seen[n]
	}); err != nil {
		m.cfg.Log.Warn("nothing ages out of the catalog", "error", err)
	}
}

// alone notes how long nobody was there. Who comes back after a minute of that may be somewhere else.
func (t *tender) alone(open map[id.Node]bool, now time.Time) {
	if len(open) == 0 {
		return
	}
	if !t.met.IsZero() && now.Sub(t.met) >= aloneLong {
		t.placer.afresh()
	}
	t.met = now
}

// dialAbsent tries seeds and the peers of the book that are neither alive nor in session.
func (t *tender) dialAbsent(ctx context.Context, alive, open map[id.Node]bool, now time.Time) {
	m := t.m
	if len(alive) == 0 && len(open) == 0 {
		for _, seed := range m.cfg.Seeds {
			if t.due(seed, redialEvery/2, now) {
				t.dial(ctx, seed, func(ctx context.Context) { m.openSeed(ctx, seed) })
			}
		}
	}
	for _, n := range t.redials(m.absent(alive, open), now) {
		t.dial(ctx, n.String(), func(ctx context.Context) { m.openSession(ctx, n) })
	}
}

// absent lists the peers of the book that are neither alive nor in session, the most recently seen first.
func (m *Mesh) absent(alive, open map[id.Node]bool) []link.Peer {
	peers := slices.DeleteFunc(m.link.Peers(), func(p link.Peer) bool {
		return p.ID == m.self || m.absentLeaf(p.ID) || alive[p.ID] || open[p.ID] || len(p.Addrs) == 0 || (p.Cert != nil && m.catalog.Revoked(p.Cert.Key))
	})
	slices.SortFunc(peers, func(a, b link.Peer) int { return b.LastSeen.Compare(a.LastSeen) })
	return peers
}

// redials picks whom of the absent to dial now: the most recently seen all at once and often, of the others a
// few, so that each has its turn.
func (t *tender) redials(absent []link.Peer, now time.Time) []id.Node {
	var out []id.Node
	slow := 0
	for i, p := range absent {
		every := redialEvery
		if i >= redialRecent {
			every = max(redialSlow, time.Duration(len(absent)/slowAtOnce)*tendEvery)
		}
		if slow >= slowAtOnce || !t.due(p.ID.String(), every, now) {
			continue
		}
		if i >= redialRecent {
			slow++
		}
		out = append(out, p.ID)
	}
	return out
}

// due reports whether key may be dialled again, with jitter so that many nodes don't dial as one.
func (t *tender) due(key string, every time.Duration, now time.Time) bool {
	if t.dialling[key] {
		return false
	}
	last, tried := t.dialled[key]
	jitter := time.Duration(t.rand.Int64N(int64(every)/4 + 1))
	return !tried || now.Sub(last) >= every-jitter
}

func (t *tender) dial(ctx context.Context, key string, do func(context.Context)) {
	t.dialled[key] = time.Now()
	t.dialling[key] = true
	t.wg.Go(func() {
		do(ctx)
		select {
		case t.done <- key:
		case <-ctx.Done():
		}
	})
}

// listen moves what the ring and the catalog tell into one kick for the agent, and what the catalog knows
// of certificates and addresses into the peer book.
func (m *Mesh) listen(ctx context.Context) error {
	var taught [33]byte
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.ring.Changed():
			m.tendSoon()
			m.kickLodgers()
		case <-m.catalog.Changed():
			if root := m.catalog.Root(); root != taught {
				taught = root
				m.teachBook()
				m.learnLeases()
			}
			m.link.DropRevoked()
		}
		m.swarm.Kick()
		m.notify()
	}
}

// teachBook tells the link of every certified node and where it says it is.
func (m *Mesh) teachBook() {
	said := m.sayings()
	for _, r := range m.catalog.Live(catalog.ScopeNodes, catalog.KindCert, "") {
		n := r.Log.Origin
		if n == m.self {
			continue
		}
		if cert, ok := m.catalog.Cert(n); ok && !m.catalog.Revoked(cert.Key) {
			m.link.Learn(*cert, said[n].body.Addrs)
		}
	}
}

// known says whether the ring may let n in: its certificate was verified and is not revoked.
func (m *Mesh) known(n id.Node) bool {
	cert, ok := m.catalog.Cert(n)
	return ok && !m.catalog.Revoked(cert.Key)
}

func (m *Mesh) root8() [8]byte {
	root := m.catalog.Root()
	return [8]byte(root[1:9])
}

// heardRoot is called for each ping ack: an unlike root means that the session has something to compare.
func (m *Mesh) heardRoot(n id.Node, root [8]byte) {
	own := m.root8()
	if bytes.Equal(root[:], own[:]) {
		return
	}
	now := time.Now()
	m.mu.Lock()
	last, before := m.unlike[n]
	due := !before || now.Sub(last) >= compareEvery
	if due && m.sessions[n] != nil {
		m.unlike[n] = now
	}
	m.mu.Unlock()
	if due {
		m.catalog.Unlike(n)
	}
}

// Alive returns this node and all that it can talk to: ring members that are alive, leaves that are attached
// to one, and peers in session that the ring has not given up. A revoked node is none of them, whatever the ring still thinks.
func (m *Mesh) Alive() map[id.Node]bool {
	alive, gone := m.inRing()
	m.mu.Lock()
	defer m.mu.Unlock()
	var leaves []id.Node
	for n := range m.leases {
		if m.presenceLocked(n, alive).alive {
			leaves = append(leaves, n)
		}
	}
	for n := range m.sessions {
		if !gone[n] {
			alive[n] = true
		}
	}
	for _, n := range leaves {
		alive[n] = true
	}
	for n := range alive {
		if cert, ok := m.catalog.Cert(n); ok && m.catalog.Revoked(cert.Key) && n != m.self {
			delete(alive, n)
		}
	}
	return alive
}

// Reachable is Alive without the leaves: those whom anybody can ask.
func (m *Mesh) Reachable() map[id.Node]bool {
	alive := m.Alive()
	reached, _ := m.inRing()
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := range alive {
		if m.presenceLocked(n, reached).leaf {
			delete(alive, n)
		}
	}
	return alive
}

// inRing returns this node and the ring members that are alive, and those that left or failed. A leaf knows
// what its attach point tells.
func (m *Mesh) inRing() (alive, gone map[id.Node]bool) {
	alive, gone = map[id.Node]bool{m.self: true}, map[id.Node]bool{}
	m.mu.Lock()
	told := m.ringRecalled()
	for _, p := range m.points {
		if !p.standby {
			told = p.alive
		}
	}
	maps.Copy(alive, told)
	m.mu.Unlock()
	for _, member := range m.ring.Members() {
		if member.Status == ring.Alive {
			alive[member.ID] = true
		} else if member.ID != m.self {
			gone[member.ID] = true
		}
	}
	return alive, gone
}

func keys(set map[id.Node]bool) []id.Node {
	out := make([]id.Node, 0, len(set))
	for n := range set {
		out = append(out, n)
	}
	slices.SortFunc(out, id.Node.Compare)
	return out
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, seed^0x9e3779b97f4a7c15)) }
