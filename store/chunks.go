package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"go.etcd.io/bbolt"

	"meshd/store/artifact"
)

// Missing returns those of chunks whose bytes are not held, in the same order.
func (s *Store) Missing(chunks []artifact.Chunk) ([]artifact.Chunk, error) {
	var missing []artifact.Chunk
	for some := range slices.Chunk(chunks, unmapLooks) {
		err := s.view(func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketChunks)
			for _, c := range some {
				if b.Get(c.ID[:]) == nil {
					missing = append(missing, c)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look up %d chunks: %w", len(chunks), err)
		}
		s.lookedAt(len(some))
	}
	return missing, nil
}

// Read returns the bytes of a chunk, in buf where it is large enough. Bytes that the disk no longer gives
// back as they were written are forgotten: they are missing from then on, and the error wraps ErrMissing.
func (s *Store) Read(id artifact.Digest, buf []byte) ([]byte, error) {
	for {
		r, b, err := s.locate(id, buf)
		if err != nil {
			return nil, fmt.Errorf("read chunk %s: %w", id.Short(), err)
		}
		if r.inline == nil {
			b = slices.Grow(buf[:0], int(r.n))[:r.n]
			err = s.packs.read(r.pack, int64(r.off), b)
		}
		if err == nil && artifact.CRC(b) == r.crc {
			return b, nil
		}
		if err != nil && !isDamage(err) {
			return nil, fmt.Errorf("read chunk %s: %w", id.Short(), err)
		}
		// Either the bytes are damaged, or Collect moved them since we looked.
		forgotten, ferr := s.forget(id, r)
		if ferr != nil {
			return nil, fmt.Errorf("read chunk %s: forget its damaged bytes: %w", id.Short(), ferr)
		}
		if forgotten {
			s.log.Warn("chunk damaged on disk and forgotten", "chunk", id.Short(), "pack", r.pack, "offset", r.off, "err", err)
			return nil, fmt.Errorf("read chunk %s: its bytes on disk are damaged, and forgotten now: fetch it again: %w", id.Short(), ErrMissing)
		}
	}
}

// isDamage tells bytes that are lost from a moment in which they cannot be read.
func isDamage(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.EIO)
}

// locate returns the row of a chunk, and the bytes if they are inline.
func (s *Store) locate(id artifact.Digest, buf []byte) (r row, b []byte, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		v := tx.Bucket(bucketChunks).Get(id[:])
		if v == nil {
			return ErrMissing
		}
		r, err = decodeRow(v)
		b = append(buf[:0], r.inline...)
		if r.inline != nil {
			r.inline = b
		}
		return err
	})
	return r, b, err
}

// forget drops the row of a chunk if it still is bad. It reports false when the row is another one by now.
func (s *Store) forget(id artifact.Digest, bad row) (forgotten bool, err error) {
	err = s.commit(func(tx *bbolt.Tx) error {
		forgotten = false
		b := tx.Bucket(bucketChunks)
		v := b.Get(id[:])
		if v == nil {
			forgotten = true
			return nil
		}
		r, err := decodeRow(v)
		if err != nil || !r.sameBytes(bad) {
			return err
		}
		forgotten = true
		return b.Delete(id[:])
	})
	if forgotten {
		s.losses.Add(1)
	}
	return forgotten, err
}

// Write keeps chunks of 1 byte to 256 KiB under their digests, durable on return. Those that are held
// already cost a look-up. Until an artifact that has them is held or expected, they are kept for at least
// one whole call of Collect.
func (s *Store) Write(chunks [][]byte) error {
	summed := make([]artifact.Summed, len(chunks))
	for i, c := range chunks {
		summed[i] = artifact.SumUp(c)
	}
	err := s.retryLost(func() error {
		b := s.begin()
		defer b.Close()
		if err := b.write(summed); err != nil {
			return err
		}
		return b.w.commit(nil)
	})
	if err != nil {
		return fmt.Errorf("write %d chunks: %w", len(chunks), err)
	}
	return nil
}

// batch is an artifact.Batch of chunks that came from peers.
type batch struct{ w *writer }

// Begin opens a batch. Its sums are believed; Place verifies again before anything is put in place. A chunk
// that was held when it was written and is found damaged before the commit is missing after it.
func (s *Store) Begin() artifact.Batch {
	b := s.begin()
	b.w.loose = true
	return b
}

func (s *Store) begin() batch {
	b := batch{s.newWriter()}
	b.w.pulled = true
	return b
}

func (b batch) Write(chunks []artifact.Summed) error {
	if err := b.write(chunks); err != nil {
		return fmt.Errorf("write %d chunks: %w", len(chunks), err)
	}
	return nil
}

// write copies small chunks, which gather until they are worth a write, and writes the others at once.
func (b batch) write(chunks []artifact.Summed) error {
	for _, c := range chunks {
		if n := len(c.Bytes); n == 0 || n > artifact.MaxChunk {
			return fmt.Errorf("a chunk has %d bytes: 1 to %d are allowed", n, artifact.MaxChunk)
		}
	}
	staged := b.w.s.stageChunks(chunks)
	defer staged()
	lent := false
	for _, c := range chunks {
		put := b.w.add
		if len(c.Bytes) > maxInline {
			put, lent = b.w.lend, true
		}
		if err := put(c); err != nil {
			return err
		}
	}
	if !lent {
		return nil
	}
	return b.w.flush()
}

func (b batch) Commit() error {
	b.w.s.stagesSoon()
	if err := b.w.commit(nil); err != nil {
		return fmt.Errorf("make chunks durable: %w", err)
	}
	return nil
}

func (b batch) Close() { b.w.close() }

// errLost is returned by a writer when chunks that it had found were forgotten before it was done.
var errLost = errors.New("chunks that were held were lost meanwhile")

// retryLost runs f again, a few times, when it fails with errLost.
func (s *Store) retryLost(f func() error) (err error) {
	for range 3 {
		if err = f(); !errors.Is(err, errLost) {
			return err
		}
	}
	return err
}
