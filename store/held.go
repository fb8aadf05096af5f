package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"meshd/store/artifact"
)

// Expect records that the bytes of root are being fetched: Collect asks about it, and as long as it is to
// be kept spares what has arrived. It becomes durable with the first of these bytes, or when wait, to be called
// once, returns nil.
func (s *Store) Expect(root artifact.Digest) (wait func() error) {
	state, err := s.rootState(root)
	durable := func() error { return err }
	if err == nil && state == 0 {
		durable = s.ride(func(tx *bbolt.Tx) error { return putRoot(tx, root, rootExpected, s.generation.Load()) })
	}
	return func() error {
		if err := durable(); err != nil {
			return fmt.Errorf("expect artifact %s: %w", root.Short(), err)
		}
		return nil
	}
}

// putRoot sets the generation of a root and raises its state.
func putRoot(tx *bbolt.Tx, root artifact.Digest, state byte, generation uint32) error {
	if v := tx.Bucket(bucketRoots).Get(root[:]); v != nil {
		state = max(state, v[0])
	}
	return tx.Bucket(bucketRoots).Put(root[:], binary.BigEndian.AppendUint32([]byte{state}, generation))
}

// Has reports whether all bytes of root are held: its root block, its parts, its data. The first time it
// is true it is recorded, durably, so that Roots lists it and Collect asks about it.
func (s *Store) Has(root artifact.Digest) (bool, error) {
	if s.isComplete(root) {
		return true, nil
	}
	losses := s.losses.Load()
	s.mu.Lock()
	lacks, incomplete := s.lacking[root]
	s.mu.Unlock()
	if incomplete { // asked again and again while it comes: one look-up, not one for each chunk
		if missing, err := s.Missing([]artifact.Chunk{{ID: lacks}}); err != nil || len(missing) > 0 {
			return false, err
		}
	}
	lists, err := s.made(root)
	if errors.Is(err, ErrMissing) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	held := false
	err = s.retryLost(func() error {
		held, err = s.holdAll(root, lists)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("record artifact %s as held: %w", root.Short(), err)
	}
	if !held {
		return false, s.noteLack(root, lists)
	}
	s.noteComplete(root, losses)
	return true, nil
}

// isComplete reports whether all of root was held, and nothing was lost since.
func (s *Store) isComplete(root artifact.Digest) bool {
	losses := s.losses.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	at, known := s.complete[root]
	return known && at == losses
}

// noteComplete remembers that all of root was held when so many rows had been lost.
func (s *Store) noteComplete(root artifact.Digest, losses uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.complete[root] = losses
	delete(s.lacking, root)
}

// made lists all that root is made of, as Chunks does, but chunks that come again in it again, and without a copy.
func (s *Store) made(root artifact.Digest) ([][]artifact.Chunk, error) {
	r, entries, err := s.manifest(root)
	if err != nil {
		return nil, fmt.Errorf("chunks of %s: %w", root.Short(), err)
	}
	out := append(make([][]artifact.Chunk, 0, 2+len(entries)), []artifact.Chunk{{ID: root}}, r.Parts)
	for _, e := range entries {
		if len(e.Chunks) > 0 {
			out = append(out, e.Chunks)
		}
	}
	return out, nil
}

// maxLacking bounds the incomplete roots of which a missing chunk is remembered.
const maxLacking = 1024

// noteLack remembers a chunk of root that is missing: the last one, which comes late.
func (s *Store) noteLack(root artifact.Digest, lists [][]artifact.Chunk) error {
	last, err := s.lastMissing(lists)
	if err != nil || last == (artifact.Digest{}) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lacking) >= maxLacking {
		clear(s.lacking)
	}
	s.lacking[root] = last
	return nil
}

// lastMissing returns the last chunk that is not held; zero if all are.
func (s *Store) lastMissing(lists [][]artifact.Chunk) (last artifact.Digest, err error) {
	for _, list := range slices.Backward(lists) {
		for len(list) > 0 {
			n := max(len(list)-unmapLooks, 0)
			missing, err := s.Missing(list[n:])
			if err != nil {
				return last, err
			}
			if len(missing) > 0 {
				return missing[len(missing)-1].ID, nil
			}
			list = list[:n]
		}
	}
	return last, nil
}

// holdAll records root as held if all its chunks are. From the look on, Collect spares them.
func (s *Store) holdAll(root artifact.Digest, lists [][]artifact.Chunk) (bool, error) {
	w := s.newWriter()
	defer w.close()
	state, err := s.rootState(root)
	if err != nil {
		return false, err
	}
	if state == rootHeld { // its chunks are reached by Collect, whatever their age
		missing, err := s.lastMissing(lists)
		return err == nil && missing == artifact.Digest{}, err
	}
	for _, chunks := range lists {
		if all, err := w.holds(chunks); err != nil || !all {
			return false, err
		}
	}
	return true, w.commit(func(tx *bbolt.Tx) error { return putRoot(tx, root, rootHeld, w.generation) })
}

