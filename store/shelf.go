package store

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"
)

// A Shelf is one ordered map of bytes to bytes in the store, for a package that knows nothing of disks.
// Keys are ordered by their bytes: write numbers big-endian. Its methods may be called at once from many
// goroutines.
type Shelf struct {
	store  *Store
	bucket []byte
}

// shelfPrefix keeps the buckets of shelves apart from the store's own.
const shelfPrefix = "shelf/"

// Many keys at once come in order, and nothing comes between them later: their pages are filled. Others are
// left half empty, as bbolt does, so that the next key finds room.
const (
	bulk     = 64
	bulkFill = 0.9
)

// Shelf returns the shelf of that name. It is made by the first Apply; before that it is empty.
func (s *Store) Shelf(bucket string) *Shelf {
	return &Shelf{store: s, bucket: []byte(shelfPrefix + bucket)}
}

// Scan returns copies of the pairs with from <= key < to, in order, at most limit of them; a nil to is
// the end, and a limit of 0 or less is none: then the caller knows that the shelf is small.
func (h *Shelf) Scan(from, to []byte, limit int) (keys, values [][]byte, err error) {
	err = h.store.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(h.bucket)
		if b == nil {
			return nil
		}
		c := b.Cursor()
		for k, v := c.Seek(from); k != nil && (to == nil || bytes.Compare(k, to) < 0); k, v = c.Next() {
			if limit > 0 && len(keys) == limit {
				break
			}
			keys, values = append(keys, bytes.Clone(k)), append(values, append([]byte{}, v...))
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("scan shelf %q: %w", h.bucket[len(shelfPrefix):], err)
	}
	return keys, values, nil
}

// Apply sets keys[i] to values[i], in order, in one transaction, durable on return; a nil value deletes,
// an empty one is kept. On an error nothing was applied, except where the disk failed while the last
// page was written: as for every store, that can have become durable all the same.
func (h *Shelf) Apply(keys, values [][]byte) error {
	if err := h.check(keys, values); err != nil || len(keys) == 0 {
		return err
	}
	return h.told(len(keys), h.store.commit(h.change(keys, values)))
}

// Later is Apply with the next transaction that anybody makes, at the cost of no fsync. wait is called at most
// once, and makes it durable if nothing else has.
func (h *Shelf) Later(keys, values [][]byte) (wait func() error) {
	if err := h.check(keys, values); err != nil || len(keys) == 0 {
		return func() error { return err }
	}
	durable := h.store.ride(h.change(keys, values))
	return func() error { return h.told(len(keys), durable()) }
}

func (h *Shelf) check(keys, values [][]byte) error {
	name := h.bucket[len(shelfPrefix):]
	if len(keys) != len(values) {
		return fmt.Errorf("apply to shelf %q: %d keys and %d values", name, len(keys), len(values))
	}
	for i, k := range keys {
		if len(k) == 0 || len(k) > bbolt.MaxKeySize || len(values[i]) > bbolt.MaxValueSize {
			return fmt.Errorf("apply to shelf %q: key of %d bytes (1 to %d are allowed), value of %d", name, len(k), bbolt.MaxKeySize, len(values[i]))
		}
	}
	return nil
}

func (h *Shelf) change(keys, values [][]byte) func(tx *bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(h.bucket)
		if err == nil && len(keys) >= bulk {
			b.FillPercent = bulkFill
		}
		for i := 0; err == nil && i < len(keys); i++ {
			if values[i] == nil {
				err = b.Delete(keys[i])
			} else {
				err = b.Put(keys[i], values[i])
			}
		}
		return err
	}
}

func (h *Shelf) told(changes int, err error) error {
	if err != nil {
		return fmt.Errorf("apply %d changes to shelf %q: %w", changes, h.bucket[len(shelfPrefix):], err)
	}
	return nil
}
