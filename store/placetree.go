package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"meshd/store/artifact"
)

// A tree of at most so many files and bytes is synced file by file, a larger one with its whole file
// system at once: 10,000 fsyncs take longer than all the rest.
const (
	fewFiles = 32
	fewBytes = 4 << 20
)

// placeTree writes the tree to a hidden folder, unless a whole one is there, and switches the link.
func (s *Store) placeTree(ctx context.Context, sp spot, root artifact.Digest, entries []artifact.Entry, sizeBytes int64) error {
	current := sp.target()
	folder := hidden(sp.name, root.Short())
	for _, name := range []string{folder, folder + "+"} {
		why, err := s.compareTree(ctx, sp, name, entries)
		if err != nil {
			return err
		}
		if why == "" {
			return sp.link(name, current)
		}
	}
	if current == folder {
		folder += "+" // what the link leads to is damaged, and stays until the new one is whole
	}
	made, err := s.siblingFor(sp, root, folder, entries)
	if err != nil {
		return err
	}
	defer made.close()
	if err := made.finishTree(ctx, syncsEach(entries, sizeBytes)); err != nil {
		return errors.Join(err, made.discard())
	}
	if err := sp.link(folder, current); err != nil {
		return err
	}
	made.seen(filepath.Dir(sp.path))
	return nil
}

// syncsEach reports whether a tree is made durable file by file.
func syncsEach(entries []artifact.Entry, sizeBytes int64) bool {
	return !syncsFileSystem || len(entries) <= fewFiles && sizeBytes <= fewBytes
}

// target returns the hidden folder that the link at the name leads to, or "".
func (sp spot) target() string {
	target, err := sp.folder.Readlink(sp.name)
	if err != nil || !isHidden(target) || !strings.HasPrefix(target, hidden(sp.name, "")) {
		return ""
	}
	return target
}

// link lets the name lead to folder, and removes all hidden folders but this and the one before.
func (sp spot) link(folder, before string) error {
	if before != folder || sp.target() != folder {
		temp := hidden(sp.name, hiddenLink)
		if err := sp.folder.RemoveAll(temp); err != nil {
			return err
		}
		if err := sp.folder.Symlink(folder, temp); err != nil {
			return err
		}
		if err := sp.switchTo(temp); err != nil {
			return err
		}
	}
	if strings.TrimSuffix(before, "+") == strings.TrimSuffix(folder, "+") {
		before = "" // the damaged twin
	}
	return sp.removeFolders(folder, before)
}

// removeFolders removes the hidden folders of the name but those to keep.
func (sp spot) removeFolders(keep ...string) error {
	f, err := sp.folder.Open(".")
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	prefix := hidden(sp.name, "")
	for _, name := range names {
		if !isHidden(name) || !strings.HasPrefix(name, prefix) || strings.Contains(name[len(prefix):], ".") || slices.Contains(keep, name) {
			continue
		}
		if err := removeTree(sp.folder, name); err != nil {
			return err
		}
	}
	return nil
}

// removeTree removes the named tree, read-only folders included.
func removeTree(in *os.Root, name string) error {
	err := in.RemoveAll(name)
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	dir, err := in.OpenRoot(name)
	if err != nil {
		return err
	}
	err = openFolders(dir, ".")
	return errors.Join(err, dir.Close(), in.RemoveAll(name))
}

// openFolders makes all folders below name writable for the owner.
func openFolders(dir *os.Root, name string) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	err = f.Chmod(0o700)
	list, listErr := f.ReadDir(-1)
	if err := errors.Join(err, listErr, f.Close()); err != nil {
		return err
	}
	for _, e := range list {
		if e.IsDir() {
			if err := openFolders(dir, path.Join(name, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
