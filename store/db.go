package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// lockTimeout is how long Open waits for another process to let go of state.db.
const lockTimeout = time.Second

// errBroken tells a state.db that cannot be used from one that cannot be opened now.
var errBroken = errors.New("broken")

// openDB opens the file, and sets it aside (returning its new name) when it is cut short or holds
// garbage, so that a node starts in any case and fetches what it lost from its peers.
func openDB(path string, maxSizeBytes int64) (db *bbolt.DB, setAside string, err error) {
	db, err = tryDB(path, maxSizeBytes)
	if !errors.Is(err, errBroken) {
		return db, "", err
	}
	for n := 1; ; n++ {
		setAside = fmt.Sprintf("%s.broken-%d", path, n)
		if _, statErr := os.Lstat(setAside); errors.Is(statErr, os.ErrNotExist) {
			break
		}
	}
	if renameErr := os.Rename(path, setAside); renameErr != nil {
		return nil, "", fmt.Errorf("set aside a broken file (%v): %w", err, renameErr)
	}
	if err := syncDir(filepath.Dir(path)); err != nil {
		return nil, "", err
	}
	db, err = tryDB(path, maxSizeBytes)
	return db, setAside, err
}

// tryDB opens the file and reads every key of it once: bbolt panics, or faults on its memory map, where
// it meets a page that is not what it should be.
func tryDB(path string, maxSizeBytes int64) (db *bbolt.DB, err error) {
	var file *os.File
	err = guard(func() error {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockTimeout,
			FreelistType: bbolt.FreelistMapType,
			MaxSize:      int(min(maxSizeBytes, int64(^uint(0)>>1))),
			NoStatistics: true,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				file, err = os.OpenFile(name, flag, mode)
				return file, err
			},
		})
		if err != nil {
			return err
		}
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return db.View(func(tx *bbolt.Tx) error {
			if tx.Size() > info.Size() {
				return fmt.Errorf("%w: %d bytes where its own head says %d", errBroken, info.Size(), tx.Size())
			}
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return readKeys(b) })
		})
	})
	if err == nil {
		return db, nil
	}
	if db != nil {
		_ = guard(db.Close) // the error that matters is the one before
	}
	if file != nil {
		_ = file.Close() // closed already unless bbolt panicked; without this the lock would stay
	}
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("data dir %q is in use by another meshd%s: stop it, or choose another --data-dir", filepath.Dir(path), lockHolder(path))
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		err = fmt.Errorf("%w: %w", errBroken, err)
	case strings.Contains(err.Error(), "file size too small"):
		err = fmt.Errorf("%w: %w", errBroken, err)
	}
	return nil, fmt.Errorf("open %s: %w", path, err)
}

// readKeys walks all keys of b: they must be there, and in order.
func readKeys(b *bbolt.Bucket) error {
	var before []byte
	c := b.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if before != nil && string(before) >= string(k) {
			return fmt.Errorf("%w: keys are out of order", errBroken)
		}
		before = k
	}
	return nil
}

// guard runs f and makes an error of a panic or a memory fault in bbolt.
func guard(f func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errBroken, r)
		}
	}()
	return f()
}

// view runs f in a read transaction. Bytes f is handed are valid only inside.
func (s *Store) view(f func(tx *bbolt.Tx) error) error {
	err := s.healthy(guard(func() error { return s.db.View(f) }))
	s.lookedAt(1)
	return err
}

// update runs f in a write transaction, durable when it returns nil.
func (s *Store) update(f func(tx *bbolt.Tx) error) error {
	if err := s.broken.Load(); err != nil {
		return *err
	}
	return s.healthy(guard(func() error { return s.db.Update(f) }))
}

// healthy remembers that state.db is broken (a lock inside bbolt may stay taken for ever: nothing is
// written any more), and names a full disk, whose error bbolt passes on as text alone.
func (s *Store) healthy(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errBroken):
		err = fmt.Errorf("state.db is damaged: restart meshd, which sets it aside and fetches its content from peers: %w", err)
		s.broken.CompareAndSwap(nil, &err)
	case errors.Is(err, berrors.ErrMaxSizeReached):
		err = fmt.Errorf("state.db reached the limit of %d bytes: free space or raise the limit: %w", s.options.MaxSizeBytes, syscall.ENOSPC)
	case !errors.Is(err, syscall.ENOSPC) && strings.Contains(err.Error(), syscall.ENOSPC.Error()):
		err = fmt.Errorf("%w: %w", err, syscall.ENOSPC)
	}
	return err
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(syncFolder(f), f.Close())
}
