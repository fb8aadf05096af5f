package promise

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"meshd/policies"
)

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// An absentKeeper keeps a path empty. It never removes a folder that holds anything.
type absentKeeper struct{ at place }

func (k *absentKeeper) Check(context.Context) (Finding, error) {
	info, err := k.at.lstat()
	switch {
	case isGone(err):
		return Finding{OK: true}, nil
	case err != nil:
		return Finding{}, err
	}
	return Finding{Reason: fmt.Sprintf("%s is there (%s)", k.at, kindOf(info))}, nil
}

func (k *absentKeeper) Repair(context.Context) (Finding, error) {
	dir, name, err := k.at.parent(false)
	if isGone(err) {
		return Finding{OK: true}, nil
	} else if err != nil {
		return Finding{}, err
	}
	defer dir.Close()
	info, err := dir.Lstat(name)
	if isGone(err) {
		return Finding{OK: true}, nil
	} else if err != nil {
		return Finding{}, err
	}
	if err := dir.Remove(name); err != nil && !isGone(err) {
		if info.IsDir() {
			return Finding{}, fmt.Errorf("%s is a folder that is not empty, or may not be removed: empty it first (%w)", k.at, err)
		}
		return Finding{}, err
	}
	if err := syncDir(dir); err != nil {
		return Finding{}, err
	}
	return Finding{OK: true, Reason: fmt.Sprintf("removed %s (%s)", k.at, kindOf(info))}, nil
}

func (k *absentKeeper) Watches() []Watch                { return []Watch{{Path: k.at.abs}} }
func (k *absentKeeper) End(context.Context, bool) error { return nil }

// A dirKeeper keeps a folder, its mode and owner; not what is in it.
type dirKeeper struct{ file *fileKeeper }

func (k *dirKeeper) Check(context.Context) (Finding, error) {
	at := k.file.at
	info, err := at.lstat()
	switch {
	case isGone(err):
		return Finding{Reason: fmt.Sprintf("folder %s is missing", at)}, nil
	case err != nil:
		return Finding{}, err
	case !info.IsDir():
		return Finding{}, fmt.Errorf("%s is %s, not a folder: move it away", at, kindOf(info))
	}
	why, err := k.file.metaDiffers(info, text{any: true})
	return Finding{OK: why == "" && err == nil, Reason: why}, err
}

func (k *dirKeeper) Repair(ctx context.Context) (Finding, error) {
	f, err := k.Check(ctx)
	if err != nil || f.OK {
		return f, err
	}
	dir, name, err := k.file.at.parent(true)
	if err != nil {
		return Finding{}, err
	}
	defer dir.Close()
	if err := dir.Mkdir(name, 0o755); err == nil {
		if err := syncDir(dir); err != nil {
			return Finding{}, err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return Finding{}, err
	}
	if err := k.file.setMeta(dir, name, look{want: text{any: true}}); err != nil {
		return Finding{}, err
	}
	return Finding{OK: true, Reason: f.Reason}, nil
}

func (k *dirKeeper) Watches() []Watch                { return []Watch{{Path: k.file.at.abs}} }
func (k *dirKeeper) End(context.Context, bool) error { return nil }

// A treeKeeper keeps a folder of the score's own files: a fileKeeper for each, and with purge nothing else.
type treeKeeper struct {
	at    place
	files []*fileKeeper
	names map[string]bool // slash-separated names of the files and of the folders above them
	purge bool
}

func newTree(k *fileKeeper, p policies.Promise) (Keeper, error) {
	t := &treeKeeper{at: k.at, purge: k.spec.Purge, names: map[string]bool{}}
	for _, name := range sortedKeys(k.spec.Tree) {
		if !filepath.IsLocal(filepath.FromSlash(name)) || path.Clean(name) != name {
			return nil, fmt.Errorf("tree: %q is no clean name below the folder", name)
		}
		content := k.spec.Tree[name]
		f := k.spec
		f.Path, f.State, f.Tree, f.Content = filepath.Join(k.spec.Path, filepath.FromSlash(name)), "present", nil, &content
		one, err := newFile(p, f, k.site)
		if err != nil {
			return nil, err
		}
		t.files = append(t.files, one.(*fileKeeper))
		for ; name != "."; name = path.Dir(name) {
			t.names[name] = true
		}
	}
	return t, nil
}

func (t *treeKeeper) Check(ctx context.Context) (Finding, error) {
	for _, f := range t.files {
		if found, err := f.Check(ctx); err != nil || !found.OK {
			return found, err
		}
	}
	extra, err := t.extra()
	if err != nil || len(extra) == 0 {
		return Finding{OK: err == nil}, err
	}
	return Finding{Reason: fmt.Sprintf("%s holds %q, which is not promised", t.at, extra[0])}, nil
}

// extra lists what purge removes, deepest first.
func (t *treeKeeper) extra() ([]string, error) {
	if !t.purge {
		return nil, nil
	}
	root, err := t.root()
	if isGone(err) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	defer root.Close()
	var extra []string
	err = fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err == nil && name != "." && !t.names[name] {
			extra = append(extra, name)
		}
		return err
	})
	slices.SortFunc(extra, func(a, b string) int { return strings.Compare(b, a) })
	return extra, err
}

func (t *treeKeeper) root() (*os.Root, error) {
	dir, name, err := t.at.parent(false)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.OpenRoot(name)
}

func (t *treeKeeper) Repair(ctx context.Context) (Finding, error) {
	var done []string
	for _, f := range t.files {
		found, err := f.Repair(ctx)
		if err != nil {
			return Finding{}, err
		}
		if found.Reason != "" {
			done = append(done, found.Reason)
		}
	}
	extra, err := t.extra()
	if err != nil {
		return Finding{}, err
	}
	if len(extra) > 0 {
		root, err := t.root()
		if err != nil {
			return Finding{}, err
		}
		defer root.Close()
		for _, name := range extra {
			if err := root.Remove(name); err != nil && !isGone(err) {
				return Finding{}, err
			}
		}
		done = append(done, fmt.Sprintf("removed %d that were not promised, %q first", len(extra), extra[0]))
	}
	switch len(done) {
	case 0:
		return Finding{OK: true}, nil
	case 1:
		return Finding{OK: true, Reason: done[0]}, nil
	}
	return Finding{OK: true, Reason: fmt.Sprintf("%s, and %d more", done[0], len(done)-1)}, nil
}

func (t *treeKeeper) Watches() []Watch                { return []Watch{{Path: t.at.abs, Recursive: true}} }
func (t *treeKeeper) End(context.Context, bool) error { return nil }
