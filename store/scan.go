package store

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"meshd/store/artifact"
)

// maxItems is how many files, folders and links one artifact may have.
const maxItems = 1 << 20

var errTooMany = fmt.Errorf("more than %d files, folders and links: make several artifacts of them", maxItems)

// fileStat tells whether a file may have changed since it was read (SPEC 9). Times are compared with
// each other, and with now only to doubt what has just changed.
type fileStat struct {
	inode        uint64
	size         int64
	mtime, ctime int64
}

// racyTime is longer than the tick of any kernel's file clock (10 ms at 100 Hz): of two writes in one tick the second
// may leave all of a file's stat as it was.
const racyTime = 20 * time.Millisecond

// isRacy reports whether a write to come may leave the stat as it is.
func (st fileStat) isRacy() bool {
	now := time.Now().UnixNano()
	return max(st.mtime, st.ctime) > now-int64(racyTime) && min(st.mtime, st.ctime) < now+int64(racyTime)
}

// isRenamed reports whether a file that looked like before may have been renamed since, and nothing more.
func (st fileStat) isRenamed(before fileStat) bool {
	before.ctime = st.ctime
	return st == before
}

// item is a file, folder or link found on disk. name is relative to the scanned folder; disk is where it is
// below that folder, which differs for what is reached through the link of a placed tree.
type item struct {
	name, disk string
	mode       fs.FileMode
	size       int64
	link       string
	stat       fileStat
	known      bool // stat tells something
}

// scanner collects items below a folder. It opens each folder once and looks at what is in it from there:
// 10,000 looks from the top took 5 times as long.
type scanner struct {
	ctx  context.Context
	root *os.Root
	// inside says that the folder is a placed tree: what looks like ours in it is not.
	inside bool
	items  map[string]item
}

// scanAll returns everything below root, sorted by name.
func scanAll(ctx context.Context, root *os.Root, inside bool) ([]item, error) {
	sc := scanner{ctx: ctx, root: root, inside: inside, items: map[string]item{}}
	if err := sc.folder(root, "", ""); err != nil {
		return nil, err
	}
	return sc.sorted(), nil
}

// scanPaths returns the given paths below root, with all below them and the folders above them.
func scanPaths(ctx context.Context, root *os.Root, paths []string) ([]item, error) {
	sc := scanner{ctx: ctx, root: root, items: map[string]item{}}
	for _, p := range paths {
		name := filepath.ToSlash(filepath.Clean(p))
		if !filepath.IsLocal(p) || name == "." {
			return nil, fmt.Errorf("%q is no path below %q", p, root.Name())
		}
		for i := range len(name) {
			if name[i] == '/' {
				if err := sc.above(name[:i]); err != nil {
					return nil, err
				}
			}
		}
		if err := sc.path(root, name, name, name); err != nil {
			return nil, err
		}
	}
	return sc.sorted(), nil
}

func (sc *scanner) sorted() []item {
	return slices.SortedFunc(maps.Values(sc.items), func(a, b item) int { return cmp.Compare(a.name, b.name) })
}

// above takes a folder that is in the tree only because something below it is.
func (sc *scanner) above(name string) error {
	if _, ok := sc.items[name]; ok {
		return nil
	}
	info, err := sc.root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%q is no folder (%v): name what it leads to", name, info.Mode().Type())
	}
	return sc.take(sc.root, name, name, name, info)
}

// path takes, as name, what is called base in the open folder in, and what is below it. disk is the same
// seen from the top.
func (sc *scanner) path(in *os.Root, base, name, disk string) error {
	info, err := in.Lstat(base)
	if err != nil {
		return err
	}
	if err := sc.take(in, base, name, disk, info); err != nil {
		return err
	}
	it := sc.items[name]
	if !it.mode.IsDir() {
		return nil
	}
	dir, err := sc.root.OpenRoot(it.disk)
	if err != nil {
		return err
	}
	return errors.Join(sc.folder(dir, name, it.disk), dir.Close())
}

// folder takes what is in the open folder in.
func (sc *scanner) folder(in *os.Root, name, disk string) error {
	if strings.Count(name, "/") >= 64 {
		return fmt.Errorf("%q is more than 64 folders deep", name)
	}
	f, err := in.Open(".")
	if err != nil {
		return err
	}
	list, err := f.Readdirnames(-1)
	if err := errors.Join(err, f.Close(), sc.ctx.Err()); err != nil {
		return err
	}
	for _, base := range list {
		if !sc.inside && isHidden(base) {
			continue
		}
		if err := sc.path(in, base, path.Join(name, base), path.Join(disk, base)); err != nil {
			return err
		}
	}
	return nil
}

