package store

import (
	"errors"
	"slices"
	"syscall"

	"go.etcd.io/bbolt"

	"meshd/store/artifact"
)

const (
	bufBytes    = 64 << 10 // what the copies of few chunks take
	flushBytes  = 1 << 20  // chunks are looked up and appended to a pack in runs of this size
	commitBytes = 16 << 20 // at most this much is written between two transactions,
	commitRows  = 8192     // and about this many rows at most go into one
)

// A writer carries one stream of chunks into packs and index. It belongs to one goroutine. What it wrote,
// or found, is not collected before it is closed.
type writer struct {
	s          *Store
	generation uint32 // when it began
	losses     uint64 // the same
	pulled     bool   // its chunks come from peers
	loose      bool   // a chunk that was found and then lost is no error

	// run are chunks that are not looked up yet, runBytes long together; buf is where add copied them to.
	run      []artifact.Summed
	runBytes int
	buf      []byte

	// taken are all chunks of run and rows, so that a repeated one is written once.
	taken map[artifact.Digest]struct{}

	// rows wait for the next transaction; spans are what must be synced before it.
	rows  []newRow
	spans []span
	bytes int64
}

type newRow struct {
	id artifact.Digest
	row
	touch bool // the chunk is held: only its generation is raised
}

func (s *Store) newWriter() *writer {
	w := &writer{s: s, losses: s.losses.Load(), taken: map[artifact.Digest]struct{}{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.generation = s.generation.Load()
	s.adding[w] = struct{}{}
	return w
}

// close gives up what is not committed.
func (w *writer) close() {
	for _, sp := range w.spans {
		w.s.packs.release(sp)
	}
	w.rows, w.run, w.spans = nil, nil, nil
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	delete(w.s.adding, w)
}

// add takes a copy of a chunk.
func (w *writer) add(c artifact.Summed) error {
	if _, ok := w.taken[c.ID]; ok {
		return nil
	}
	if cap(w.buf)-len(w.buf) < len(c.Bytes) { // pieces of before keep the memory that this leaves
		n := bufBytes
		if cap(w.buf) > 0 || len(c.Bytes) > n {
			n = flushBytes + artifact.MaxChunk // no run is longer
		}
		w.buf = make([]byte, 0, n)
	}
	from := len(w.buf)
	w.buf = append(w.buf, c.Bytes...)
	c.Bytes = w.buf[from:]
	return w.lend(c)
}

// lend takes a chunk without a copy: nobody changes its bytes before the next commit, or close.
func (w *writer) lend(c artifact.Summed) error {
	if _, ok := w.taken[c.ID]; ok {
		return nil
	}
	w.taken[c.ID] = struct{}{}
	w.run = append(w.run, c)
	w.runBytes += len(c.Bytes)
	if w.runBytes < flushBytes {
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	if w.bytes < commitBytes && len(w.rows) < commitRows {
		return nil
	}
	return w.commit(nil)
}

// holds reports whether all chunks are held, and if so has them spared by Collect like written ones.
func (w *writer) holds(chunks []artifact.Chunk) (all bool, err error) {
	var touch []newRow
	for some := range slices.Chunk(chunks, unmapLooks) {
		all = false
		err = w.s.view(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketChunks)
			for _, c := range some {
				if _, ok := w.taken[c.ID]; ok {
					continue
				}
				v := b.Get(c.ID[:])
				if v == nil {
					return nil
				}
				r, err := decodeRow(v)
				if err != nil {
					return err
				}
				if r.generation < w.generation {
					touch = append(touch, newRow{id: c.ID, touch: true})
				}
			}
			all = true
			return nil
		})
		w.s.lookedAt(len(some))
		if err != nil || !all {
			return false, err
		}
	}
	w.rows = append(w.rows, touch...)
	if len(w.rows) < commitRows {
		return true, nil
	}
	return true, w.commit(nil)
}

// flush looks up the run and appends what is new to a pack, or to the rows when it is small. The memory of
// the run is free again.
func (w *writer) flush() error {
	var fresh []artifact.Summed
	err := w.s.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketChunks)
		for _, p := range w.run {
			v := b.Get(p.ID[:])
			if v == nil {
				fresh = append(fresh, p)
				continue
			}
			r, err := decodeRow(v)
			if err != nil {
				return err
			}
			if r.generation < w.generation {
				w.rows = append(w.rows, newRow{id: p.ID, touch: true})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.s.lookedAt(len(w.run))
	first, kept := len(w.rows), 0
	inline := maxInline
	if w.runBytes > maxInlineRun || w.bytes > 0 {
		inline = 0
	}
	var packed [][]byte
	for _, p := range fresh {
		r := newRow{id: p.ID, row: row{generation: w.generation, crc: p.CRC, n: uint32(len(p.Bytes))}}
		if len(p.Bytes) <= inline {
			r.inline = append([]byte{}, p.Bytes...)
			r.n = 0
		} else {
			r.off = uint32(kept)
			kept += len(p.Bytes)
			packed = append(packed, p.Bytes)
		}
		w.rows = append(w.rows, r)
	}
	clear(w.run)
	w.run, w.runBytes = w.run[:0], 0
	w.buf = w.buf[:0]
	if kept == 0 {
		return nil
	}
	if err := w.s.step("append"); err != nil {
		return err
	}
	at, err := w.s.packs.append(packed)
	if errors.Is(err, syscall.ENOSPC) && w.s.unstageAll() {
		at, err = w.s.packs.append(packed)
	}
	if err != nil {
		return err
	}
	w.bytes += int64(kept)
	w.spans = append(w.spans, at)
	for i := range w.rows[first:] {
		if r := &w.rows[first+i]; r.inline == nil && !r.touch {
			r.pack, r.off = at.pack.number, r.off+uint32(at.from)
		}
	}
	return nil
}

// commit makes everything added so far durable: the packs first, then the rows in one transaction,
// together with what extra writes.
func (w *writer) commit(extra func(tx *bbolt.Tx) error) error {
	if err := w.flush(); err != nil {
		return err
	}
	if len(w.rows) == 0 && extra == nil {
		return nil
	}
	ends := map[*pack]span{}
	for _, sp := range w.spans {
		if sp.to > ends[sp.pack].to {
			ends[sp.pack] = sp
		}
	}
	for _, sp := range ends {
		if err := w.s.packs.sync(sp); err != nil {
			return err
		}
	}
	slices.SortFunc(w.rows, func(a, b newRow) int { return a.id.Compare(b.id) })
	err := w.s.commit(func(tx *bbolt.Tx) error {
		if err := w.putRows(tx); err != nil {
			return err
		}
		for k, sp := range ends {
			if err := raisePackEnd(tx, k.number, sp.to); err != nil {
				return err
			}
		}
		if extra != nil {
			return extra(tx)
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.s.lookedAt(len(w.rows))
	for _, sp := range w.spans {
		if w.pulled {
			w.s.packs.cool(sp)
		}
		w.s.packs.release(sp)
	}
	w.rows, w.spans, w.bytes = w.rows[:0], nil, 0
	clear(w.taken)
	return nil
}

func (w *writer) putRows(tx *bbolt.Tx) error {
	b := tx.Bucket(bucketChunks)
	for _, n := range w.rows {
		r := n.row
		if v := b.Get(n.id[:]); v != nil {
			held, err := decodeRow(v)
			if err != nil {
				return err
			}
			r = held // somebody else wrote it meanwhile: ours becomes dead bytes of a pack
			r.generation = max(held.generation, w.generation)
		} else if n.touch && w.loose {
			continue
		} else if n.touch {
			return errLost
		}
		if err := b.Put(n.id[:], r.encode()); err != nil {
			return err
		}
	}
	return nil
}
