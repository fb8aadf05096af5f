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
//	f origin(16) epoch(8) scope(1)                       proof of a fork, a wire-encoded proof
//	r origin(16) epoch(8) scope(1) seq(8) hash(4)        a record as Encode returns it
//
// Numbers are big-endian, so records of a log sort by age. The hash, the first bytes of that of the core,
// keeps the two records of a fork apart. A record that a newer one made needless may still be there: it is
// deleted with the next transaction, and at the next start it falls out of the merge again.
const (
	prefixEpoch  = 'e'
	prefixFork   = 'f'
	prefixRecord = 'r'
)

const (
	shelfVersion = 1    // of the values under e and f
	scanPage     = 1000 // pairs read at once
)

var epochKey = []byte{prefixEpoch}

// proof is a Fork on disk.
type proof struct{ A, B []byte }

func (e *entry) key() []byte {
	b := append([]byte{prefixRecord}, e.Log.key()...)
	b = binary.BigEndian.AppendUint64(b, e.Seq)
	return append(b, e.hash[:4]...)
}

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
	var certs, rest []*entry
	err = scan(c.cfg.Shelf, prefixRecord, func(_, value []byte) error {
		e, err := decodeEntry(value)
		switch {
		case err != nil:
			return err
		case e.Kind == KindCert:
			certs = append(certs, e)
		default:
			rest = append(rest, e)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range append(certs, rest...) {
		if err := c.readBody(e, c.keyOf); err != nil {
			c.cfg.Log.Warn("record on disk has no effect", "log", e.Log, "seq", e.Seq, "error", err)
		}
		c.take(e)
	}
	err = scan(c.cfg.Shelf, prefixFork, c.loadFork)
	c.set.settle()
	return err
}

func (c *Catalog) loadFork(_, value []byte) error {
	var p proof
	if err := wire.Unmarshal(value, shelfVersion, wire.Limits{}, &p); err != nil {
		return fmt.Errorf("proof of a fork: %w", err)
	}
	a, err := DecodeRecord(p.A)
	if err != nil {
		return fmt.Errorf("proof of a fork: %w", err)
	}
	b, err := DecodeRecord(p.B)
	if err != nil {
		return fmt.Errorf("proof of a fork: %w", err)
	}
	if h := c.set.logs[a.Log]; h != nil {
		h.forked = &Fork{a, b}
	}
	return nil
}

// take adds e to the set and notes what the next transaction deletes. Only a writer calls it.
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
	for _, d := range ch.dropped {
		c.stale[string(d.key())] = true
		c.news.note(d)
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
		for _, k := range keys[:puts] {
			if k[0] == prefixRecord {
				c.stale[string(k)] = true
			}
		}
		return fmt.Errorf("write to the store: %w", err)
	}
	clear(c.stale)
	return nil
}
