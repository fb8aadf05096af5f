// Package store is what a node remembers: one bbolt file, state.db, and packs, the append-only files that
// hold the bytes of chunks.
//
// Everything a call acknowledges is durable when it returns, and every call may be repeated after a
// crash at any point. Shelves keep what other packages remember; chunks, roots and placed paths are the
// store's own.
package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"meshd/store/artifact"
)

// ErrMissing is wrapped when bytes that were asked for are not held: they were never here, were
// collected, or were found damaged and forgotten. They can be fetched from a peer and written again.
var ErrMissing = errors.New("not held")

// Options of a Store. The zero value is ready.
type Options struct {
	// MaxSizeBytes bounds the packs, and state.db by itself, each; 0 is no limit but the disk's. A write
	// that would pass it fails as on a full disk: the error wraps syscall.ENOSPC.
	MaxSizeBytes int64
	// MaxPackBytes bounds the packs alone, in the same way; 0 is no limit of its own.
	MaxPackBytes int64
	Log          *slog.Logger // nil = silent
	// Fault is nil, or a test's way to fail the named step of a write: "append", "before commit", "after
	// commit" (failed, applied anyway). Called from many goroutines.
	Fault func(step string) error
}

// A Store is an open data folder. Its methods may be called at once from many goroutines.
type Store struct {
	dir      string
	options  Options
	log      *slog.Logger
	db       *bbolt.DB
	packs    *packs
	setAside string
	commits  commits
	broken   atomic.Pointer[error] // state.db failed in use: nothing is written any more
	seen     seenFiles
	looks    atomic.Int64 // at state.db since it was last given back

	// generation is the number of calls of Collect, durable. New rows carry it: Collect spares the young.
	generation atomic.Uint32
	collecting sync.Mutex

	// losses counts rows that were dropped: what was complete before may not be any more.
	losses atomic.Uint64

	mu       sync.Mutex                          // guards what follows
	adding   map[*writer]struct{}                // writers at work
	complete map[artifact.Digest]uint64          // roots known to be complete, at that count of losses
	lacking  map[artifact.Digest]artifact.Digest // a chunk that an incomplete root was seen to lack
	placing  map[string]struct{}                 // paths being placed or removed
	staged   map[string]*stage                   // by path
}

// Open opens the data folder, making it (mode 0700) if need be. A state.db that is cut short or broken is
// renamed and a fresh one begun: SetAside tells. It is an error that names the process when another meshd
// has the folder open.
func Open(dir string, o Options) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	db, setAside, err := openDB(filepath.Join(dir, "state.db"), o.MaxSizeBytes)
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{
		dir: dir, options: o, log: o.Log, db: db, setAside: setAside,
		adding: map[*writer]struct{}{}, complete: map[artifact.Digest]uint64{}, lacking: map[artifact.Digest]artifact.Digest{},
		placing: map[string]struct{}{}, staged: map[string]*stage{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if setAside != "" {
		s.log.Error("state.db was broken and is set aside: its content comes back from peers", "file", setAside)
	}
	if err := s.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %q: %w", dir, err), db.Close())
	}
	s.unmapDB() // all of it was read
	return s, nil
}

// start makes the buckets, and the packs agree with the index.
func (s *Store) start() error {
	var ends map[uint32]int64
	err := s.view(func(tx *bbolt.Tx) (err error) {
		if tx.Bucket(bucketSelf) == nil {
			return nil
		}
		if v := tx.Bucket(bucketSelf).Get(keyGeneration); len(v) == 4 {
			s.generation.Store(binary.BigEndian.Uint32(v))
		}
		ends, err = packEnds(tx)
		return err
	})
	if err != nil {
		return err
	}
	if ends == nil {
		err := s.update(func(tx *bbolt.Tx) error {
			for _, name := range [][]byte{bucketChunks, bucketPacks, bucketRoots, bucketPlaced, bucketSelf} {
				if _, err := tx.CreateBucketIfNotExists(name); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	packs, short, err := openPacks(filepath.Join(s.dir, "packs"), ends)
	if err != nil {
		return err
	}
	packs.maxSizeBytes = s.options.MaxSizeBytes
	if own := s.options.MaxPackBytes; own > 0 && (packs.maxSizeBytes == 0 || own < packs.maxSizeBytes) {
		packs.maxSizeBytes = own
	}
	s.packs = packs
	if len(short) > 0 {
		return s.dropBeyond(short)
	}
	return nil
}

// dropBeyond forgets the chunks of packs that lost bytes which had been durable.
func (s *Store) dropBeyond(short map[uint32]int64) error {
	var lost [][]byte
	err := s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketChunks).ForEach(func(k, v []byte) error {
			r, err := decodeRow(v)
			if size, ok := short[r.pack]; err == nil && ok && r.inline == nil && int64(r.off)+int64(r.n) > size {
				lost = append(lost, append([]byte{}, k...))
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	s.log.Error("packs are shorter than they were: their chunks are fetched again", "packs", len(short), "chunks", len(lost))
	return s.update(func(tx *bbolt.Tx) error {
		for _, k := range lost {
			if err := tx.Bucket(bucketChunks).Delete(k); err != nil {
				return err
			}
		}
		for number, size := range short {
			if size == 0 {
				if err := tx.Bucket(bucketPacks).Delete(packKey(number)); err != nil {
					return err
				}
			} else if err := putPackEnd(tx, number, size); err != nil {
				return err
			}
		}
		return nil
	})
}

// SetAside returns the path under which Open put a broken state.db, or "" when there was none. Then the
// node's own records are gone too: it asks peers for its head, and begins a new epoch.
func (s *Store) SetAside() string { return s.setAside }

// Close waits for transactions that run and closes the files. Calls made after it fail.
func (s *Store) Close() error {
	err := s.db.Close()
	s.packs.close()
	return err
}

// step is where tests let the disk fail.
func (s *Store) step(name string) error {
	if s.options.Fault == nil {
		return nil
	}
	return s.options.Fault(name)
}
