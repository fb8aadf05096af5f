package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"meshd/store/artifact"
)

// scrubStep is how many bytes Scrub reads between two pauses.
const scrubStep = 1 << 20

// Scrub reads chunks again, in the order of their digests from one on and at about so many bytes a second, until it
// has read most bytes or comes to the end. Those that the disk damaged are forgotten: lost is how many. next is
// where to go on, zero when all that there was has been read. It is safe beside all other calls.
func (s *Store) Scrub(ctx context.Context, from artifact.Digest, most, bytesPerSecond int64) (next artifact.Digest, lost int, err error) {
	var read int64
	for read < most {
		var list []newRow
		if list, next, err = s.someRows(from); err != nil {
			return from, lost, fmt.Errorf("scrub: %w", err)
		}
		// Neighbours on disk are read together.
		slices.SortFunc(list, func(a, b newRow) int { return cmp.Or(cmp.Compare(a.pack, b.pack), cmp.Compare(a.off, b.off)) })
		n, bad, err := s.reread(ctx, list, bytesPerSecond)
		lost, read = lost+bad, read+n
		if err != nil {
			return from, lost, fmt.Errorf("scrub: %w", err)
		}
		if from = next; next.IsZero() {
			break
		}
	}
	return next, lost, nil
}

// scrubRows is how many rows Scrub looks at in one transaction: some 64 MiB.
const scrubRows = 1024

// someRows returns the first rows from a digest on that name bytes in packs, and the digest after them or zero.
func (s *Store) someRows(from artifact.Digest) (list []newRow, next artifact.Digest, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		c, n := tx.Bucket(bucketChunks).Cursor(), 0
		for k, v := c.Seek(from[:]); k != nil; k, v = c.Next() {
			if n++; n > scrubRows {
				next = artifact.Digest(k)
				return nil
			}
			r, err := decodeRow(v)
			if err != nil || len(k) != len(artifact.Digest{}) {
				return errors.Join(errBroken, err)
			}
			if r.inline == nil {
				list = append(list, newRow{id: artifact.Digest(k), row: r})
			}
		}
		return nil
	})
	return list, next, err
}

// reread reads the chunks of rows, with pauses.
func (s *Store) reread(ctx context.Context, list []newRow, bytesPerSecond int64) (read int64, lost int, err error) {
	var buf []byte
	var since int64
	pause := time.NewTimer(0)
	defer pause.Stop()
	for _, r := range list {
		if since >= scrubStep {
			pause.Reset(time.Duration(float64(since) / float64(bytesPerSecond) * float64(time.Second)))
			since = 0
			select {
			case <-pause.C:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return read, lost, ctx.Err()
		}
		if _, _, err := s.locate(r.id, nil); errors.Is(err, ErrMissing) {
			continue // collected meanwhile
		}
		b, err := s.Read(r.id, buf)
		switch {
		case errors.Is(err, ErrMissing):
			lost++
			continue
		case err != nil:
			return read, lost, err
		}
		buf = b
		read += int64(len(b))
		since += int64(len(b))
		s.packs.forgetCached(r.pack, int64(r.off), int64(r.n))
	}
	return read, lost, nil
}
