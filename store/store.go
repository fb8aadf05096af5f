// Package store is what a node remembers: one bbolt file, and packs of bytes.
package store

import (
	"context"
	"errors"
	"log/slog"
	"os"

	"meshd/store/artifact"
)

// ErrMissing is wrapped when bytes that were asked for are not held.
var ErrMissing = errors.New("not held")

// Options of a Store.
type Options struct {
	MaxSizeBytes int64
	Log          *slog.Logger
}

// Store is an open data folder.
type Store struct{}

// Shelf is one ordered map of the store.
type Shelf struct{}

// AddOptions says what to add.
type AddOptions struct {
	Path   string
	Base   string
	Paths  []string
	Of     []artifact.Input
	Origin artifact.Origin
	Meta   map[string]string
}

// PlaceOptions says where and how an artifact is placed.
type PlaceOptions struct {
	Base, Path string
	Mode       os.FileMode
	Adopt      bool
}

// Open opens the data folder dir.
func Open(dir string, o Options) (*Store, error) { panic("not built") }

// SetAside tells the new name of a broken state.db.
func (s *Store) SetAside() string { panic("not built") }

// Close closes the store.
func (s *Store) Close() error { panic("not built") }

// Shelf returns the named shelf.
func (s *Store) Shelf(bucket string) *Shelf { panic("not built") }

// Scan copies out what is in [from, to).
func (h *Shelf) Scan(from, to []byte, limit int) (keys, values [][]byte, err error) {
	panic("not built")
}

// Apply is one durable transaction.
func (h *Shelf) Apply(keys, values [][]byte) error { panic("not built") }

// Missing returns those of chunks that are not held.
func (s *Store) Missing(chunks []artifact.Chunk) ([]artifact.Chunk, error) { panic("not built") }

// Read returns one chunk.
func (s *Store) Read(id artifact.Digest, buf []byte) ([]byte, error) { panic("not built") }

// Write keeps chunks, durable on return.
func (s *Store) Write(chunks [][]byte) error { panic("not built") }

// Add keeps a file, folder or glob result.
func (s *Store) Add(ctx context.Context, o AddOptions) (artifact.Ref, error) { panic("not built") }

// TreeOf is the digest that Add would give, and writes nothing.
func (s *Store) TreeOf(ctx context.Context, o AddOptions) (artifact.Digest, error) {
	panic("not built")
}

// Expect records that root is being fetched, so that Collect asks about it.
func (s *Store) Expect(root artifact.Digest) error { panic("not built") }

// Has reports whether all bytes of root are held.
func (s *Store) Has(root artifact.Digest) (bool, error) { panic("not built") }

// Manifest returns the manifest of root.
func (s *Store) Manifest(root artifact.Digest) (artifact.Manifest, error) { panic("not built") }

// Chunks returns all chunks of root: root block, parts, data.
func (s *Store) Chunks(root artifact.Digest) ([]artifact.Chunk, error) { panic("not built") }

// Roots lists the artifacts held.
func (s *Store) Roots() ([]artifact.Digest, error) { panic("not built") }

// Collect forgets what keep does not keep.
func (s *Store) Collect(ctx context.Context, keep func(root artifact.Digest) bool) error {
	panic("not built")
}

// Place brings root to its path.
func (s *Store) Place(ctx context.Context, root artifact.Digest, o PlaceOptions) error {
	panic("not built")
}

// Placed reports whether root is at its path, and why not.
func (s *Store) Placed(ctx context.Context, root artifact.Digest, o PlaceOptions) (ok bool, why string, err error) {
	panic("not built")
}

// Unplace removes what Place made.
func (s *Store) Unplace(ctx context.Context, o PlaceOptions) error { panic("not built") }
