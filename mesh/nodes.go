package mesh

import (
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/ring"
	"meshd/mesh/trust"
)

// A Node is all that is known here of one node of the mesh, alive or absent.
type Node struct {
	ID           id.Node
	Name         string // attested, or declared where the certificate binds none
	Attested     bool   // Name is bound by the certificate
	Self         bool
	Alive        bool
	Live         bool              // in the score's words: alive in the ring, or a leaf with a valid lease
	Leaf         bool              // it only dials out
	At           id.Node           // of a leaf: its attach point; zero if none
	Status       string            // alive, suspect, left, failed, asleep (of a leaf); failed too where it was never seen here
	Tags         map[string]string // attested and declared; attested ones can't be shadowed
	AttestedTags map[string]string
	Roles        []string
	Facts        map[string]string
	Addrs        []string
	RTT          time.Duration // 0: not measured
	Counts       [5]int        // kept, repaired, failed, waiting, drifted
	Score        string
	Version      string
	Platform     string
	LastSeen     time.Time
	Revoked      bool
	Forked       bool // it signed two unlike records with one number, or is cloned
	Cloned       bool // it says that another machine writes with its key
}

// A saying is the last that a node said of itself.
type saying struct {
	record catalog.Record
	body   catalog.StatusBody // nobody changes what it holds
}

// sayings is what every node last said of itself; of a record that was read before it is not decoded again. The map
// belongs to the caller.
func (m *Mesh) sayings() map[id.Node]saying {
	said := map[id.Node]saying{}
	m.saidMu.Lock()
	defer m.saidMu.Unlock()
	for _, r := range m.catalog.Live(catalog.ScopeNodes, catalog.KindStatus, "") {
		if old, ok := said[r.Log.Origin]; ok && old.record.Log.Epoch >= r.Log.Epoch {
			continue
		}
		before, ok := m.said[r.Log.Origin]
		if !ok || before.record.Sig != r.Sig {
			body, err := catalog.DecodeStatus(r.Body)
			if err != nil {
				continue // verified when it was stored; another format says what this version can't read
			}
			before = saying{r, body}
		}
		said[r.Log.Origin] = before
	}
	m.said = maps.Clone(said)
	return said
}

// Nodes lists this node, and every other whose certificate was heard and is not revoked, sorted by name, then id. Maps
// and lists in it are not to be changed.
func (m *Mesh) Nodes() []Node {
	status := m.sayings()
	ringOf := map[id.Node]ring.Member{}
	for _, member := range m.ring.Members() {
		ringOf[member.ID] = member
	}
	alive, now := m.Alive(), m.cfg.Wall()
	reached, _ := m.inRing()
	present := func(n id.Node) presence {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.presenceLocked(n, reached)
	}
	seen := map[id.Node]time.Time{}
	for _, p := range m.link.Peers() {
		seen[p.ID] = p.LastSeen
	}
	var out []Node
	done := map[id.Node]bool{}
	add := func(n id.Node, cert *trust.Cert) {
		if done[n] || m.catalog.Revoked(cert.Key) {
			return
		}
		done[n] = true
		node := Node{
			ID: n, Name: cert.Name, Attested: cert.Name != "", Self: n == m.self, Status: "failed", AttestedTags: cert.Tags,
			LastSeen: seen[n], Forked: m.catalog.Forked(n),
		}
		if s, ok := status[n]; ok {
			node.declare(s, now)
		}
		node.Tags = merged(node.Tags, cert.Tags)
		if member, ok := ringOf[n]; ok {
			node.Status, node.RTT = string(member.Status), member.RTT
		}
		if node.Self {
			node.Cloned = m.catalog.Cloned()
			node.Status, node.Addrs, node.LastSeen = string(ring.Alive), m.Advertised(), now
		}
		if _, inRing := ringOf[n]; !inRing && alive[n] {
			node.Status = string(ring.Alive) // in session, and about to be in the ring
		}
		node.lodged(present(n), now)
		node.Alive = node.Status == string(ring.Alive)
		node.Live = node.Live || node.Alive
		node.Forked = node.Forked || node.Cloned
		if node.Alive {
			node.LastSeen = now
		}
		if node.Name == "" {
			node.Name = n.Short()
		}
		out = append(out, node)
	}
	for _, r := range m.catalog.Live(catalog.ScopeNodes, catalog.KindCert, "") {
		if cert, ok := m.catalog.Cert(r.Log.Origin); ok {
			add(r.Log.Origin, cert)
		}
	}
	add(m.self, m.Cert()) // its own record comes with Run; the door is open before
	slices.SortFunc(out, func(a, b Node) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return a.ID.Compare(b.ID)
	})
	return out
}

// statusAsleep is that of a leaf that is not attached now.
const statusAsleep = "asleep"

// lodged tells of a node that is a leaf how it stands.
func (n *Node) lodged(p presence, now time.Time) {
	if !p.leaf {
		return
	}
	n.Leaf, n.Live, n.At, n.Addrs = true, p.live, p.at, nil
	n.saidAt(p.said, now)
	switch {
	case n.Self:
	case p.alive:
		n.Status = string(ring.Alive)
	default:
		n.Status = statusAsleep
	}
}

// declare takes what the node says of itself. A name that the certificate binds stands.
func (n *Node) declare(said saying, now time.Time) {
	s := said.body
	if n.Name == "" {
		n.Name = s.Name
	}
	n.Tags, n.Roles, n.Facts, n.Addrs = s.Tags, s.Roles, s.Facts, s.Addrs
	n.Counts = [5]int{s.Kept, s.Repaired, s.Failed, s.Waiting, s.Drifted}
	n.Score, n.Version, n.Platform = s.Score, s.Version, s.Platform
	n.saidAt(said.record.At, now)
	n.Cloned = s.State == catalog.StatusCloned
	if s.State == catalog.StatusLeft {
		n.Status = string(ring.Left)
	}
}

// saidAt takes when the node was there from what was signed then, by the clock of whoever signed it. A clock that
// was ahead of ours is believed only where nothing else is known: else who is away would be seen for years.
func (n *Node) saidAt(at, now time.Time) {
	if n.LastSeen.IsZero() || !at.After(now) {
		n.LastSeen = later(n.LastSeen, at)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// merged lays over declared tags those that are attested.
func merged(declared, attested map[string]string) map[string]string {
	out := maps.Clone(declared)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, attested)
	return out
}