// take records one item, refusing by name what cannot be in an artifact. The link that a placed tree
// hangs on is taken as the folder that it leads to.
func (sc *scanner) take(in *os.Root, base, name, disk string, info fs.FileInfo) error {
	it := item{name: name, disk: disk, mode: info.Mode(), size: info.Size()}
	if it.mode.Type() == fs.ModeSymlink {
		target, err := in.Readlink(base)
		if err != nil {
			return err
		}
		if sc.inside || !isHidden(target) {
			if it.link, err = shortLink(name, filepath.ToSlash(target)); err != nil {
				return err
			}
		} else {
			it.disk = path.Join(path.Dir(disk), target)
			if info, err = sc.root.Lstat(it.disk); err != nil {
				return err
			}
			if it.mode = info.Mode(); !it.mode.IsDir() {
				return fmt.Errorf("%q leads to %q, which is no folder: place the artifact again", name, target)
			}
		}
	}
	name = cmp.Or(name, disk)
	switch it.mode.Type() {
	case 0:
		if it.mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			return fmt.Errorf("%q is setuid or setgid (%v): such a file cannot be in an artifact", name, it.mode)
		}
	case fs.ModeDir, fs.ModeSymlink:
	default:
		return fmt.Errorf("%q is no file, folder or link (%v): it cannot be in an artifact", name, it.mode)
	}
	if len(sc.items) >= maxItems {
		return errTooMany
	}
	it.stat, it.known = statOf(info)
	sc.items[it.name] = it
	return nil
}

// entry is the item as a manifest holds it, without content.
func (it item) entry() artifact.Entry {
	switch it.mode.Type() {
	case fs.ModeDir:
		return artifact.Entry{Name: it.name, Kind: artifact.Dir, Mode: uint32(it.mode.Perm())}
	case fs.ModeSymlink:
		return artifact.Entry{Name: it.name, Kind: artifact.Symlink, Link: it.link}
	}
	return artifact.Entry{Name: it.name, Kind: artifact.File, Mode: uint32(it.mode.Perm()), SizeBytes: it.size}
}

// shortLink removes from a link's target what says nothing ("./x", "x//y", "x/"), and refuses what a
// manifest refuses. It never resolves "x/..": where that leads depends on x.
func shortLink(name, target string) (string, error) {
	if path.IsAbs(target) {
		return "", fmt.Errorf("%q is a link to %q: a link in an artifact is relative", name, target)
	}
	var parts []string
	for part := range strings.SplitSeq(target, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	short := cmp.Or(strings.Join(parts, "/"), ".")
	return short, artifact.CheckLink(name, short)
}

// maxSeenChunks bounds what seenFiles remembers: about 8 MiB with the paths of small files. Of a file with as many chunks
// their sum is kept.
const maxSeenChunks = 1 << 16

// seenFiles remembers the content of files by path and stat, so that unchanged files are not read
// again. It is lost when meshd ends. When it is full it starts anew.
type seenFiles struct {
	mu     sync.Mutex
	files  map[string]seenFile
	chunks int
}

type seenFile struct {
	stat   fileStat
	chunks []artifact.Chunk // shared, never changed; nil = too many
	sum    artifact.Digest  // of the ids of too many chunks
	root   artifact.Digest  // that was placed there; zero = not known
	mode   uint32           // that it gives the file
}

// sumOf stands for chunks that are too many to be kept.
func sumOf(chunks []artifact.Chunk) artifact.Digest {
	h := sha256.New()
	for _, c := range chunks {
		h.Write(c.ID[:])
	}
	out := artifact.Digest{artifact.SHA256}
	copy(out[1:], h.Sum(nil))
	return out
}

// chunksOf returns the content of the file if it has not changed since it was put.
func (s *seenFiles) chunksOf(file string, stat fileStat) ([]artifact.Chunk, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.files[file]
	return f.chunks, ok && f.stat == stat && f.sum == artifact.Digest{}
}

// holds reports whether the file has not changed since it was put with the same content.
func (s *seenFiles) holds(file string, stat fileStat, chunks []artifact.Chunk) bool {
	s.mu.Lock()
	f, ok := s.files[file]
	s.mu.Unlock()
	if !ok || f.stat != stat {
		return false
	}
	if f.sum != (artifact.Digest{}) {
		return f.sum == sumOf(chunks)
	}
	return sameChunks(f.chunks, chunks)
}

// isPlaced reports whether the file has not changed since root was placed there, and the mode that root gives it.
func (s *seenFiles) isPlaced(file string, stat fileStat, root artifact.Digest) (mode uint32, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, ok := s.files[file]
	return f.mode, ok && f.stat == stat && f.root == root
}

// put remembers what a file was read to hold, unless it may yet change with its stat as it is.
func (s *seenFiles) put(file string, stat fileStat, chunks []artifact.Chunk) {
	if stat.isRacy() {
		return
	}
	s.keep(file, seenFile{stat: stat, chunks: chunks})
}

func (s *seenFiles) keep(file string, f seenFile) {
	if len(f.chunks) >= maxSeenChunks {
		f.sum, f.chunks = sumOf(f.chunks), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chunks += len(f.chunks) + 1 - min(len(s.files[file].chunks)+1, s.chunks)
	if s.files == nil || s.chunks > maxSeenChunks {
		s.files, s.chunks = map[string]seenFile{}, len(f.chunks)+1
	}
	s.files[file] = f
}

func (s *seenFiles) drop(file string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f, ok := s.files[file]; ok {
		s.chunks -= len(f.chunks) + 1
		delete(s.files, file)
	}
}
