package catalog

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"meshd/mesh/wire"
)

// Shelf is one ordered durable map: what the catalog needs of a disk. Keys and values are the catalog's
// own; nobody else writes there.
type Shelf interface {
	// Scan returns up to limit pairs with from <= key < to in ascending order, as copies.
	Scan(from, to []byte, limit int) (keys, values [][]byte, err error)
	// Apply is one durable transaction; a nil value deletes. After an error the pairs may be there or not.
	Apply(keys, values [][]byte) error
}

// What a key of the shelf begins with.
//
//	e                                                    the current epoch, a wire-encoded uint64
//	c origin(16) epoch(8) scope(1)                       a cursor: the seq up to which a peer has sent the log, a
//	                                                     wire-encoded uint64; only while the log is incomplete
//	f origin(16) epoch(8) scope(1)                       proof of a fork, a wire-encoded proof
//	g origin(8) tag(8)                                   a grave: its leaf, wire-encoded bytes
//	r origin(16) epoch(8) scope(1) seq(8) hash(4)        a record as Encode returns it
//
// Numbers are big-endian, so records of a log sort by age. The hash, the first bytes of that of the core,
// keeps the two records of a fork apart. A record that a newer one made needless may still be there: it is
// deleted with the next transaction, and at the next start it falls out of the merge again.
const (
	prefixEpoch  = 'e'
	prefixCursor = 'c'
	prefixFork   = 'f'
	prefixGrave  = 'g'
	prefixRecord = 'r'
)

const (
	shelfVersion = 1    // of the values under c, e, f and g
	scanPage     = 1000 // pairs read at once
)

var epochKey = []byte{prefixEpoch}

func (e *entry) key() []byte { return append(e.log.from(e.seq), e.hash[:4]...) }

// from is where on the shelf the records of the log begin that are not below seq.
func (l LogID) from(seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte{prefixRecord}, l.key()...), seq)
}

func (l LogID) cursorKey() []byte { return append([]byte{prefixCursor}, l.key()...) }

func (g grave) key() []byte { return append(append([]byte{prefixGrave}, g.origin[:]...), g.tag[:]...) }

// scan calls each for all pairs whose key begins with prefix.
func scan(shelf Shelf, prefix byte, each func(key, value []byte) error) error {
	from, to := []byte{prefix}, []byte{prefix + 1}
	for {
		keys, values, err := shelf.Scan(from, to, scanPage)
		if err != nil {
			return err
		}
		for i, k := range keys {
			if err := each(k, values[i]); err != nil {
				return fmt.Errorf("key %x: %w", k, err)
			}
		}
		if len(keys) < scanPage {
			return nil
		}
		from = append(bytes.Clone(keys[len(keys)-1]), 0)
	}
}

// load fills the set from the shelf. The records were verified before they were written; a certificate is
// verified again, because what it says is needed, and so is who may revoke.
func (c *Catalog) load() error {
	_, values, err := c.cfg.Shelf.Scan(epochKey, []byte{prefixEpoch, 0}, 1)
	if err != nil {
		return err
	}
	if len(values) == 1 {
		if err := wire.Unmarshal(values[0], shelfVersion, wire.Limits{}, &c.epoch); err != nil {
			return fmt.Errorf("current epoch: %w", err)
		}
	}
	for prefix, read := range map[byte]func(key, value []byte) error{prefixFork: c.loadFork, prefixGrave: c.loadGrave} {
		if err := scan(c.cfg.Shelf, prefix, read); err != nil {
			return err
		}
	}
	if err := c.loadRecords(); err != nil {
		return err
	}
	c.set.settle()
	return scan(c.cfg.Shelf, prefixCursor, c.loadCursor)
}

// loadRecords reads a page at a time. Statements wait for the keys that verify them.
func (c *Catalog) loadRecords() error {
	var statements []*entry
	from, to := []byte{prefixRecord}, []byte{prefixRecord + 1}
	for {
		keys, values, err := c.cfg.Shelf.Scan(from, to, scanPage)
		if err != nil {
			return err
		}
		page, err := decodePage(values)
		if err != nil {
			return err
		}
		for _, in := range page {
			if in.kind == KindStatement {
				statements = append(statements, in.entry)
				continue
			}
			c.reload(in.entry)
		}
		if len(keys) < scanPage {
			break
		}
		from = append(bytes.Clone(keys[len(keys)-1]), 0)
	}
	for _, e := range statements {
		c.reload(e)
	}
	return nil
}

func (c *Catalog) reload(e *entry) {
	if err := c.readBody(e, c.keyOf); err != nil {
		c.cfg.Log.Warn("record on disk has no effect", "log", e.log, "seq", e.seq, "error", err)
	}
	c.take(e)
}

func (c *Catalog) loadFork(_, value []byte) error {
	var p proof
	if err := wire.Unmarshal(value, shelfVersion, wire.Limits{}, &p); err != nil {
		return fmt.Errorf("proof of a fork: %w", err)
	}
	a, b, err := p.decode()
	if err == nil {
		c.forks[*a.log] = Fork{*a.rec, *b.rec}
	}
	return err
}

func (c *Catalog) loadGrave(key, value []byte) error {
	var leaf [8]byte
	if len(key) != 1+16 {
		return fmt.Errorf("grave: %w: key of %d bytes", ErrMalformed, len(key))
	}
	if err := wire.Unmarshal(value, shelfVersion, wire.Limits{}, &leaf); err != nil {
		return fmt.Errorf("grave: %w", err)
	}
	c.set.inter(grave{[8]byte(key[1:9]), [8]byte(key[9:]), leaf})
	return nil
}

func (c *Catalog) loadCursor(key, value []byte) error {
	var seq uint64
	if err := wire.Unmarshal(value, shelfVersion, wire.Limits{}, &seq); err != nil {
		return fmt.Errorf("cursor: %w", err)
	}
	log, ok := readLogKey(key[1:])
	if h := c.set.logs[log]; ok && h != nil && !h.complete() {
		h.cursor = seq
	} else {
		c.stale[string(key)] = true
	}
	return nil
}

// take adds e to the set and notes what the next transaction deletes. Only a writer calls it, and no one
// reads e.rec of an entry that it is not sure to hold alone before.
func (c *Catalog) take(e *entry) change {
	has, useless := c.set.known(e)
	if useless {
		c.stale[string(e.key())] = true
	}
	if has || useless {
		return change{}
	}
	ch := c.set.add(e)
	c.news.note(e)
	if _, forked := c.forks[*e.log]; forked {
		c.set.logs[*e.log].forked = true
	}
	if ch.lifted {
		h := c.set.logs[*e.log]
		c.stale[string(h.grave().key())] = true
	}
	c.remember(e)
	for _, d := range ch.dropped {
		c.stale[string(d.key())] = true
		c.news.note(d)
		c.forget(d)
	}
	return ch
}

// apply makes puts durable and deletes what is stale, in one transaction. A put that failed is stale as
// well: it may be on the disk, and nobody was told of it.
func (c *Catalog) apply(keys, values [][]byte) error {
	for _, k := range keys {
		delete(c.stale, string(k))
	}
	puts := len(keys)
	for k := range c.stale {
		keys, values = append(keys, []byte(k)), append(values, nil)
	}
	if err := c.cfg.Shelf.Apply(keys, values); err != nil {
		for i, k := range keys[:puts] {
			if k[0] == prefixRecord && values[i] != nil {
				c.stale[string(k)] = true
			}
		}
		return fmt.Errorf("write to the store: %w", err)
	}
	clear(c.stale)
	return nil
}