// rootState returns the state recorded for root, 0 for none.
func (s *Store) rootState(root artifact.Digest) (state byte, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucketRoots).Get(root[:]); v != nil {
			state = v[0]
		}
		return nil
	})
	return state, err
}

// Head returns what the root block of an artifact says: all of the manifest but its entries, which may be many. Its
// errors are those of Manifest.
func (s *Store) Head(root artifact.Digest) (artifact.Root, error) {
	block, err := s.Read(root, nil)
	var r artifact.Root
	if err == nil {
		r, err = artifact.DecodeRoot(block)
	}
	if err != nil {
		return artifact.Root{}, fmt.Errorf("root block of %s: %w", root.Short(), err)
	}
	return r, nil
}

// Manifest returns the manifest of root. It wraps ErrMissing when a part of it is not held, and
// artifact.ErrMalformed when what is held under that digest is no manifest.
func (s *Store) Manifest(root artifact.Digest) (artifact.Manifest, error) {
	r, entries, err := s.manifest(root)
	if err != nil {
		return artifact.Manifest{}, fmt.Errorf("manifest of %s: %w", root.Short(), err)
	}
	return artifact.Manifest{Entries: entries, Of: r.Of, Origin: r.Origin, Meta: r.Meta}, nil
}

func (s *Store) manifest(root artifact.Digest) (artifact.Root, []artifact.Entry, error) {
	if k := s.knownManifest(root); k != nil {
		return k.head, k.entries, nil
	}
	block, err := s.Read(root, nil)
	if err != nil {
		return artifact.Root{}, nil, err
	}
	r, err := artifact.DecodeRoot(block)
	if err != nil {
		return artifact.Root{}, nil, err
	}
	size := 0
	for _, c := range r.Parts {
		size += int(c.SizeBytes)
	}
	parts := make([]byte, 0, size) // at most artifact.MaxManifestBytes: DecodeRoot looked
	var buf []byte
	for _, c := range r.Parts {
		if buf, err = s.Read(c.ID, buf); err != nil {
			return r, nil, err
		}
		if len(buf) != int(c.SizeBytes) {
			return r, nil, fmt.Errorf("part %s has %d bytes, the root block says %d: %w", c.ID.Short(), len(buf), c.SizeBytes, artifact.ErrMalformed)
		}
		parts = append(parts, buf...)
	}
	entries, err := artifact.DecodeEntries(parts, r)
	return r, entries, err
}

// Chunks returns all that root is made of, each once: root block, parts, data, in this order. It wraps
// ErrMissing when the root block or a part is not held; of data it looks at none.
func (s *Store) Chunks(root artifact.Digest) ([]artifact.Chunk, error) {
	r, entries, err := s.manifest(root)
	if err != nil {
		return nil, fmt.Errorf("chunks of %s: %w", root.Short(), err)
	}
	seen := map[artifact.Digest]struct{}{}
	var out []artifact.Chunk
	add := func(list ...artifact.Chunk) {
		for _, c := range list {
			if _, ok := seen[c.ID]; !ok {
				seen[c.ID] = struct{}{}
				out = append(out, c)
			}
		}
	}
	block, err := s.Read(root, nil)
	if err != nil {
		return nil, fmt.Errorf("chunks of %s: %w", root.Short(), err)
	}
	add(artifact.Chunk{ID: root, SizeBytes: uint32(len(block))})
	add(r.Parts...)
	for _, e := range entries {
		add(e.Chunks...)
	}
	return out, nil
}

// Reread reads all bytes of root that are held, so that whatever the disk damaged is forgotten at once and
// comes back in one pull. It wraps ErrMissing when some are not held, or not any more.
func (s *Store) Reread(ctx context.Context, root artifact.Digest) error {
	chunks, err := s.Chunks(root)
	if err != nil {
		return err
	}
	var buf []byte
	missing := 0
	for _, c := range chunks {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		b, err := s.Read(c.ID, buf)
		switch {
		case errors.Is(err, ErrMissing):
			missing++
		case err != nil:
			return err
		default:
			buf = b
		}
	}
	if missing > 0 {
		return fmt.Errorf("reread %s: %d of %d chunks: %w", root.Short(), missing, len(chunks), ErrMissing)
	}
	return nil
}

// Roots returns the roots of all artifacts that were added or that Has found complete, sorted. Bytes
// found damaged later do not take one off the list: ask Has.
func (s *Store) Roots() ([]artifact.Digest, error) {
	var out []artifact.Digest
	err := s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketRoots).ForEach(func(k, v []byte) error {
			if len(k) != len(artifact.Digest{}) || len(v) != 5 {
				return fmt.Errorf("%w: root row of %d and %d bytes", errBroken, len(k), len(v))
			}
			if v[0] == rootHeld {
				out = append(out, artifact.Digest(k))
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list artifacts: %w", err)
	}
	return out, nil
}
