package catalog

import "bytes"

// recordCost is about what a record in memory takes besides its body.
const recordCost = 256

// kept reports whether records like e are in memory whatever the cache holds: what nodes say of themselves
// is read all the time, and is bounded by their number.
func (e *entry) kept() bool {
	return e.kind == KindStatus || e.kind == KindStatement || e.kind == KindLease
}

// remember keeps the record of e in memory if there is room, or leaves it to the shelf. Nobody else has e
// yet, or holds mu.
func (c *Catalog) remember(e *entry) {
	if e.kept() {
		return
	}
	cost := recordCost + len(e.rec.Body)
	if c.cached+cost > c.cfg.CacheBytes {
		e.name = e.rec.Name // the name alone stays
		e.rec = nil
		return
	}
	c.cached += cost
}

// forget makes room where a live record went.
func (c *Catalog) forget(e *entry) {
	if e.rec != nil && !e.kept() {
		c.cached -= recordCost + len(e.rec.Body)
	}
}

// record returns all of e, from memory or the shelf; nil when it is no longer there.
func (c *Catalog) record(e *entry) *Record {
	if e.rec != nil {
		return e.rec
	}
	b, err := c.onShelf(e)
	if err != nil {
		c.cfg.Log.Error("record can not be read", "log", e.log.String(), "seq", e.seq, "error", err)
	}
	if b == nil || err != nil {
		return nil
	}
	whole, err := decodeEntry(b)
	if err != nil || whole.hash != e.hash {
		c.cfg.Log.Error("record on disk is not what it was", "log", e.log.String(), "seq", e.seq, "error", err)
		return nil
	}
	return whole.rec
}

// encoded returns the bytes of e's record; nil when it is no longer there.
func (c *Catalog) encoded(e *entry) ([]byte, error) {
	if e.rec != nil {
		return e.rec.Encode()
	}
	return c.onShelf(e)
}

func (c *Catalog) onShelf(e *entry) ([]byte, error) {
	key := e.key()
	_, values, err := c.cfg.Shelf.Scan(key, append(bytes.Clone(key), 0), 1)
	if err != nil || len(values) == 0 {
		return nil, err
	}
	return values[0], nil
}
