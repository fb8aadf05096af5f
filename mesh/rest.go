package mesh

import (
	"maps"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
)

// A leaf that polls (Config.LeafPoll) holds no session between polls. Its caller says when it rests; what it then writes,
// a change of its addresses, or the end of a suspend asks for the next poll. Till then it believes what its attach point
// last told of the ring, for as long as others believe in its lease.

// restHangUp is how long goodbyes may take.
const restHangUp = time.Second

// Woken is kicked when a resting leaf has a reason to poll before its time. Capacity 1, no data, one reader.
func (m *Mesh) Woken() <-chan struct{} { return m.woken }

// Wake asks for a poll, if this leaf rests.
func (m *Mesh) Wake() {
	if !m.Resting() {
		return
	}
	select {
	case m.woken <- struct{}{}:
	default:
	}
}

// Resting reports whether this leaf holds no session because it rests.
func (m *Mesh) Resting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.resting
}

// Rest has a leaf take leave of its attach point until its next poll, and end all streams. It returns when they have
// ended.
func (m *Mesh) Rest() {
	m.mu.Lock()
	m.resting = true
	points := make([]*point, 0, len(m.points))
	for _, p := range m.points {
		points = append(points, p)
		m.ringHeard(p)
	}
	m.mu.Unlock()
	m.detach(catalog.LeaseAway)
	late := time.After(restHangUp)
	for _, p := range points {
		select {
		case <-p.ended:
		case <-late:
		}
	}
	m.link.HangUp()
	m.notify()
}

// Rise has a leaf that rests attach itself again.
func (m *Mesh) Rise() {
	m.mu.Lock()
	m.resting = false
	m.mu.Unlock()
	m.tendSoon()
}

// leaseTime is how long this leaf counts as live after its attach point lost it, or it took leave until the next poll.
func (m *Mesh) leaseTime() time.Duration { return m.cfg.LeafPoll + leaseLasts }

// ringHeard remembers what the attach point p tells of the ring. The caller holds m.mu.
func (m *Mesh) ringHeard(p *point) {
	if m.cfg.LeafPoll > 0 && !p.standby {
		m.lastRing, m.lastRingAt = maps.Clone(p.alive), time.Now()
	}
}

// ringRecalled is who a leaf that polls believes to be in the ring while it has no attach point. The caller holds m.mu.
func (m *Mesh) ringRecalled() map[id.Node]bool {
	if m.cfg.LeafPoll == 0 || time.Since(m.lastRingAt) >= m.leaseTime() {
		return nil
	}
	return m.lastRing
}
