package catalog

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
)

// A grave is what stays of a log that aged out: it stands in the root as the log itself did, so that who
// keeps the log and who buried it agree. Origin is the first half of the node's id.
type grave struct{ origin, tag, leaf [8]byte }

// graveBytes is the size of a grave on the wire.
const graveBytes = 24

func (g grave) append(b []byte) []byte {
	return append(append(append(b, g.origin[:]...), g.tag[:]...), g.leaf[:]...)
}

func readGrave(b []byte) grave {
	return grave{[8]byte(b[:8]), [8]byte(b[8:16]), [8]byte(b[16:24])}
}

// grave is what would stay of the log.
func (h *history) grave() grave { return grave{[8]byte(h.id.Origin[:8]), h.tag, h.leaf} }

// member is what a log or grave adds to the root.
func member(g grave) sum { return words(sha256.Sum256(g.append(make([]byte, 0, graveBytes)))) }

// inter adds a grave. A log that has entries needs none; of two graves of one log that with the higher
// leaf stays, so that all end alike.
func (s *set) inter(g grave) bool {
	if s.tags[g.tag] != nil {
		return false
	}
	old, ok := s.graves[g.tag]
	if ok && bytes.Compare(old.leaf[:], g.leaf[:]) >= 0 {
		return false
	}
	if ok {
		s.root.minus(member(old))
	}
	s.graves[g.tag] = g
	s.root.plus(member(g))
	return true
}

// lift takes a grave away.
func (s *set) lift(tag [8]byte) bool {
	g, ok := s.graves[tag]
	if ok {
		delete(s.graves, tag)
		s.root.minus(member(g))
	}
	return ok
}

// bury replaces logs by graves; the root stays. The set was settled before. It returns what is to be
// removed from the disk.
func (s *set) bury(logs []*history) (gone []*entry) {
	for _, h := range logs {
		g := h.grave()
		for _, e := range h.recs.list() {
			gone = append(gone, e)
			s.remove(e)
		}
		s.settle()
		s.inter(g)
	}
	return gone
}

// Limits of graves.
const (
	// BuryAfter is how long a node must be unseen before its nodes logs age out.
	BuryAfter = 90 * 24 * time.Hour
	// maxGravesOf is how many graves of one node are taken from peers: one for each of its epochs.
	maxGravesOf = 16
)

// Bury lets the nodes logs of those age out of whom nothing is live but what they said of themselves:
// their certificates and statuses. seen tells when this node, or anybody it believes, last met another;
// the zero time is never, and then the time of the newest status counts. Who made a statement stays, and
// so do this node and the keys of the charter. It returns how many logs went.
//
// A grave is this node's own saving: the root stays as it is, and who still holds the log agrees. The next
// session with the node itself lifts it, and so does any record of it.
func (c *Catalog) Bury(now time.Time, seen func(id.Node) time.Time) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	byOrigin := map[id.Node][]*history{}
	for _, h := range c.set.order { // only writers change it
		byOrigin[h.id.Origin] = append(byOrigin[h.id.Origin], h)
	}
	var dead []*history
	for n, logs := range byOrigin {
		if c.dead(n, logs, now, seen) {
			dead = append(dead, logs...)
		}
	}
	if len(dead) == 0 {
		return 0, nil
	}
	slices.SortFunc(dead, func(a, b *history) int { return a.id.compare(b.id) })
	for page := range slices.Chunk(dead, maxPageRecords) {
		if err := c.buryPage(page); err != nil {
			return 0, err
		}
	}
	c.cfg.Log.Info("logs of nodes that were long away aged out", "logs", len(dead))
	c.tell(nil, nil)
	return len(dead), nil
}

func (c *Catalog) buryPage(logs []*history) error {
	var keys, values [][]byte
	for _, h := range logs {
		value, err := wire.Marshal(shelfVersion, h.leaf)
		if err != nil {
			return err
		}
		keys, values = append(keys, h.grave().key()), append(values, value)
		for _, e := range h.recs.list() { // in one transaction: a record that is still there lifts the grave
			keys, values = append(keys, e.key()), append(values, nil)
		}
	}
	if err := c.apply(keys, values); err != nil {
		return fmt.Errorf("bury: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.set.bury(logs) {
		c.news.note(e)
		c.forget(e)
	}
	c.stats.Buried += uint64(len(logs))
	return nil
}

// dead reports whether all that is known of n may age out.
func (c *Catalog) dead(n id.Node, logs []*history, now time.Time, seen func(id.Node) time.Time) bool {
	if n == c.self || c.set.caps[n] != nil || c.cfg.Charter.IsSponsor(n) || c.cfg.Charter.IsRevoker(n) {
		return false
	}
	last := seen(n)
	for _, h := range logs {
		if h.id.Scope != ScopeNodes || !h.complete() || h.forked {
			return false
		}
		for _, e := range h.recs.list() {
			if e.kind != KindCert && e.kind != KindStatus {
				return false
			}
			if r := c.record(e); r == nil {
				return false
			} else if r.At.After(last) {
				last = r.At
			}
		}
	}
	return now.Sub(last) >= BuryAfter
}

// lift takes the graves of a node away, because it is back: what it says of itself is asked for again.
func (c *Catalog) lift(n id.Node) error {
	c.mu.RLock()
	none := len(c.set.graves) == 0
	c.mu.RUnlock()
	if none {
		return nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	var lifted int
	for tag, g := range c.set.graves {
		if g.origin == [8]byte(n[:8]) {
			c.set.lift(tag)
			c.stale[string(g.key())] = true
			lifted++
		}
	}
	c.mu.Unlock()
	if lifted == 0 {
		return nil
	}
	return c.apply(nil, nil)
}

// inter takes graves from a peer: of nodes that a sponsor admitted and whose logs are not here.
func (c *Catalog) inter(graves []grave) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	admitted := map[[8]byte]int{}
	c.set.each(kindKey{ScopeNodes, KindStatement}, "", func(e *entry) {
		if e.more != nil && !e.more.admits.IsZero() {
			admitted[[8]byte(e.more.admits[:8])] = maxGravesOf
		}
	})
	for _, g := range c.set.graves {
		admitted[g.origin]--
	}
	var keys, values [][]byte
	var taken []grave
	for _, g := range graves {
		if c.set.tags[g.tag] != nil || admitted[g.origin] <= 0 {
			continue
		}
		if old, ok := c.set.graves[g.tag]; ok && bytes.Compare(old.leaf[:], g.leaf[:]) >= 0 {
			continue
		}
		admitted[g.origin]--
		value, err := wire.Marshal(shelfVersion, g.leaf)
		if err != nil {
			return err
		}
		keys, values, taken = append(keys, g.key()), append(values, value), append(taken, g)
	}
	if len(taken) == 0 {
		return nil
	}
	if err := c.apply(keys, values); err != nil {
		return err
	}
	c.mu.Lock()
	for _, g := range taken {
		c.set.inter(g)
	}
	c.mu.Unlock()
	return nil
}
