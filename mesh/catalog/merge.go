package catalog

import (
	"crypto/ed25519"
	"runtime"

	"golang.org/x/sync/errgroup"

	"meshd/mesh/id"
	"meshd/mesh/wire"
)

// incoming is a record as a peer sent it.
type incoming struct {
	*entry
	encoded []byte
}

func (in incoming) verify(key ed25519.PublicKey) error {
	return in.rec.verify(in.encoded[:len(in.encoded)-tailBytes], key)
}

// decodePage reads the records of a page, on all cores. The error is about form or a limit.
func decodePage(encoded [][]byte) ([]incoming, error) {
	page := make([]incoming, len(encoded))
	return page, parallel(len(page), func(i int) error {
		e, err := decodeEntry(encoded[i])
		page[i] = incoming{e, encoded[i]}
		return err
	})
}

// merge verifies what is new in page, makes it durable in one transaction, adds it and passes it on to all
// peers but from. Nothing is stored of a page with a forged record. Of a page of what this node asked for,
// flow is its last record: so far the peer has sent that log, and from there a later session goes on.
func (c *Catalog) merge(page []incoming, flow *entry, from *session) error {
	fresh := c.unknown(page)
	fresh, err := c.verify(fresh)
	if err != nil {
		return blame(err)
	}
	if len(fresh) == 0 && flow == nil {
		return nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	added, err := c.store(fresh, flow)
	if err != nil {
		return err
	}
	if len(added) > 0 {
		c.tell(added, from)
	}
	return nil
}

// unknown returns what of page the set would keep and does not have.
func (c *Catalog) unknown(page []incoming) []incoming {
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := page[:0:0]
	for _, in := range page {
		if has, useless := c.set.known(in.entry); !has && !useless {
			fresh = append(fresh, in)
		}
	}
	c.stats.Repeated += uint64(len(page) - len(fresh))
	return fresh
}

// verify checks the signatures of batch, on all cores. Certificates come first: they hold the keys. It
// leaves out records whose origin's certificate is not known here, or not backed by this charter (the
// peer's may be newer); the next comparison asks for them again.
func (c *Catalog) verify(batch []incoming) ([]incoming, error) {
	keys := map[id.Node]ed25519.PublicKey{}
	key := func(n id.Node) ed25519.PublicKey { return keys[n] }
	err := parallel(len(batch), func(i int) error {
		in := batch[i]
		if in.kind != KindCert {
			return nil
		}
		if err := c.readBody(in.entry, key); err != nil || in.cert() == nil {
			return err
		}
		return in.verify(in.cert().Key)
	})
	if err != nil {
		return nil, err
	}
	c.mu.RLock()
	for _, in := range batch {
		if in.cert() != nil {
			keys[in.log.Origin] = in.cert().Key
		} else if keys[in.log.Origin] == nil {
			keys[in.log.Origin] = c.keyOf(in.log.Origin)
		}
	}
	c.mu.RUnlock()
	kept := batch[:0:0]
	for _, in := range batch {
		if in.cert() != nil || in.kind != KindCert && keys[in.log.Origin] != nil {
			kept = append(kept, in)
		}
	}
	if skipped := len(batch) - len(kept); skipped > 0 {
		c.mu.Lock()
		c.stats.Keyless += uint64(skipped)
		c.mu.Unlock()
	}
	return kept, parallel(len(kept), func(i int) error {
		in := kept[i]
		if in.kind == KindCert {
			return nil
		}
		if err := in.verify(keys[in.log.Origin]); err != nil {
			return err
		}
		return c.readBody(in.entry, key)
	})
}

// parallel runs f for 0 to n-1 on all cores and returns the first error.
func parallel(n int, f func(i int) error) error {
	workers := min(runtime.GOMAXPROCS(0), (n+15)/16)
	if workers <= 1 {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
	var group errgroup.Group
	for w := range workers {
		group.Go(func() error {
			for i := w; i < n; i += workers {
				if err := f(i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// store makes verified records durable and adds them. It returns those that were new and are live. Whoever
// calls it holds writing.
func (c *Catalog) store(fresh []incoming, flow *entry) ([]*entry, error) {
	var keys, values [][]byte
	var ahead uint64 // the highest of this node's epochs, from the current one on, that came back unknown
	told := false    // and whoever wrote there says that the key is in two places
	for _, in := range fresh {
		keys, values = append(keys, in.key()), append(values, in.encoded)
		if has, _ := c.set.known(in.entry); !has && in.log.Origin == c.self && in.log.Epoch >= c.epoch {
			ahead = max(ahead, in.log.Epoch)
			told = told || saysCloned(in.rec)
		}
	}
	epoch := c.epoch
	if ahead > 0 { // a peer knows more of this node's log than the node itself: its store was restored
		next, value, err := c.nextEpoch(ahead)
		if err != nil {
			return nil, err
		}
		epoch, keys, values = next, append(keys, epochKey), append(values, value)
		c.cfg.Log.Warn("own records came back that this store did not hold: a new epoch begins", "epoch", next)
	}
	if flow != nil && c.goesOn(flow) {
		value, err := wire.Marshal(shelfVersion, flow.seq)
		if err != nil {
			return nil, err
		}
		keys, values = append(keys, flow.log.cursorKey()), append(values, value)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	if err := c.apply(keys, values); err != nil {
		return nil, err
	}
	c.mu.Lock()
	if ahead > 0 {
		c.epoch = epoch
		c.claims = append(c.claims, c.cfg.Wall())
		for told && len(c.claims) <= maxClaims {
			c.claims = append(c.claims, c.cfg.Wall())
		}
	}
	var added []*entry
	var proofs []Fork
	for _, in := range fresh {
		r := in.rec
		ch := c.take(in.entry)
		if ch.added {
			added = append(added, in.entry)
		}
		if ch.forked != nil {
			if other := c.record(ch.other); other != nil {
				proofs = append(proofs, Fork{A: *r, B: *other})
			}
		}
	}
	c.set.settle()
	if flow != nil {
		c.follow(flow)
	}
	c.stats.Merged += uint64(len(added))
	c.mu.Unlock()
	for _, f := range proofs {
		if err := c.keepProof(f); err != nil {
			return nil, err
		}
	}
	return added, nil
}

// goesOn reports whether the log of flow may need a cursor: the next page may bring the rest of it.
func (c *Catalog) goesOn(flow *entry) bool {
	h := c.set.logs[*flow.log]
	return flow.log.Scope == ScopeMain && (h == nil || h.cursor < flow.seq && !(h.complete() && h.last() >= flow.seq))
}

// follow notes how far the log of flow has come, or that it is complete and needs no cursor any more.
func (c *Catalog) follow(flow *entry) {
	h := c.set.logs[*flow.log]
	switch {
	case h == nil || flow.log.Scope != ScopeMain:
	case h.complete():
		c.stale[string(h.id.cursorKey())] = true
		h.cursor = 0
	default:
		h.cursor = max(h.cursor, flow.seq)
	}
}

// judge looks at logs of which a peer has sent all that it was to send. One that is still incomplete is
// asked for as a whole next time; if it was, the peer holds records back. judge counts these, each once
// until the log is complete.
func (c *Catalog) judge(logs map[LogID]bool, peer id.Node) (short int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for log := range logs {
		h := c.set.logs[log]
		if h == nil || h.complete() || h.forked || c.set.caps[log.Origin] != nil {
			continue
		}
		if h.gap && !h.told {
			h.told = true
			short++
			c.cfg.Log.Warn("log stays incomplete: this peer left records out, or the origin forked it", "peer", peer.Short(), "log", log.String())
		}
		h.gap, h.cursor = true, 0
	}
	c.stats.Incomplete += uint64(short)
	return short
}
