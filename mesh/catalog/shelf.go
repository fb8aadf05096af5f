package catalog

import (
	"encoding/binary"
	"fmt"
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
	shelfVersion = 1 // of the values under c, e, f and g
	keyHash      = 4 // bytes of a record's hash in its key
)

var epochKey = []byte{prefixEpoch}

func (e *entry) key() []byte { return append(e.log.from(e.seq), e.hash[:keyHash]...) }

// from is where on the shelf the records of the log begin that are not below seq.
func (l LogID) from(seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte{prefixRecord}, l.key()...), seq)
}

func (l LogID) cursorKey() []byte { return append([]byte{prefixCursor}, l.key()...) }

func (g grave) key() []byte { return append(append([]byte{prefixGrave}, g.origin[:]...), g.tag[:]...) }

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
