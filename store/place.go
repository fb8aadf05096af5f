package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"go.etcd.io/bbolt"

	"meshd/store/artifact"
)

// ErrForeign is wrapped when Place finds something at its path that meshd, as far as it remembers, did not make.
var ErrForeign = errors.New("it is there and meshd did not make it")

// PlaceOptions says where an artifact is placed and how.
//
// Path is relative to the folder Base and stays below it; without Base it is absolute. Missing folders
// are made with mode 0755. Mode, if not 0, replaces the mode of a single file; a tree keeps its own. Adopt
// allows to replace what meshd did not make.
type PlaceOptions struct {
	Base, Path string
	Mode       os.FileMode
	Adopt      bool
}

// spot is an open folder and a name in it. All writing goes through folder, so that nothing lands outside
// even if somebody swaps a folder for a link meanwhile.
type spot struct {
	folder *os.Root
	name   string
	path   string // absolute, for people and as key of bucketPlaced
}

// spotOf opens the folder that holds the path; missing folders are made, or give os.ErrNotExist.
func spotOf(o PlaceOptions, mkdir bool) (spot, error) {
	base, path := o.Base, o.Path
	if base == "" {
		base, path = filepath.Split(filepath.Clean(path))
	}
	if !filepath.IsAbs(base) || !filepath.IsLocal(path) || filepath.Clean(path) == "." {
		return spot{}, fmt.Errorf("a path below an absolute folder is wanted, not %q below %q", o.Path, o.Base)
	}
	path = filepath.Clean(path)
	if mkdir {
		if err := os.MkdirAll(base, 0o755); err != nil {
			return spot{}, err
		}
	}
	root, err := os.OpenRoot(base)
	if err != nil {
		return spot{}, err
	}
	sp := spot{folder: root, name: filepath.Base(path), path: filepath.Join(base, path)}
	if isHidden(sp.name) {
		return spot{}, errors.Join(fmt.Errorf("name %q is one that meshd gives to what it is about to place", sp.name), root.Close())
	}
	dir := filepath.Dir(path)
	if dir == "." {
		return sp, nil
	}
	if mkdir {
		err = root.MkdirAll(dir, 0o755)
	}
	if err == nil {
		sp.folder, err = root.OpenRoot(dir)
	}
	if closeErr := root.Close(); err == nil && closeErr != nil {
		err = errors.Join(closeErr, sp.folder.Close())
	}
	return sp, err
}

// The names beside NAME that placing uses: .NAME.meshd- and one of these, or the short root of a tree,
// with or without a "+". They are never part of an artifact.
const (
	hiddenTemp = "tmp"  // a file being written
	hiddenLink = "link" // a link about to become NAME
	hiddenOld  = "old"  // a folder that was in the way
)

func hidden(name, suffix string) string { return "." + name + ".meshd-" + suffix }

// isHidden reports whether hidden could have made the name.
func isHidden(name string) bool {
	i := strings.LastIndex(name, ".meshd-")
	if i < 2 || name[0] != '.' || strings.ContainsRune(name, '/') {
		return false
	}
	suffix := name[i+len(".meshd-"):]
	if suffix == hiddenTemp || suffix == hiddenLink || suffix == hiddenOld {
		return true
	}
	suffix = strings.TrimSuffix(suffix, "+")
	return len(suffix) == 12 && strings.Trim(suffix, "0123456789abcdef") == ""
}

// Place brings root to its path, whole or not at all: a file is written beside it and renamed, a tree is
// written to a hidden folder beside it and a link to that renamed. What it writes is checked against the
// digests first; bytes that turn out damaged are forgotten and the error wraps ErrMissing. It is durable on
// return. When the artifact is there already nothing is written. The folder of the tree placed before
// stays until the next, so that going back is a rename.
func (s *Store) Place(ctx context.Context, root artifact.Digest, o PlaceOptions) error {
	err := s.place(ctx, root, o)
	if err != nil {
		return fmt.Errorf("place %s at %q: %w", root.Short(), filepath.Join(o.Base, o.Path), err)
	}
	return nil
}

