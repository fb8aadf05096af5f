package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"go.etcd.io/bbolt"

	"meshd/store/artifact"
)

// AddOptions says what becomes an artifact: Path, or Base and Paths, or a Draft.
//
// A file at Path becomes an artifact of one file, a folder a tree; Path itself may be a link. Paths are
// files and folders below Base, relative to it, as a glob yields them: they become a tree with the
// folders that lead to them. Of, Origin and Meta go into the manifest as they are.
type AddOptions struct {
	Path   string   // absolute
	Base   string   // absolute
	Paths  []string // at least one with Base
	Draft  *Draft   // the caller closes it
	Of     []artifact.Input
	Origin artifact.Origin
	Meta   map[string]string

	// Along, if not nil, is called when all bytes are read, right before the transaction that ends Add:
	// what it hands to Shelf.Later goes with that. Add calls wait after it.
	Along func() (wait func() error)
}

// Add keeps a file or tree and returns its Ref, without name and version. All bytes and the record that
// the artifact is held are durable on return; on an error nothing refers to what was written. Content
// that is held already is not written again, unchanged files are not even read. It fails, naming it, on
// what cannot be in an artifact and on a file that changes while it is read.
func (s *Store) Add(ctx context.Context, o AddOptions) (ref artifact.Ref, err error) {
	if o.Draft != nil {
		if ref, err = s.addEntries(o.Draft.w, o.Draft.entries, o); err != nil {
			return artifact.Ref{}, fmt.Errorf("keep what is sent: %w; send it again", err)
		}
		return ref, nil
	}
	err = s.retryLost(func() error {
		ref, err = s.add(ctx, o)
		return err
	})
	if err != nil {
		return artifact.Ref{}, fmt.Errorf("keep %q: %w", cmp.Or(o.Path, o.Base), err)
	}
	return ref, nil
}

func (s *Store) add(ctx context.Context, o AddOptions) (artifact.Ref, error) {
	w := s.newWriter()
	defer w.close()
	r := reader{s: s, w: w}
	entries, err := r.read(ctx, o)
	if err != nil {
		return artifact.Ref{}, err
	}
	return s.addEntries(w, entries, o)
}

// addEntries ends what is added with its manifest, and the record that it is held.
func (s *Store) addEntries(w *writer, entries []artifact.Entry, o AddOptions) (artifact.Ref, error) {
	m := artifact.Manifest{Entries: entries, Of: o.Of, Origin: o.Origin, Meta: o.Meta}
	root, ref, err := m.EncodeTo(func(c artifact.Chunk, part []byte) error {
		return w.add(artifact.Summed{ID: c.ID, CRC: artifact.CRC(part), Bytes: part})
	})
	if err == nil {
		err = w.add(artifact.SumUp(root))
	}
	if err == nil {
		err = w.flush()
	}
	if err != nil {
		return artifact.Ref{}, err
	}
	along := func() error { return nil }
	if o.Along != nil {
		along = o.Along()
	}
	err = w.commit(func(tx *bbolt.Tx) error { return putRoot(tx, ref.Root, rootHeld, w.generation) })
	if err == nil {
		s.noteComplete(ref.Root, w.losses)
	}
	return ref, errors.Join(err, along())
}

// TreeOf returns the tree that Add would give the artifact, and writes nothing.
func (s *Store) TreeOf(ctx context.Context, o AddOptions) (artifact.Digest, error) {
	r := reader{s: s}
	entries, err := r.read(ctx, o)
	var tree artifact.Digest
	if err == nil {
		tree, err = artifact.TreeOf(entries)
	}
	if err != nil {
		return artifact.Digest{}, fmt.Errorf("hash %q: %w", cmp.Or(o.Path, o.Base), err)
	}
	return tree, nil
}

// reader makes entries of files. Their chunks go to w, if there is one.
type reader struct {
	s        *Store
	w        *writer
	splitter artifact.Splitter
}

