package mesh

import (
	"errors"
	"fmt"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/trust"
)

const (
	leaseLasts = 10 * time.Minute // how long a leaf counts as live after its attach point lost it
	leaseSlack = time.Hour        // by which wall clocks may differ, where one has to be trusted at all
	ringProves = time.Minute      // after which whoever is alive in the ring is no leaf: sooner its lease may be the newer news

	// MaxLeafPoll is the longest that a leaf may rest between polls: its lease must last.
	MaxLeafPoll = 24 * time.Hour
)

// A lease is what is known here of one leaf's place.
type lease struct {
	trust.Lease
	state uint8     // one of catalog's
	said  time.Time // by the attach point's wall clock
	heard time.Time // by the own steady clock: when that state was heard, or the leaf was last seen alive
}

// A presence is how a leaf stands.
type presence struct {
	leaf  bool // it is one
	alive bool // attached now
	live  bool // alive, or its lease is not over: it counts in roles
	at    id.Node
	said  time.Time // by the attach point's wall clock
}

// judge tells how the leaf of l stands. atPoint says whether its attach point is alive here: that is the
// witness while the leaf is there, so that no clock is asked. Of a leaf that went away the lease lasts for as
// long as it says since that was heard here; the wall clock, read leniently, ends only what is long over.
func (l *lease) judge(now, wall time.Time, atPoint bool) presence {
	p := presence{leaf: l.state != catalog.LeaseInRing, at: l.At}
	switch {
	case !p.leaf:
	case l.state == catalog.LeaseHere && atPoint:
		p.alive, p.live = true, true
	case l.state == catalog.LeaseOver:
	default:
		p.live = now.Sub(l.heard) < l.Lasts &&
			(l.state == catalog.LeaseHere || wall.Before(l.said.Add(l.Lasts+leaseSlack)))
	}
	return p
}

// errLie marks a lease that no honest node tells of.
var errLie = errors.New("a lease that lies")

// readLease takes a lease from a record of its attach point.
func (m *Mesh) readLease(r catalog.Record) (lease, error) {
	body, err := catalog.DecodeLease(r.Body)
	if err != nil {
		return lease{}, err
	}
	signed, err := trust.ParseLease(body.Lease, m.keyOf)
	switch {
	case err != nil:
	case signed.At != r.Log.Origin:
		err = fmt.Errorf("lease of %s: it is for attach point %s", signed.Leaf.Short(), signed.At.Short())
	case signed.Leaf.String() != r.Name:
		err = fmt.Errorf("lease of %s under the name %q", signed.Leaf.Short(), r.Name)
	case body.State < catalog.LeaseHere || body.State > catalog.LeaseInRing:
		err = fmt.Errorf("lease of %s: state %d is unknown", signed.Leaf.Short(), body.State)
	}
	if err != nil {
		return lease{}, fmt.Errorf("%w: %w", errLie, err)
	}
	return lease{Lease: signed, state: body.State, said: r.At, heard: time.Now()}, nil
}

// learnLeases takes what the catalog heard of leases since the last call. It belongs to the listen goroutine.
func (m *Mesh) learnLeases() {
	changes, rev, all := m.catalog.Since(m.leaseRev)
	m.leaseRev = rev
	var records []catalog.Record
	if all {
		records = m.catalog.Live(catalog.ScopeNodes, catalog.KindLease, "")
	} else {
		names := map[string]bool{}
		for _, c := range changes {
			name := c.Name
			switch c.Kind {
			case catalog.KindCert:
				name = c.Origin.String() // a lease that came before the leaf's key can be read now
			case catalog.KindLease:
			default:
				continue
			}
			if !names[name] {
				names[name] = true
				records = append(records, m.catalog.LiveNamed(catalog.KindLease, name)...)
			}
		}
	}
	for _, r := range records {
		if leaf, err := id.Parse(r.Name); err == nil && m.keyOf(leaf) == nil {
			continue
		}
		l, err := m.readLease(r)
		if err == nil {
			err = m.takeLease(l)
		}
		if err != nil {
			m.refuseLease(r.Log.Origin, r.Name, r.Seq, err)
		}
	}
}

// takeLease keeps the lease with the highest count of each leaf, and of one lease what was said last. A leaf that lost its
// store may sign one count at two attach points: everybody keeps the same one, and where that is the other one, the leaf
// signs a higher one (outrun).
func (m *Mesh) takeLease(l lease) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old := m.leases[l.Leaf]
	switch {
	case old == nil || old.Count < l.Count || (old.Count == l.Count && (old.At == l.At && old.state != l.state || old.At.Compare(l.At) < 0)):
		m.leases[l.Leaf] = &l
	case old.Count > l.Count && old.At != l.At && l.state == catalog.LeaseHere && l.said.After(old.said.Add(leaseLasts)):
		return fmt.Errorf("%w: lease of %s at %s is count %d, and %d was heard: a replay", errLie, l.Leaf.Short(), l.At.Short(), l.Count, old.Count)
	}
	return nil
}

// outrun reports whether the lease that everybody believes is not the one at p, to which this leaf is attached.
func (m *Mesh) outrun(p *point) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.leases[m.self]
	return l != nil && l.At != p.id && l.Count >= p.count
}

// refuseLease counts a lease that has no effect and names who told of it, once for each record.
func (m *Mesh) refuseLease(by id.Node, leaf string, seq uint64, err error) {
	key := refusedLease{by, leaf, seq}
	m.mu.Lock()
	told := m.leaseLies[key]
	if !told {
		if len(m.leaseLies) >= maxLies {
			clear(m.leaseLies)
		}
		m.leaseLies[key] = true
		m.leasesRefused++
	}
	m.mu.Unlock()
	if !told {
		m.cfg.Log.Warn("a lease was refused", "by", by.Short(), "leaf", leaf, "error", err)
	}
}

type refusedLease struct {
	by   id.Node
	leaf string
	seq  uint64
}

const maxLies = 1024 // refused leases that are remembered, so that each is told once

// nextCount is the least count that a new lease of leaf must have, as far as this node knows.
func (m *Mesh) nextCount(leaf id.Node) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	var known uint64
	if l := m.leases[leaf]; l != nil {
		known = l.Count
	}
	if leaf == m.self {
		known = max(known, m.leaseCount)
	}
	return known + 1
}

// presenceLocked tells how n stands as a leaf, where ring says who of the ring is alive. The caller holds m.mu.
func (m *Mesh) presenceLocked(n id.Node, ring map[id.Node]bool) presence {
	if n == m.self {
		p := presence{leaf: m.standing == AsLeaf}
		p.alive, p.live = p.leaf, p.leaf
		for _, pt := range m.points {
			if !pt.standby {
				p.at = pt.id
			}
		}
		return p
	}
	l := m.leases[n]
	if l == nil || ring[n] {
		if l != nil && time.Since(l.heard) > ringProves { // its attach point was not there to say so
			l.state = catalog.LeaseInRing
		}
		return presence{}
	}
	now := time.Now()
	p := l.judge(now, m.cfg.Wall(), ring[l.At])
	p.said = l.said
	if p.alive {
		l.heard = now
	}
	return p
}

// IsLeaf reports whether n is a leaf, as far as this node heard: alive or not.
func (m *Mesh) IsLeaf(n id.Node) bool {
	alive, _ := m.inRing()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.presenceLocked(n, alive).leaf
}
