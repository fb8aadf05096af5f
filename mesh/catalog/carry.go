package catalog

import (
	"crypto/ed25519"
	"fmt"

	"meshd/mesh/id"
	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

// maxCarriedKeys bounds the origins whose certificates a Carried remembers.
const maxCarriedKeys = 1 << 18

// Pages hands out whole logs, those that want is true for, as encoded records in pages of at most records and
// bytes: certificates of all logs first, then what else the nodes logs hold, then the main logs, each in the
// order of logs and, within one, of seq. Equal catalogs have equal pages. The catalog is not locked while each
// runs; a log that grows meanwhile may end later than others.
func (c *Catalog) Pages(want func(LogID) bool, records, bytes int, each func(page [][]byte) error) error {
	p := pager{records: records, bytes: bytes, each: each}
	logs := c.logs(want)
	for _, round := range []struct {
		scope string
		certs bool
	}{{ScopeNodes, true}, {ScopeNodes, false}, {ScopeMain, false}} {
		for _, log := range logs {
			if log.Scope != round.scope {
				continue
			}
			for _, e := range c.ofLog(log) {
				if (e.kind == KindCert) != round.certs {
					continue
				}
				b, err := c.encoded(e)
				if err == nil && b != nil { // nil: a newer record made it needless meanwhile
					err = p.add(b)
				}
				if err != nil {
					return err
				}
			}
		}
	}
	return p.flush()
}

// logs lists the logs that want is true for, in their order.
func (c *Catalog) logs(want func(LogID) bool) []LogID {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []LogID
	for _, h := range c.set.order {
		if want(h.id) {
			out = append(out, h.id)
		}
	}
	return out
}

// ofLog lists the entries of a log, by seq.
func (c *Catalog) ofLog(log LogID) []*entry {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if h := c.set.logs[log]; h != nil {
		return h.recs.list()
	}
	return nil
}

type pager struct {
	records, bytes int
	each           func([][]byte) error
	page           [][]byte
	sizeBytes      int
}

func (p *pager) add(b []byte) error {
	if len(p.page) > 0 && (len(p.page) == p.records || p.sizeBytes+len(b) > p.bytes) {
		if err := p.flush(); err != nil {
			return err
		}
	}
	p.page = append(p.page, b)
	p.sizeBytes += len(b)
	return nil
}

func (p *pager) flush() error {
	if len(p.page) == 0 {
		return nil
	}
	page := p.page
	p.page, p.sizeBytes = nil, 0
	return p.each(page)
}

// Carried verifies records that come by another way than a session, before any of them is merged. It knows
// the keys of the catalog and of the certificates it was given itself. One goroutine uses it.
type Carried struct {
	c    *Catalog
	keys map[id.Node]ed25519.PublicKey

	Fresh   uint64 // records that the catalog does not have and would keep
	Keyless uint64 // records whose origin's certificate is not known, or not backed by this charter
}

// Carry begins to verify.
func (c *Catalog) Carry() *Carried { return &Carried{c: c, keys: map[id.Node]ed25519.PublicKey{}} }

// Check verifies a page as if a peer had sent it: form, limits, signatures. What the catalog has already was
// verified before. Records whose origin has no certificate known here, or backed by this charter,
// are counted and left out, as a session leaves them out; Take drops them too.
func (k *Carried) Check(encoded [][]byte) error {
	page, err := decodePage(encoded)
	if err != nil {
		return err
	}
	for _, in := range page {
		if in.kind != KindCert {
			continue
		}
		if err := k.c.readBody(in.entry, k.key); err != nil {
			return err
		}
		if in.cert() == nil {
			if err := signedByOwner(in); err != nil {
				return err
			}
			continue
		}
		if err := in.verify(in.cert().Key); err != nil {
			return err
		}
		if k.keys[in.log.Origin] = in.cert().Key; len(k.keys) > maxCarriedKeys {
			return &wire.LimitError{What: "origins with certificates", Limit: maxCarriedKeys, Got: len(k.keys)}
		}
	}
	kept := page[:0]
	for _, in := range page {
		has, useless := k.known(in)
		switch {
		case has:
		case k.key(in.log.Origin) == nil, in.kind == KindCert && in.cert() == nil:
			k.Keyless++
		default:
			kept = append(kept, in)
			if !useless {
				k.Fresh++
			}
		}
	}
	return parallel(len(kept), func(i int) error {
		in := kept[i]
		if in.kind == KindCert {
			return nil
		}
		if err := in.verify(k.key(in.log.Origin)); err != nil {
			return err
		}
		return k.c.readBody(in.entry, k.key)
	})
}

// signedByOwner judges a certificate that this charter does not back: whoever altered it since it was signed is found out.
func signedByOwner(in incoming) error {
	body, err := DecodeCert(in.rec.Body)
	if err != nil {
		return err
	}
	key, err := trust.LeafKey(body.Chain)
	switch {
	case err != nil:
		return fmt.Errorf("certificate of %s: %w: %w", in.log.Origin.Short(), ErrMalformed, err)
	case id.FromKey(key) != in.log.Origin:
		return fmt.Errorf("certificate of %s: %w: it is that of %s", in.log.Origin.Short(), ErrMalformed, id.FromKey(key).Short())
	}
	return in.verify(key)
}

// key is that of a certificate that was carried, or else heard.
func (k *Carried) key(n id.Node) ed25519.PublicKey {
	if key := k.keys[n]; key != nil {
		return key
	}
	key, _ := k.c.Key(n)
	return key
}

// known reports whether the catalog has a record, or would not keep it. One of the latter kind is verified all
// the same: a file with a forged record is refused whatever it says.
func (k *Carried) known(in incoming) (has, useless bool) {
	k.c.mu.RLock()
	defer k.c.mu.RUnlock()
	return k.c.set.known(in.entry)
}

// Record verifies one record by itself and returns it. It is an error if its origin's certificate is not known.
func (k *Carried) Record(encoded []byte) (Record, error) {
	e, err := decodeEntry(encoded)
	if err != nil {
		return Record{}, err
	}
	key := k.key(e.log.Origin)
	if key == nil {
		return Record{}, fmt.Errorf("record %d of %s: the certificate of its origin is not known here, or not backed by this mesh's charter", e.seq, e.log.Origin.Short())
	}
	return *e.rec, e.rec.Verify(key)
}

// Take merges a page as if a peer had sent it: verified, durable in one transaction, and passed on to all peers.
func (c *Catalog) Take(encoded [][]byte) error {
	page, err := decodePage(encoded)
	if err != nil {
		return err
	}
	return c.merge(page, nil, nil)
}