func (r *reader) read(ctx context.Context, o AddOptions) ([]artifact.Entry, error) {
	dir, items, err := scanSource(ctx, o)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries := make([]artifact.Entry, len(items))
	for i, it := range items {
		entries[i] = it.entry()
		if entries[i].Kind != artifact.File {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if entries[i].Chunks, err = r.file(ctx, dir, it); err != nil {
			return nil, err
		}
	}
	return entries, nil
}

// scanSource opens the folder that holds what o names. The items of a single file is one without a name.
func scanSource(ctx context.Context, o AddOptions) (*os.Root, []item, error) {
	if (o.Path == "") == (o.Base == "") || (o.Base == "") != (len(o.Paths) == 0) {
		return nil, nil, fmt.Errorf("either a path or a base with paths is wanted")
	}
	if !filepath.IsAbs(cmp.Or(o.Path, o.Base)) {
		return nil, nil, fmt.Errorf("an absolute path is wanted")
	}
	file, folder := "", cmp.Or(o.Base, o.Path)
	if o.Path != "" {
		real, err := filepath.EvalSymlinks(o.Path)
		if err != nil {
			return nil, nil, err
		}
		info, err := os.Lstat(real)
		if err != nil {
			return nil, nil, err
		}
		folder = real
		if !info.IsDir() {
			folder, file = filepath.Split(real)
		}
	}
	dir, err := os.OpenRoot(folder)
	if err != nil {
		return nil, nil, err
	}
	var items []item
	switch {
	case file != "":
		sc := scanner{ctx: ctx, root: dir, items: map[string]item{}}
		var info os.FileInfo
		if info, err = dir.Lstat(file); err == nil {
			err = sc.take(dir, file, "", file, info)
		}
		items = sc.sorted()
	case o.Base != "":
		items, err = scanPaths(ctx, dir, o.Paths)
	default:
		items, err = scanAll(ctx, dir, false)
	}
	if err != nil {
		_ = dir.Close() // read only
		return nil, nil, err
	}
	return dir, items, nil
}

// file returns the chunks of one file.
func (r *reader) file(ctx context.Context, dir *os.Root, it item) ([]artifact.Chunk, error) {
	where := filepath.Join(dir.Name(), it.disk)
	if it.known {
		if chunks, ok := r.s.seen.chunksOf(where, it.stat); ok {
			if r.w == nil {
				return chunks, nil
			}
			if held, err := r.w.holds(chunks); held || err != nil {
				return chunks, err
			}
		}
	}
	// O_NONBLOCK: should it be a pipe by now, opening it must not wait for a writer.
	f, err := dir.OpenFile(it.disk, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	changed := func() error {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if now, _ := statOf(info); !info.Mode().IsRegular() || now != it.stat || info.Size() != it.size {
			return fmt.Errorf("%q changed while it was read: try again when nobody writes to it", cmp.Or(it.name, it.disk))
		}
		return nil
	}
	if err := changed(); err != nil {
		return nil, err
	}
	var chunks []artifact.Chunk
	var total int64
	err = r.splitter.Split(f, func(b []byte) error {
		c := artifact.Chunk{ID: artifact.Sum(b), SizeBytes: uint32(len(b))}
		chunks = append(chunks, c)
		if total += int64(len(b)); total > it.size {
			return changed()
		}
		if r.w == nil {
			return ctx.Err()
		}
		return cmp.Or(ctx.Err(), r.w.add(artifact.Summed{ID: c.ID, CRC: artifact.CRC(b), Bytes: b}))
	})
	if err == nil {
		err = changed()
	}
	if err == nil && total != it.size {
		err = fmt.Errorf("%q gave %d bytes where its size is %d", cmp.Or(it.name, it.disk), total, it.size)
	}
	if err != nil {
		return nil, err
	}
	if it.known {
		r.s.seen.put(where, it.stat, chunks)
	}
	return chunks, nil
}
