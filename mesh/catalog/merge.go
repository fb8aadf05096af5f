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
	return in.Record.verify(in.encoded[:len(in.encoded)-tailBytes], key)
}

// decodePage reads the records of a page. The error is about form or a limit.
func decodePage(encoded [][]byte) ([]incoming, error) {
	page := make([]incoming, len(encoded))
	for i, b := range encoded {
		e, err := decodeEntry(b)
		if err != nil {
			return nil, err
		}
		page[i] = incoming{e, b}
	}
	return page, nil
}

// merge verifies what is new in page, makes it durable in one transaction, adds it and passes it on to all
// peers but from. Nothing is stored of a page with a forged record.
func (c *Catalog) merge(page []incoming, from *session) error {
	fresh := c.unknown(page)
	fresh, err := c.verify(fresh)
	if err != nil {
		return blame(err)
	}
	if len(fresh) == 0 {
		return nil
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	added, err := c.store(fresh)
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
	err := parallel(batch, func(in incoming) error {
		if in.Kind != KindCert {
			return nil
		}
		if err := c.readBody(in.entry, key); err != nil || in.cert == nil {
			return err
		}
		return in.verify(in.cert.Key)
	})
	if err != nil {
		return nil, err
	}
	c.mu.RLock()
	for _, in := range batch {
		if in.cert != nil {
			keys[in.Log.Origin] = in.cert.Key
		} else if keys[in.Log.Origin] == nil {
			keys[in.Log.Origin] = c.keyOf(in.Log.Origin)
		}
	}
	c.mu.RUnlock()
	kept := batch[:0:0]
	for _, in := range batch {
		if in.cert != nil || in.Kind != KindCert && keys[in.Log.Origin] != nil {
			kept = append(kept, in)
		}
	}
	if skipped := len(batch) - len(kept); skipped > 0 {
		c.mu.Lock()
		c.stats.Keyless += uint64(skipped)
		c.mu.Unlock()
	}
	return kept, parallel(kept, func(in incoming) error {
		if in.Kind == KindCert {
			return nil
		}
		if err := in.verify(keys[in.Log.Origin]); err != nil {
			return err
		}
		return c.readBody(in.entry, key)
	})
}

// parallel runs f over the batch on all cores and returns the first error.
func parallel(batch []incoming, f func(incoming) error) error {
	workers := min(runtime.GOMAXPROCS(0), (len(batch)+15)/16)
	if workers <= 1 {
		for _, in := range batch {
			if err := f(in); err != nil {
				return err
			}
		}
		return nil
	}
	var group errgroup.Group
	for w := range workers {
		group.Go(func() error {
			for i := w; i < len(batch); i += workers {
				if err := f(batch[i]); err != nil {
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
func (c *Catalog) store(fresh []incoming) ([]*entry, error) {
	var keys, values [][]byte
	var ahead uint64 // the highest of this node's epochs, from the current one on, that came back unknown
	for _, in := range fresh {
		keys, values = append(keys, in.key()), append(values, in.encoded)
		if has, _ := c.set.known(in.entry); !has && in.Log.Origin == c.self && in.Log.Epoch >= c.epoch {
			ahead = max(ahead, in.Log.Epoch)
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
	if err := c.apply(keys, values); err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.epoch = epoch
	var added []*entry
	var forked []*history
	for _, in := range fresh {
		ch := c.take(in.entry)
		if ch.added {
			added = append(added, in.entry)
		}
		if ch.forked != nil {
			forked = append(forked, ch.forked)
		}
	}
	c.set.settle()
	c.stats.Merged += uint64(len(added))
	c.mu.Unlock()
	for _, h := range forked {
		if err := c.keepProof(h); err != nil {
			return nil, err
		}
	}
	return added, nil
}

// keepProof writes down why a log counts as forked.
func (c *Catalog) keepProof(h *history) error {
	c.cfg.Log.Error("log is forked: its origin's disk was cloned or restored, or its key is in two places",
		"log", h.id.String(), "seq", h.forked.A.Seq)
	a, err := h.forked.A.Encode()
	if err != nil {
		return err
	}
	b, err := h.forked.B.Encode()
	if err != nil {
		return err
	}
	value, err := wire.Marshal(shelfVersion, &proof{a, b})
	if err != nil {
		return err
	}
	return c.apply([][]byte{append([]byte{prefixFork}, h.id.key()...)}, [][]byte{value})
}

// after returns the live entries of a log beyond seq from; certificates come first.
func (c *Catalog) after(log LogID, from uint64) []*entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	h := c.set.logs[log]
	if h == nil {
		return nil
	}
	var certs, rest []*entry
	for _, e := range h.recs {
		switch {
		case e.Kind == KindCert && e.Seq > from:
			certs = append(certs, e)
		case e.Seq > from:
			rest = append(rest, e)
		}
	}
	return append(certs, rest...)
}

// judge looks at logs of which a peer has sent all that it was to send. One that is still incomplete is
// asked for as a whole next time; if it was, the peer holds records back. judge counts these, each once
// until the log is complete.
func (c *Catalog) judge(logs map[LogID]bool, peer id.Node) (short int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for log := range logs {
		h := c.set.logs[log]
		if h == nil || h.complete() || h.forked != nil || c.set.caps[log.Origin] != nil {
			continue
		}
		if h.gap && !h.told {
			h.told = true
			short++
			c.cfg.Log.Warn("log stays incomplete: this peer left records out, or the origin forked it", "peer", peer.Short(), "log", log.String())
		}
		h.gap = true
	}
	c.stats.Incomplete += uint64(short)
	return short
}
