package mesh

import (
	"context"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/trust"
)

// A let is what this node says of a leaf that is, or was, attached here.
type let struct {
	signed trust.Lease
	lease  []byte
	state  uint8
	told   uint8     // the state of the last record; 0: none of this lease
	due    time.Time // when state is to be told, by the steady clock
	last   time.Time // when one was
}

// let has it told that a leaf holds a lease here.
func (m *Mesh) let(signed trust.Lease, b []byte, state uint8, after time.Duration) {
	m.mu.Lock()
	old := m.lets[signed.Leaf]
	l := &let{signed: signed, lease: b, state: state, due: time.Now().Add(after)}
	if old != nil {
		l.last = old.last
	}
	m.lets[signed.Leaf] = l
	m.mu.Unlock()
	m.letsSoon()
}

// changeLet has it told, after a while, that a leaf stands otherwise.
func (m *Mesh) changeLet(leaf id.Node, state uint8, after time.Duration) {
	m.mu.Lock()
	if l := m.lets[leaf]; l != nil {
		l.state, l.due = state, time.Now().Add(after)
	}
	m.mu.Unlock()
	m.letsSoon()
}

func (m *Mesh) letsSoon() {
	select {
	case m.letKick <- struct{}{}:
	default:
	}
}

// keepLeases is the goroutine that publishes how leaves stand that are attached here.
func (m *Mesh) keepLeases(ctx context.Context) error {
	m.recallLets()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.letKick:
		case <-timer.C:
		}
		timer.Reset(m.tellLets(time.Now()))
	}
}

// recallLets takes up what an earlier run said: leaves that don't come back are away.
func (m *Mesh) recallLets() {
	for _, r := range m.catalog.Live(catalog.ScopeNodes, catalog.KindLease, "") {
		body, err := catalog.DecodeLease(r.Body)
		if r.Log.Origin != m.self || err != nil || body.State != catalog.LeaseHere {
			continue
		}
		if signed, err := trust.ParseLease(body.Lease, m.keyOf); err == nil {
			m.let(signed, body.Lease, catalog.LeaseAway, restartGrace)
		}
	}
}

// tellLets publishes what is due and returns how long nothing is.
func (m *Mesh) tellLets(now time.Time) time.Duration {
	next := time.Hour
	var due []*let
	m.mu.Lock()
	for leaf, l := range m.lets {
		wait := max(l.due.Sub(now), l.last.Add(leaseEvery).Sub(now))
		known := m.leases[leaf]
		switch {
		case l.told == l.state:
			if l.state != catalog.LeaseHere {
				delete(m.lets, leaf)
			}
		case known != nil && known.Count > l.signed.Count && l.state != catalog.LeaseHere:
			delete(m.lets, leaf) // it is somewhere else by now
		case wait > 0:
			next = min(next, wait)
		default:
			l.told, l.last = l.state, now
			due = append(due, &let{signed: l.signed, lease: l.lease, state: l.state})
		}
	}
	m.mu.Unlock()
	for _, l := range due {
		body, err := catalog.EncodeLease(catalog.LeaseBody{Lease: l.lease, State: l.state})
		if err == nil {
			_, err = m.catalog.Append(catalog.KindLease, l.signed.Leaf.String(), body, 0)
		}
		if err != nil {
			m.cfg.Log.Warn("how a leaf stands can't be told yet", "leaf", l.signed.Leaf.Short(), "error", err)
			m.mu.Lock()
			if again := m.lets[l.signed.Leaf]; again != nil && again.told == l.state {
				again.told = 0
			}
			m.mu.Unlock()
			next = leaseEvery
		}
	}
	return next
}