func (s *Store) place(ctx context.Context, root artifact.Digest, o PlaceOptions) error {
	r, entries, err := s.manifest(root)
	if err != nil {
		return err
	}
	if err := checkMode(o, entries); err != nil {
		return err
	}
	sp, err := spotOf(o, true)
	if err != nil {
		return err
	}
	defer sp.folder.Close()
	if err := s.lockPath(sp.path); err != nil {
		return err
	}
	defer s.unlockPath(sp.path)
	why, err := s.compare(ctx, sp, root, entries, o)
	if err != nil {
		return err
	}
	if why == "" {
		return s.remember(sp, root)
	}
	info, err := sp.folder.Lstat(sp.name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	ours, oursErr := s.isOurs(sp)
	if oursErr != nil {
		return oursErr
	}
	if err == nil && !ours && !o.Adopt {
		return fmt.Errorf("%w (%s): remove it, or say adopt = true", ErrForeign, info.Mode().Type())
	}
	if isFile(entries) {
		return s.placeFile(ctx, sp, root, entries[0], o.Mode, ours)
	}
	if err := s.remember(sp, root); err != nil {
		return err
	}
	return s.placeTree(ctx, sp, root, entries, r.SizeBytes)
}

func isFile(entries []artifact.Entry) bool { return len(entries) == 1 && entries[0].Name == "" }

func checkMode(o PlaceOptions, entries []artifact.Entry) error {
	if o.Mode&^fs.ModePerm != 0 {
		return fmt.Errorf("mode %v: permission bits alone can be given", o.Mode)
	}
	if o.Mode != 0 && !isFile(entries) {
		return fmt.Errorf("mode %#o is for a single file, and this is a tree: its files keep their own modes", o.Mode)
	}
	return nil
}

// lockPath keeps two calls from one path. It does not wait: each promise has one keeper.
func (s *Store) lockPath(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, busy := s.placing[path]; busy {
		return errors.New("another call is placing or removing it: try again")
	}
	s.placing[path] = struct{}{}
	return nil
}

func (s *Store) unlockPath(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.placing, path)
}

// isOurs reports whether Place made, or was about to make, what is at the path. A link to a hidden folder of the
// same name is ours even where the store was lost.
func (s *Store) isOurs(sp spot) (ours bool, err error) {
	if sp.target() != "" {
		return true, nil
	}
	err = s.view(func(tx *bbolt.Tx) error {
		ours = tx.Bucket(bucketPlaced).Get([]byte(sp.path)) != nil
		return nil
	})
	return ours, err
}

// remember records, before the path is touched, that it is meshd's.
func (s *Store) remember(sp spot, root artifact.Digest) error {
	var same bool
	err := s.view(func(tx *bbolt.Tx) error {
		same = string(tx.Bucket(bucketPlaced).Get([]byte(sp.path))) == string(root[:])
		return nil
	})
	if err != nil || same {
		return err
	}
	return s.commit(putPlaced(sp, root))
}

func putPlaced(sp spot, root artifact.Digest) func(tx *bbolt.Tx) error {
	return func(tx *bbolt.Tx) error { return tx.Bucket(bucketPlaced).Put([]byte(sp.path), root[:]) }
}

