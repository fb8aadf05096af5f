package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"go.etcd.io/bbolt"

	"meshd/store/artifact"
)

// sweepRows is how many rows one transaction of Collect looks at: others are let in between.
const sweepRows = 4096

// Collect forgets the artifacts for which keep is false, then the chunks that no artifact reaches, then
// rewrites packs of which less than half is still needed. keep is called for artifacts held and expected,
// with nothing locked. It is safe beside all other calls: what is younger than the call of Collect before
// this one, or is being written, is spared, so that a whole artifact goes with the second or third call
// after it was made. A crash, or the end of ctx, costs another call and nothing else.
func (s *Store) Collect(ctx context.Context, keep func(root artifact.Digest) bool) error {
	s.collecting.Lock()
	defer s.collecting.Unlock()
	before, err := s.nextGeneration()
	if err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	kept, err := s.forgetRoots(ctx, before, keep)
	if err != nil {
		return fmt.Errorf("collect: forget artifacts: %w", err)
	}
	reached, err := s.reach(ctx, kept)
	if err != nil {
		return fmt.Errorf("collect: see what is needed: %w", err)
	}
	if err := s.sweep(ctx, before, reached); err != nil {
		return fmt.Errorf("collect: forget chunks: %w", err)
	}
	if err := s.rewritePacks(ctx); err != nil {
		return fmt.Errorf("collect: rewrite packs: %w", err)
	}
	return nil
}

// nextGeneration begins a generation. Rows of a generation below the returned one may go.
func (s *Store) nextGeneration() (before uint32, err error) {
	next := s.generation.Load() + 1
	if next == math.MaxUint32 {
		return 0, errors.New("4,294,967,294 collections are enough for one data folder")
	}
	err = s.commit(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketSelf).Put(keyGeneration, binary.BigEndian.AppendUint32(nil, next))
	})
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.generation.Store(next)
	before = next - 1
	for w := range s.adding {
		before = min(before, w.generation)
	}
	return before, nil
}

// forgetRoots deletes the roots that are old and not to be kept, and returns all others.
func (s *Store) forgetRoots(ctx context.Context, before uint32, keep func(artifact.Digest) bool) (kept []artifact.Digest, err error) {
	var old []artifact.Digest
	err = s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketRoots).ForEach(func(k, v []byte) error {
			if len(k) != len(artifact.Digest{}) || len(v) != 5 {
				return fmt.Errorf("%w: root row of %d and %d bytes", errBroken, len(k), len(v))
			}
			if binary.BigEndian.Uint32(v[1:]) < before {
				old = append(old, artifact.Digest(k))
			} else {
				kept = append(kept, artifact.Digest(k))
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	var gone []artifact.Digest
	for _, root := range old {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if keep(root) {
			kept = append(kept, root)
		} else {
			gone = append(gone, root)
		}
	}
	if len(gone) == 0 {
		return kept, nil
	}
	s.mu.Lock()
	for _, root := range gone {
		delete(s.complete, root)
	}
	s.mu.Unlock()
	return kept, s.commit(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketRoots)
		for _, root := range gone {
			// Added or expected again meanwhile: then its generation is new.
			if v := b.Get(root[:]); len(v) != 5 || binary.BigEndian.Uint32(v[1:]) >= before {
				continue
			}
			if err := b.Delete(root[:]); err != nil {
				return err
			}
		}
		return nil
	})
}

// reached is a set of digests, by 8 of their bytes: two that share them keep each other, which does no
// harm.
type reached map[uint64]struct{}

func (r reached) add(d artifact.Digest)      { r[binary.BigEndian.Uint64(d[1:])] = struct{}{} }
func (r reached) has(d artifact.Digest) bool { _, ok := r[binary.BigEndian.Uint64(d[1:])]; return ok }

// reach returns what the roots are made of, as far as it is known.
func (s *Store) reach(ctx context.Context, roots []artifact.Digest) (reached, error) {
	set := reached{}
	for _, root := range roots {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		set.add(root)
		r, entries, err := s.manifest(root)
		if err != nil && !errors.Is(err, ErrMissing) && !errors.Is(err, artifact.ErrMalformed) {
			return nil, err
		}
		for _, c := range r.Parts {
			set.add(c.ID)
		}
		for _, e := range entries {
			for _, c := range e.Chunks {
				set.add(c.ID)
			}
		}
	}
	return set, nil
}

