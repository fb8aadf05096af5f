package catalog

import (
	"cmp"
	"crypto/ed25519"
	"slices"

	"meshd/mesh/id"
	"meshd/mesh/trust"
	"meshd/store/artifact"
)

// Live returns the live records of a kind whose name begins with prefix, sorted by name, origin, epoch and
// seq. The bodies are shared: do not change them.
func (c *Catalog) Live(scope string, kind uint8, prefix string) []Record {
	return c.read(func(emit func(*entry)) { c.set.live(kindKey{scope, kind}, prefix, emit) })
}

// read returns the records that find emits. Those that are not in memory are read when mu is free again;
// what went from the shelf by then is no longer live.
func (c *Catalog) read(find func(emit func(*entry))) []Record {
	var found []*entry
	c.mu.RLock()
	find(func(e *entry) { found = append(found, e) })
	c.mu.RUnlock()
	out := make([]Record, 0, len(found))
	for _, e := range found {
		if r := c.record(e); r != nil {
			out = append(out, *r)
		}
	}
	return out
}

// Newest returns the newest live record of that kind, exact name and origin.
func (c *Catalog) Newest(kind uint8, name string, origin id.Node) (Record, bool) {
	list := c.read(func(emit func(*entry)) {
		var newest *entry
		c.set.liveName(kindKey{scopeOf(kind), kind}, name, func(e *entry) {
			if e.log.Origin == origin {
				newest = e
			}
		})
		if newest != nil {
			emit(newest)
		}
	})
	if len(list) == 0 {
		return Record{}, false
	}
	return list[0], true
}

// Heads returns the newest seq of each log of origin, by epoch and scope: what a revocation names.
func (c *Catalog) Heads(origin id.Node) []trust.LogHead {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var heads []trust.LogHead
	for _, h := range c.set.order {
		if h.id.Origin == origin {
			heads = append(heads, trust.LogHead{Epoch: h.id.Epoch, Scope: h.id.Scope, Seq: h.last()})
		}
	}
	slices.SortFunc(heads, func(a, b trust.LogHead) int {
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Scope, b.Scope))
	})
	return heads
}

// Knows reports whether a log is known up to seq.
func (c *Catalog) Knows(log LogID, seq uint64) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	h := c.set.logs[log]
	return h != nil && h.last() >= seq
}

// Root is equal on two nodes when their catalogs are.
func (c *Catalog) Root() artifact.Digest {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.set.root.digest()
}

// Key returns the key of a node whose certificate was heard; that of this node is always known.
func (c *Catalog) Key(n id.Node) (ed25519.PublicKey, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	key := c.keyOf(n)
	return key, key != nil
}

// Cert returns the newest certificate heard of a node, verified against the charter but not against time.
func (c *Catalog) Cert(n id.Node) (*trust.Cert, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := c.set.certificate(n)
	if e == nil {
		return nil, false
	}
	return e.cert(), true
}

// Revoked reports whether a revocation of the key was heard.
func (c *Catalog) Revoked(key ed25519.PublicKey) bool {
	n := id.FromKey(key)
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.set.caps[n] != nil
}

// Epoch is the one that own records go to.
func (c *Catalog) Epoch() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.epoch
}

// HasOwn reports whether this node has a live record of that kind in its current epoch.
func (c *Catalog) HasOwn(kind uint8) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.hasOwn(kind)
}

func (c *Catalog) hasOwn(kind uint8) bool {
	h := c.set.logs[LogID{c.self, c.epoch, scopeOf(kind)}]
	return h != nil && slices.ContainsFunc(h.recs.list(), func(e *entry) bool { return e.kind == kind })
}

// Changed is kicked after the catalog changed. Capacity 1, no data, one reader.
func (c *Catalog) Changed() <-chan struct{} { return c.changed }

// Checked is closed once a session compared the whole catalog with a peer: had the peer heard more of
// this node's own logs than the node itself knew, the node would have opened a new epoch. Publishing
// before that is safe on a store that was never restored from a backup; elsewhere it may fork a log,
// which loses nothing but has to be told to people.
func (c *Catalog) Checked() <-chan struct{} { return c.checked }

// OwnChecked reports whether Checked is closed.
func (c *Catalog) OwnChecked() bool {
	select {
	case <-c.checked:
		return true
	default:
		return false
	}
}

// Stats returns the counters.
func (c *Catalog) Stats() Stats {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.stats
	s.Agreed = c.agreed.Load()
	s.Logs, s.Records, s.Graves, s.Forks = len(c.set.order), c.set.count, len(c.set.graves), len(c.forks)
	return s
}

// Kick makes the sessions with peer compare catalogs again, because the roots seem unlike.
func (c *Catalog) Kick(peer id.Node) {
	for _, s := range c.others(nil) {
		if s.peer == peer {
			s.compareSoon()
		}
	}
}

// Unlike is Kick where the peer's root is known to differ: the comparison takes a turn less.
func (c *Catalog) Unlike(peer id.Node) {
	for _, s := range c.others(nil) {
		if s.peer == peer {
			s.differSoon()
		}
	}
}
