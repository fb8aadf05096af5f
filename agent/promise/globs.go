package promise

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// maxMatches bounds what the globs of one promise may match, folders' contents included.
const maxMatches = 1_000_000

// A glob is a pattern of files of the score: absolute, or below the work folder. "*" stays in one
// segment, "**" does not.
type glob struct {
	text    string // as written
	base    string // absolute folder that the pattern is below
	pattern string // slash-separated, below base
	plain   bool   // no wildcard: pattern is a name
	inWork  bool
}

func newGlob(s Site, text string) (glob, error) {
	clean := filepath.ToSlash(filepath.Clean(text))
	if slices.Contains(strings.Split(clean, "/"), "..") || text == "" || strings.ContainsRune(text, 0) {
		return glob{}, fmt.Errorf("pattern %q leads out of the work folder, or is empty", text)
	}
	if !doublestar.ValidatePattern(clean) {
		return glob{}, fmt.Errorf("pattern %q is malformed", text)
	}
	g := glob{text: text, plain: !strings.ContainsAny(clean, `*?[{\`)}
	if !filepath.IsAbs(text) {
		g.base, g.pattern, g.inWork = s.Work, clean, true
		return g, nil
	}
	if g.plain {
		g.base, g.pattern = filepath.Dir(filepath.Clean(text)), filepath.Base(clean)
		return g, nil
	}
	base, pattern := doublestar.SplitPattern(clean)
	g.base, g.pattern = filepath.FromSlash(base), pattern
	return g, nil
}

// folder is the deepest folder, absolute, that all matches lie in; for a plain name the path itself.
func (g glob) folder() string {
	if g.plain {
		return filepath.Join(g.base, filepath.FromSlash(g.pattern))
	}
	base, _ := doublestar.SplitPattern(g.pattern)
	return filepath.Join(g.base, filepath.FromSlash(base))
}

// covers reports whether the pattern matches the path, absolute, or a folder above it.
func (g glob) covers(path string) bool {
	rel, err := filepath.Rel(g.base, path)
	if err != nil || !filepath.IsLocal(rel) {
		return false
	}
	for rel = filepath.ToSlash(rel); rel != "."; rel = filepath.ToSlash(filepath.Dir(rel)) {
		if doublestar.MatchUnvalidated(g.pattern, rel) {
			return true
		}
	}
	return g.pattern == "."
}

// open opens the folder that the pattern is below; what it matches cannot lie outside it.
func (g glob) open() (*os.Root, error) { return os.OpenRoot(g.base) }

// matches lists the names, slash-separated and below base, that the pattern itself matches, sorted.
func (g glob) matches(root *os.Root) ([]string, error) {
	if g.plain {
		if _, err := root.Stat(filepath.FromSlash(g.pattern)); isGone(err) {
			return nil, nil
		} else if err != nil {
			return nil, err
		}
		return []string{g.pattern}, nil
	}
	var names []string
	err := doublestar.GlobWalk(root.FS(), g.pattern, func(name string, _ fs.DirEntry) error {
		if isAside(name) {
			return nil
		}
		if len(names) == maxMatches {
			return fmt.Errorf("pattern %q matches more than %d paths", g.text, maxMatches)
		}
		names = append(names, name)
		return nil
	})
	slices.Sort(names)
	return names, err
}

// asidePrefix begins the name of every file that is being written beside its place. No glob sees those.
const asidePrefix = ".meshd-"

func isAside(name string) bool { return strings.HasPrefix(path.Base(name), asidePrefix) }

// A snapshot is what some globs matched: absolute paths and what is there.
type snapshot struct {
	sum   [sha256.Size]byte
	paths map[string][sha256.Size]byte // files and links, folders too
}

// A reader of snapshots remembers digests by stamp, so that unchanged files are not read again.
type snapshots struct {
	site  Site
	known map[string]cachedDigest
}

type cachedDigest struct {
	trust trust
	sum   [sha256.Size]byte
}

// errNoMatch is the pattern that matched nothing.
type errNoMatch struct{ pattern string }

func (e errNoMatch) Error() string { return fmt.Sprintf("nothing matches %q", e.pattern) }

// take reads what globs match now, folders with all that is in them. A pattern that matches nothing is
// an errNoMatch.
func (r *snapshots) take(ctx context.Context, globs []glob) (snapshot, error) {
	snap := snapshot{paths: map[string][sha256.Size]byte{}}
	for _, g := range globs {
		if err := r.takeOne(ctx, g, &snap); err != nil {
			return snapshot{}, err
		}
	}
	h := sha256.New()
	for _, path := range sortedKeys(snap.paths) {
		sum := snap.paths[path]
		name := path
		if rel, err := filepath.Rel(r.site.Work, path); err == nil && filepath.IsLocal(rel) {
			name = rel // the same below any work folder
		}
		writeField(h, []byte(filepath.ToSlash(name)))
		h.Write(sum[:])
	}
	h.Sum(snap.sum[:0])
	return snap, nil
}

func (r *snapshots) takeOne(ctx context.Context, g glob, snap *snapshot) error {
	root, err := g.open()
	if isGone(err) {
		return errNoMatch{g.text}
	} else if err != nil {
		return err
	}
	defer root.Close()
	names, err := g.matches(root)
	if err != nil {
		return fmt.Errorf("pattern %q: %w", g.text, err)
	}
	if len(names) == 0 {
		return errNoMatch{g.text}
	}
	for _, name := range names {
		err := fs.WalkDir(root.FS(), name, func(name string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // went while we walked: the watch tells
			} else if err != nil {
				return err
			}
			if isAside(name) {
				return nil
			}
			if len(snap.paths) >= maxMatches {
				return fmt.Errorf("pattern %q takes in more than %d paths", g.text, maxMatches)
			}
			path := filepath.Join(g.base, filepath.FromSlash(name))
			if _, twice := snap.paths[path]; twice {
				return nil
			}
			sum, err := r.digest(ctx, root, name, path)
			if err != nil && !isGone(err) {
				return err
			}
			if err == nil {
				snap.paths[path] = sum
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("pattern %q: %w", g.text, err)
		}
	}
	return nil
}

// digest covers kind, permissions and content of one path; not its times, not its owner.
func (r *snapshots) digest(ctx context.Context, root *os.Root, name, path string) ([sha256.Size]byte, error) {
	var none [sha256.Size]byte
	name = filepath.FromSlash(name)
	info, err := root.Lstat(name)
	if err != nil {
		return none, err
	}
	h := sha256.New()
	switch m := info.Mode(); {
	case m.IsDir():
		writeField(h, []byte("dir"))
	case m&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		if err != nil {
			return none, err
		}
		writeField(h, []byte("link"))
		writeField(h, []byte(target))
		// What the link leads to counts as well, when it is a file that may be read.
		if to, err := root.Stat(name); err == nil && to.Mode().IsRegular() {
			f, info, err := openFile(root, name)
			if err != nil {
				return none, err
			}
			defer f.Close()
			sum, _, err := digest(ctx, f, info.Size())
			if err != nil {
				return none, err
			}
			h.Write(sum[:])
		}
	case m.IsRegular():
		sum, err := r.fileSum(ctx, root, name, path)
		if err != nil {
			return none, err
		}
		writeField(h, []byte("file"))
		writeField(h, binary.BigEndian.AppendUint32(nil, octal(m)))
		h.Write(sum[:])
	default:
		writeField(h, []byte("special")) // a socket or a fifo: that it is there
	}
	h.Sum(none[:0])
	return none, nil
}

func (r *snapshots) fileSum(ctx context.Context, root *os.Root, name, path string) ([sha256.Size]byte, error) {
	c := r.known[path]
	if c.trust.holds(path, false) {
		return c.sum, nil
	}
	f, info, err := openFile(root, name)
	if err != nil {
		return c.sum, err
	}
	defer f.Close()
	if c.sum, _, err = digest(ctx, f, info.Size()); err != nil {
		return c.sum, err
	}
	c.trust.found(info)
	if r.known == nil {
		r.known = map[string]cachedDigest{}
	}
	r.known[path] = c
	return c.sum, nil
}

// forget drops digests of paths that are gone, so that the memory is that of what is there.
func (r *snapshots) forget(now ...snapshot) {
	for path := range r.known {
		if !slices.ContainsFunc(now, func(s snapshot) bool { _, ok := s.paths[path]; return ok }) {
			delete(r.known, path)
		}
	}
}

// writeField writes b so that no two lists of fields look alike.
func writeField(h interface{ Write([]byte) (int, error) }, b []byte) {
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
	h.Write(b)
}
