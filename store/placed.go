package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"meshd/store/artifact"
)

// Placed reports whether root is at its path, as Place would leave it; if not, why says in one line what is
// wrong there: missing, another kind, mode, content, or something extra in a tree. It changes nothing.
// A file whose inode, size, mtime and ctime are as when it was last read or placed is trusted, any other
// is read. The manifest must be held, else the error wraps ErrMissing.
func (s *Store) Placed(ctx context.Context, root artifact.Digest, o PlaceOptions) (ok bool, why string, err error) {
	if s.isUntouched(root, o) {
		return true, "", nil
	}
	_, entries, err := s.manifest(root)
	if err == nil {
		err = checkMode(o, entries)
	}
	if err == nil {
		why, err = s.compareAt(ctx, root, entries, o)
	}
	if err != nil {
		return false, "", fmt.Errorf("check %s at %q: %w", root.Short(), filepath.Join(o.Base, o.Path), err)
	}
	return why == "", why, nil
}

// isUntouched reports whether all of root is held and the file at the path, of which it says all, is as Place left it:
// then its manifest, which may be large, is not read. It is false when in doubt.
func (s *Store) isUntouched(root artifact.Digest, o PlaceOptions) bool {
	if !s.isComplete(root) {
		return false
	}
	sp, err := spotOf(o, false)
	if err != nil {
		return false
	}
	defer sp.folder.Close()
	info, err := sp.folder.Lstat(sp.name)
	if err != nil {
		return false
	}
	st, known := statOf(info)
	mode, same := s.seen.isPlaced(sp.path, st, root)
	if o.Mode != 0 {
		mode = uint32(o.Mode)
	}
	return known && same && info.Mode() == os.FileMode(mode)
}

func (s *Store) compareAt(ctx context.Context, root artifact.Digest, entries []artifact.Entry, o PlaceOptions) (why string, err error) {
	sp, err := spotOf(o, false)
	if errors.Is(err, os.ErrNotExist) {
		return "its folder is missing", nil
	}
	if err != nil {
		return "", err
	}
	defer sp.folder.Close()
	return s.compare(ctx, sp, root, entries, o)
}

// compare tells the first difference between what is at the spot and what should be; "" is none.
func (s *Store) compare(ctx context.Context, sp spot, root artifact.Digest, entries []artifact.Entry, o PlaceOptions) (why string, err error) {
	if !isFile(entries) {
		folder := sp.target()
		if strings.TrimSuffix(folder, "+") != hidden(sp.name, root.Short()) {
			if _, err := sp.folder.Lstat(sp.name); errors.Is(err, os.ErrNotExist) {
				return "it is missing", nil
			}
			return "it is something else", nil
		}
		return s.compareTree(ctx, sp, folder, entries)
	}
	e := entries[0]
	if o.Mode != 0 {
		e.Mode = uint32(o.Mode)
	}
	info, err := sp.folder.Lstat(sp.name)
	if errors.Is(err, os.ErrNotExist) {
		return "it is missing", nil
	}
	if err != nil {
		return "", err
	}
	it := item{disk: sp.name, mode: info.Mode(), size: info.Size()}
	it.stat, it.known = statOf(info)
	return s.compareItem(ctx, sp.folder, sp.path, it, e)
}

// compareTree compares all of a hidden folder with entries.
func (s *Store) compareTree(ctx context.Context, sp spot, folder string, entries []artifact.Entry) (why string, err error) {
	dir, err := sp.folder.OpenRoot(folder)
	if errors.Is(err, os.ErrNotExist) {
		return "its folder is missing", nil
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return "its folder is none", nil
	}
	if err != nil {
		return "", err
	}
	defer dir.Close()
	items, err := scanAll(ctx, dir, true)
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err != nil {
		return err.Error(), nil // something that is in no artifact, or cannot be read: damage by any name
	}
	base := filepath.Join(filepath.Dir(sp.path), folder)
	for len(items) > 0 || len(entries) > 0 {
		switch {
		case len(entries) == 0 || len(items) > 0 && items[0].name < entries[0].Name:
			return fmt.Sprintf("%q is extra", items[0].name), nil
		case len(items) == 0 || items[0].name > entries[0].Name:
			return fmt.Sprintf("%q is missing", entries[0].Name), nil
		}
		why, err := s.compareItem(ctx, dir, filepath.Join(base, items[0].disk), items[0], entries[0])
		if why != "" || err != nil {
			return why, err
		}
		items, entries = items[1:], entries[1:]
	}
	return "", nil
}

// compareItem compares one file, folder or link; where is its path, for what is remembered of it.
func (s *Store) compareItem(ctx context.Context, dir *os.Root, where string, it item, e artifact.Entry) (why string, err error) {
	name := it.disk
	is := it.entry()
	switch {
	case !it.mode.IsRegular() && !it.mode.IsDir() && it.mode.Type() != os.ModeSymlink || is.Kind != e.Kind:
		return fmt.Sprintf("%q is of another kind (%v)", name, it.mode.Type()), nil
	case is.Mode != e.Mode || it.mode&(os.ModeSetuid|os.ModeSetgid) != 0 && is.Kind == artifact.File:
		return fmt.Sprintf("%q has mode %v, not %v", name, it.mode, os.FileMode(e.Mode)), nil
	case is.Link != e.Link:
		return fmt.Sprintf("%q leads to %q, not %q", name, is.Link, e.Link), nil
	case is.SizeBytes != e.SizeBytes:
		return fmt.Sprintf("%q has %d bytes, not %d", name, is.SizeBytes, e.SizeBytes), nil
	case e.Kind != artifact.File:
		return "", nil
	}
	if it.known {
		if s.seen.holds(where, it.stat, e.Chunks) {
			return "", nil
		}
	}
	same, err := sameContent(ctx, dir, it, e.Chunks)
	if err != nil || !same {
		return fmt.Sprintf("%q has other content", name), err
	}
	if it.known {
		s.seen.put(where, it.stat, e.Chunks)
	}
	return "", nil
}

func sameChunks(a, b []artifact.Chunk) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// sameContent reads a file and compares it chunk by chunk. A file that changes meanwhile is not the same.
func sameContent(ctx context.Context, dir *os.Root, it item, chunks []artifact.Chunk) (bool, error) {
	f, err := dir.OpenFile(it.disk, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	var buf []byte
	for _, c := range chunks {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		if cap(buf) < int(c.SizeBytes) {
			buf = make([]byte, c.SizeBytes)
		}
		buf = buf[:c.SizeBytes]
		_, err := io.ReadFull(f, buf)
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if artifact.Sum(buf) != c.ID {
			return false, nil
		}
	}
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, known := statOf(info)
	return info.Size() == it.size && (!known || now == it.stat), nil
}