// placeFile writes the file beside its name, while the path is recorded as meshd's unless it is ours already, and
// then renames it.
func (s *Store) placeFile(ctx context.Context, sp spot, root artifact.Digest, e artifact.Entry, mode os.FileMode, ours bool) error {
	if mode == 0 {
		mode = os.FileMode(e.Mode)
	}
	temp := hidden(sp.name, hiddenTemp)
	made, err := s.siblingFor(sp, root, temp, []artifact.Entry{e})
	if err != nil {
		return err
	}
	defer made.close()
	remembered := make(chan error, 1)
	if ours { // that another root lies there now need not be durable before it does
		s.ride(putPlaced(sp, root))
		remembered <- nil
	} else {
		go func() { remembered <- s.remember(sp, root) }()
	}
	left, err := made.finishFile(ctx, mode)
	if err = errors.Join(err, <-remembered); err != nil {
		return errors.Join(err, made.discard())
	}
	tree := sp.target()
	if err := sp.switchTo(temp); err != nil {
		return err
	}
	if info, err := sp.folder.Lstat(sp.name); err == nil {
		if st, ok := statOf(info); ok && st.isRenamed(left) { // else somebody wrote to it since
			s.seen.keep(sp.path, seenFile{stat: st, chunks: e.Chunks, root: root, mode: e.Mode})
		}
	}
	if tree == "" {
		return nil
	}
	return sp.removeFolders()
}

// readVerified is Read, held against the digest: the last look before bytes are used.
func (s *Store) readVerified(c artifact.Chunk, buf []byte) ([]byte, error) {
	b, err := s.Read(c.ID, buf)
	if err != nil || len(b) == int(c.SizeBytes) && artifact.Sum(b) == c.ID {
		return b, err
	}
	r, _, err := s.locate(c.ID, nil)
	if err != nil {
		return nil, fmt.Errorf("read chunk %s: %w", c.ID.Short(), err)
	}
	if _, err := s.forget(c.ID, r); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("chunk %s of %d bytes is not what its digest says, and forgotten now: fetch it again: %w", c.ID.Short(), len(b), ErrMissing)
}

// switchTo makes the hidden sibling the file or link at the name. A folder in the way is moved aside
// first and removed after: that, and only that, cannot be done at one stroke.
func (sp spot) switchTo(sibling string) error {
	info, err := sp.folder.Lstat(sp.name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	folder := err == nil && info.IsDir()
	old := hidden(sp.name, hiddenOld)
	if folder {
		if err := removeTree(sp.folder, old); err != nil {
			return err
		}
		if err := sp.folder.Rename(sp.name, old); err != nil {
			return err
		}
	}
	if err := sp.folder.Rename(sibling, sp.name); err != nil {
		return err
	}
	if err := sp.sync(); err != nil {
		return err
	}
	if folder {
		return removeTree(sp.folder, old)
	}
	return nil
}

// sync makes the names in the folder durable.
func (sp spot) sync() error {
	f, err := sp.folder.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(syncFolder(f), f.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Unplace removes what Place made at the path, if it is there, and forgets it. What meshd did not make is
// an error and stays; so does a folder that somebody put in its place.
func (s *Store) Unplace(ctx context.Context, o PlaceOptions) error {
	if err := s.unplace(ctx, o); err != nil {
		return fmt.Errorf("remove placed %q: %w", filepath.Join(o.Base, o.Path), err)
	}
	return nil
}

func (s *Store) unplace(ctx context.Context, o PlaceOptions) error {
	sp, err := spotOf(o, false)
	if errors.Is(err, os.ErrNotExist) {
		return s.forgetPlaced(filepath.Join(o.Base, o.Path))
	}
	if err != nil {
		return err
	}
	defer sp.folder.Close()
	if err := s.lockPath(sp.path); err != nil {
		return err
	}
	defer s.unlockPath(sp.path)
	ours, err := s.isOurs(sp)
	if err != nil {
		return err
	}
	info, err := sp.folder.Lstat(sp.name)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	case !ours:
		return ErrForeign
	case info.IsDir():
		return errors.New("somebody put a folder in its place: remove it by hand")
	default:
		if err := sp.folder.Remove(sp.name); err != nil {
			return err
		}
	}
	if !ours {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.seen.drop(sp.path)
	if err := errors.Join(sp.removeFolders(), sp.sync()); err != nil {
		return err
	}
	return s.forgetPlaced(sp.path)
}

func (s *Store) forgetPlaced(path string) error {
	return s.commit(func(tx *bbolt.Tx) error { return tx.Bucket(bucketPlaced).Delete([]byte(path)) })
}
