package mesh

import (
	"maps"
	"slices"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/link"
	"meshd/mesh/ring"
	"meshd/mesh/swarm"
)

// Stats is what the parts of a Mesh counted since New, and how it stands now.
type Stats struct {
	Link     link.Stats
	Swarm    swarm.Stats
	Catalog  catalog.Stats
	Sessions int    // sync sessions open now, with distinct peers
	Opened   uint64 // sync sessions since New
	Leaves   int    // that are attached here, standbys included
	// LeasesRefused counts leases that lied: of another node, too long, replayed.
	LeasesRefused uint64
	// Members counts by status the nodes that are known here, this one included: alive, left, failed or asleep.
	Members map[string]int
}

// Stats reads the counters one by one, not at one instant.
func (m *Mesh) Stats() Stats {
	s := Stats{Link: m.link.Stats(), Swarm: m.swarm.Stats(), Catalog: m.catalog.Stats(), Members: map[string]int{}}
	for _, status := range []ring.Status{ring.Alive, ring.Left, ring.Failed, statusAsleep} {
		s.Members[string(status)] = 0
	}
	for _, n := range m.Nodes() {
		s.Members[n.Status]++
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Sessions, s.Opened = len(m.sessions), m.opened
	s.Leaves, s.LeasesRefused = len(m.lodgers), m.leasesRefused
	return s
}

// Compare makes all open sync sessions compare catalogs now. Whether one found its peer to know the same
// shows in Stats: Catalog.Agreed grows.
func (m *Mesh) Compare() {
	for _, n := range m.inSession() {
		m.catalog.Kick(n)
	}
}

// Attached reports whether a sync session with a peer is open.
func (m *Mesh) Attached() bool { return len(m.inSession()) > 0 }

func (m *Mesh) inSession() []id.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.sessions))
}