// sweep deletes old rows that nothing reaches.
func (s *Store) sweep(ctx context.Context, before uint32, keep reached) error {
	var from []byte
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		dead, next, err := s.deadRows(from, before, keep)
		if err != nil {
			return err
		}
		if len(dead) > 0 {
			s.losses.Add(1)
			err := s.commit(func(tx *bbolt.Tx) error {
				b := tx.Bucket(bucketChunks)
				for _, id := range dead {
					v := b.Get(id[:])
					if v == nil {
						continue
					}
					if r, err := decodeRow(v); err != nil || r.generation >= before {
						if err != nil {
							return err
						}
						continue // needed again meanwhile
					}
					if err := b.Delete(id[:]); err != nil {
						return err
					}
				}
				return nil
			})
			s.losses.Add(1)
			if err != nil {
				return err
			}
		}
		if next == nil {
			return nil
		}
		from = next
	}
}

// deadRows looks at the rows from a key on; next is where to go on, or nil.
func (s *Store) deadRows(from []byte, before uint32, keep reached) (dead []artifact.Digest, next []byte, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketChunks).Cursor()
		n := 0
		for k, v := c.Seek(from); k != nil; k, v = c.Next() {
			if n++; n > sweepRows {
				next = append([]byte{}, k...)
				return nil
			}
			r, err := decodeRow(v)
			if err != nil || len(k) != len(artifact.Digest{}) {
				return errors.Join(errBroken, err)
			}
			if id := artifact.Digest(k); r.generation < before && !keep.has(id) {
				dead = append(dead, id)
			}
		}
		return nil
	})
	return dead, next, err
}

// rewritePacks moves what is needed out of full packs that are more than half dead, and removes them.
func (s *Store) rewritePacks(ctx context.Context) error {
	live := map[uint32]int64{}
	rows := map[uint32][]newRow{}
	err := s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketChunks).ForEach(func(_, v []byte) error {
			r, err := decodeRow(v)
			if err == nil && r.inline == nil {
				live[r.pack] += int64(r.n)
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	sparse := s.packs.sparse(live)
	if len(sparse) == 0 {
		return nil
	}
	err = s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketChunks).ForEach(func(k, v []byte) error {
			r, err := decodeRow(v)
			if err == nil && r.inline == nil && sparse[r.pack] {
				rows[r.pack] = append(rows[r.pack], newRow{id: artifact.Digest(k), row: r})
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	for number := range sparse {
		if err := s.rewritePack(ctx, number, rows[number]); err != nil {
			return err
		}
	}
	return nil
}

// rewritePack copies the rows of a pack to the end of another and removes the pack.
func (s *Store) rewritePack(ctx context.Context, number uint32, rows []newRow) error {
	var spans []span
	defer func() {
		for _, sp := range spans {
			s.packs.release(sp)
		}
	}()
	moved := make([]newRow, 0, len(rows))
	var damaged []newRow
	for _, r := range rows {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := make([]byte, r.n)
		err := s.packs.read(r.pack, int64(r.off), b)
		if err != nil && !isDamage(err) {
			return err
		}
		if err != nil || artifact.CRC(b) != r.crc {
			damaged = append(damaged, r)
			continue
		}
		at, err := s.packs.append([][]byte{b})
		if err != nil {
			return err
		}
		spans = append(spans, at)
		to := r
		to.pack, to.off = at.pack.number, uint32(at.from)
		moved = append(moved, to)
	}
	for _, sp := range spans {
		if err := s.packs.sync(sp); err != nil {
			return err
		}
	}
	err := s.commit(func(tx *bbolt.Tx) error { return moveRows(tx, number, moved, spans, damaged) })
	if err != nil {
		return err
	}
	s.losses.Add(1)
	return s.packs.remove(number)
}

// moveRows lets rows that still are in the pack name their new places, moved[i] in spans[i], drops the
// damaged ones, and then the pack.
func moveRows(tx *bbolt.Tx, number uint32, moved []newRow, spans []span, damaged []newRow) error {
	b := tx.Bucket(bucketChunks)
	for i, to := range moved {
		v := b.Get(to.id[:])
		if v == nil {
			continue
		}
		now, err := decodeRow(v)
		if err != nil {
			return err
		}
		if now.inline != nil || now.pack != number {
			continue
		}
		to.generation = now.generation
		if err := b.Put(to.id[:], to.encode()); err != nil {
			return err
		}
		if err := raisePackEnd(tx, to.pack, spans[i].to); err != nil {
			return err
		}
	}
	for _, r := range damaged {
		v := b.Get(r.id[:])
		if v == nil {
			continue
		}
		now, err := decodeRow(v)
		if err == nil && now.sameBytes(r.row) { // else it was fetched again meanwhile
			err = b.Delete(r.id[:])
		}
		if err != nil {
			return err
		}
	}
	return tx.Bucket(bucketPacks).Delete(packKey(number))
}
