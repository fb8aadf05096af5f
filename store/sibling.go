package store

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"meshd/store/artifact"
)

// A sibling is a file or tree that is made beside the place where it is to lie. Chunks may be given to it while they
// come in; finish fetches the others from the store. It belongs to one goroutine at a time.
type sibling struct {
	s       *Store
	in      *os.Root // where it and its place are
	name    string   // its own
	entries []artifact.Entry

	file   *os.File // of a single file, open
	tree   *os.Root // nil = a single file
	at     *descent // in tree
	before *os.Root // the tree of the version in place; nil = none, or the file system shares no blocks
	shared bool     // file shares blocks with the version in place

	// Pieces are all chunks of all entries in order, repeated ones too. A large file has many: what is kept of each
	// is short.
	first []int32  // of each entry its first piece, and at the end the number of pieces
	marks []int64  // of each markStep-th piece, where it begins in its file
	order []int32  // the pieces by key, nil before the first take
	keys  []uint32 // of those
	here  []bool   // pieces that are written; nil = none

	stats []fileStat // of each entry of a tree, once it is whole; nil = too many
}

// newSibling makes a file, or the folders of a tree, to lie at a spot in the end.
func (s *Store) newSibling(sp spot, name string, entries []artifact.Entry) (*sibling, error) {
	in := sp.folder
	b := &sibling{s: s, in: in, name: name, entries: entries}
	err := removeTree(in, name)
	if err == nil && isFile(entries) {
		b.file, err = in.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		b.shared = err == nil && entries[0].SizeBytes >= minShared && share(b.file, in, sp.name)
	} else if err == nil {
		err = b.folders()
	}
	if target := sp.target(); err == nil && b.tree != nil && target != "" {
		if before, err := in.OpenRoot(target); err == nil {
			b.before = before
		}
	}
	if err != nil {
		b.close()
		return nil, errors.Join(err, ignoreMissing(removeTree(in, name)))
	}
	return b, nil
}

// minShared is the size below which a file is rather written than made to share blocks.
const minShared = 64 << 10

// share makes an empty file one that shares the blocks of what bears a name in a folder, where there is such a file
// and the file system can. Nobody believes what it holds then: fill looks.
func share(f *os.File, in *os.Root, name string) bool {
	old, err := in.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer old.Close()
	info, err := old.Stat()
	return err == nil && info.Mode().IsRegular() && info.Size() >= minShared && clone(f, old)
}

func (b *sibling) folders() (err error) {
	if err := b.in.Mkdir(b.name, 0o700); err != nil {
		return err
	}
	if b.tree, err = b.in.OpenRoot(b.name); err != nil {
		return err
	}
	b.at = &descent{root: b.tree}
	if len(b.entries) < maxSeenChunks {
		b.stats = make([]fileStat, len(b.entries))
	}
	for _, e := range b.entries {
		if e.Kind != artifact.Dir {
			continue
		}
		in, name, err := b.at.enter(e.Name)
		if err == nil {
			err = in.Mkdir(name, 0o700)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// close lets go of what is open. What was made stays.
func (b *sibling) close() {
	if b.at != nil {
		b.at.close()
	}
	if b.tree != nil {
		_ = b.tree.Close() // a folder opened for its name
	}
	if b.before != nil {
		_ = b.before.Close() // a folder opened for its name
	}
	if b.file != nil {
		_ = b.file.Close() // synced, or given up
	}
	b.at, b.tree, b.before, b.file = nil, nil, nil, nil
}

// discard closes and removes it.
func (b *sibling) discard() error {
	b.close()
	return ignoreMissing(removeTree(b.in, b.name))
}

// isAt reports whether it is what bears its name in a folder: others may have replaced either.
func (b *sibling) isAt(in *os.Root) bool {
	there, err := in.Lstat(b.name)
	if err != nil {
		return false
	}
	var own os.FileInfo
	if b.tree != nil {
		own, err = b.tree.Stat(".")
	} else {
		own, err = b.file.Stat()
	}
	return err == nil && os.SameFile(there, own)
}

// keyOf is the part of a digest by which pieces are looked up; the whole one is compared then.
func keyOf(id artifact.Digest) uint32 { return binary.BigEndian.Uint32(id[1:]) }

// markStep is how many pieces are between two whose place in their file is kept.
const markStep = 32

// index lists the pieces.
func (b *sibling) index() {
	n := 0
	for _, e := range b.entries {
		n += len(e.Chunks)
	}
	b.first, b.order = make([]int32, 0, len(b.entries)+1), make([]int32, n)
	b.marks, b.here = make([]int64, 0, n/markStep+1), make([]bool, n)
	keys := make([]uint64, 0, n) // key and piece
	for _, e := range b.entries {
		b.first = append(b.first, int32(len(keys)))
		off := int64(0)
		for _, c := range e.Chunks {
			if len(keys)%markStep == 0 {
				b.marks = append(b.marks, off)
			}
			keys = append(keys, uint64(keyOf(c.ID))<<32|uint64(len(keys)))
			off += int64(c.SizeBytes)
		}
	}
	b.first = append(b.first, int32(n))
	slices.Sort(keys)
	b.keys = make([]uint32, n)
	for i, k := range keys {
		b.keys[i], b.order[i] = uint32(k>>32), int32(uint32(k))
	}
}

// entryOf returns which entry a piece belongs to.
func (b *sibling) entryOf(piece int32) int {
	i, _ := slices.BinarySearch(b.first, piece+1) // the first that begins behind it
	return i - 1
}

func (b *sibling) piece(i int32) artifact.Chunk {
	e := b.entryOf(i)
	return b.entries[e].Chunks[i-b.first[e]]
}

// offset is where a piece begins in its file.
func (b *sibling) offset(piece int32) int64 {
	e := b.entryOf(piece)
	chunks, at, off := b.entries[e].Chunks, int32(0), int64(0)
	if mark := piece / markStep * markStep; mark > b.first[e] {
		at, off = mark-b.first[e], b.marks[mark/markStep]
	}
	for _, c := range chunks[at : piece-b.first[e]] {
		off += int64(c.SizeBytes)
	}
	return off
}

// take writes chunks, whose digests are believed, wherever they belong.
func (b *sibling) take(chunks []artifact.Summed) error {
	if b.order == nil {
		b.index()
	}
	for _, chunk := range chunks {
		key := keyOf(chunk.ID)
		at, _ := slices.BinarySearch(b.keys, key)
		for ; at < len(b.keys) && b.keys[at] == key; at++ {
			p := b.order[at]
			if c := b.piece(p); b.here[p] || c.ID != chunk.ID || int(c.SizeBytes) != len(chunk.Bytes) {
				continue
			}
			if err := b.write(p, chunk.Bytes); err != nil {
				return err
			}
			b.here[p] = true
		}
	}
	return nil
}

// write puts the bytes of a piece where they belong.
func (b *sibling) write(piece int32, chunk []byte) error {
	if b.file != nil {
		_, err := b.file.WriteAt(chunk, b.offset(piece))
		return err
	}
	entry := b.entryOf(piece)
	e := b.entries[entry]
	in, name, err := b.at.enter(e.Name)
	if err != nil {
		return err
	}
	f, err := in.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(chunk, b.offset(piece))
	if err == nil && len(e.Chunks) == 1 {
		err = b.whole(in, name, f, entry)
	}
	return errors.Join(err, f.Close())
}

// whole gives a file of a tree its mode, and notes how it looks then.
func (b *sibling) whole(in *os.Root, name string, f *os.File, entry int) error {
	st, err := asLeft(in, name, f, os.FileMode(b.entries[entry].Mode))
	if err == nil && b.stats != nil {
		b.stats[entry] = st
	}
	return err
}

// asLeft gives a file its mode, and a time of change before now: whoever writes to it from now on gives it another, also
// in the tick of the clock in which it was made. It returns how the file looks then, or nothing where the system does
// not tell.
func asLeft(in *os.Root, name string, f *os.File, mode os.FileMode) (fileStat, error) {
	if err := f.Chmod(mode); err != nil {
		return fileStat{}, err
	}
	if err := in.Chtimes(name, time.Time{}, time.Now().Add(-racyTime)); err != nil {
		return fileStat{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return fileStat{}, err
	}
	st, _ := statOf(info)
	return st, nil
}

// seen has the store remember, below dir, the files of the tree: they need not be read to be found in place.
func (b *sibling) seen(dir string) {
	for i, st := range b.stats {
		if st != (fileStat{}) {
			b.s.seen.keep(filepath.Join(dir, b.name, filepath.FromSlash(b.entries[i].Name)), seenFile{stat: st, chunks: b.entries[i].Chunks})
		}
	}
}

// soon has the disk begin with what was taken: the less is left for the end.
func (b *sibling) soon() {
	if b.file != nil {
		beginSync(b.file)
	}
}

// finishFile writes what is missing of a single file, makes it durable, and returns how it looks then.
func (b *sibling) finishFile(ctx context.Context, mode os.FileMode) (fileStat, error) {
	if err := b.fill(ctx, b.file, 0, b.shared); err != nil {
		return fileStat{}, err
	}
	st, err := asLeft(b.in, b.name, b.file, mode)
	if err != nil {
		return fileStat{}, err
	}
	err = errors.Join(b.file.Sync(), b.file.Close()) // closed before the rename: some systems want it so
	b.file = nil
	return st, err
}

// finishTree writes what is missing of a tree and makes it durable.
func (b *sibling) finishTree(ctx context.Context, each bool) error {
	for i, e := range b.entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.Kind == artifact.Dir || len(e.Chunks) == 1 && b.here != nil && b.here[b.first[i]] {
			continue
		}
		in, name, err := b.at.enter(e.Name)
		if err != nil {
			return err
		}
		if e.Kind == artifact.Symlink {
			err = in.Symlink(filepath.FromSlash(e.Link), name)
		} else {
			err = b.finishOne(ctx, in, name, i, each)
		}
		if err != nil {
			return err
		}
	}
	// Modes of folders come last, the deepest first: a read-only one takes no files.
	for _, e := range slices.Backward(b.entries) {
		if e.Kind == artifact.Dir {
			if err := finishFolder(b.tree, e.Name, os.FileMode(e.Mode), each); err != nil {
				return err
			}
		}
	}
	if err := finishFolder(b.tree, ".", 0o755, each); err != nil || each {
		return err
	}
	f, err := b.tree.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(syncAll(f), f.Close())
}

// finishOne writes what is missing of one file of a tree.
func (b *sibling) finishOne(ctx context.Context, in *os.Root, name string, entry int, durable bool) error {
	flag := os.O_RDWR | os.O_CREATE
	if b.here == nil {
		flag |= os.O_EXCL
	}
	f, err := in.OpenFile(name, flag, 0o600)
	if err != nil {
		return err
	}
	err = b.fill(ctx, f, entry, b.share(f, entry))
	if err == nil {
		err = b.whole(in, name, f, entry)
	}
	if err == nil && durable {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// share is the function share for a file of a tree of which nothing came: it may be as it was.
func (b *sibling) share(f *os.File, entry int) bool {
	e := b.entries[entry]
	if b.before == nil || e.SizeBytes < minShared {
		return false
	}
	if b.here != nil && slices.Contains(b.here[b.first[entry]:b.first[entry+1]], true) {
		return false
	}
	return share(f, b.before, filepath.FromSlash(e.Name))
}

// fill writes to f those chunks of an entry that were not taken, checked. Of those that f shares with the version
// before it looks first whether they are there.
func (b *sibling) fill(ctx context.Context, f *os.File, entry int, shared bool) error {
	var buf []byte
	var off int64
	for i, c := range b.entries[entry].Chunks {
		if b.here == nil || !b.here[int(b.first[entry])+i] {
			if err := ctx.Err(); err != nil {
				return err
			}
			if shared {
				buf = slices.Grow(buf[:0], int(c.SizeBytes))[:c.SizeBytes]
				if _, err := f.ReadAt(buf, off); err == nil && artifact.Sum(buf) == c.ID {
					off += int64(c.SizeBytes)
					continue
				}
			}
			var err error
			if buf, err = b.s.readVerified(c, buf); err != nil {
				return err
			}
			if _, err := f.WriteAt(buf, off); err != nil {
				return err
			}
		}
		off += int64(c.SizeBytes)
	}
	if shared {
		return f.Truncate(off) // what was there may have been longer
	}
	return nil
}

func finishFolder(dir *os.Root, name string, mode os.FileMode, durable bool) error {
	f, err := dir.Open(filepath.FromSlash(name))
	if err != nil {
		return err
	}
	err = f.Chmod(mode)
	if err == nil && durable {
		err = syncFolder(f)
	}
	return errors.Join(err, f.Close())
}

// descent keeps the folder of the last entry open: entries are sorted, most share it with the next.
type descent struct {
	root *os.Root
	name string
	open *os.Root // nil = root
}

// enter returns the folder that holds the named entry, and its name there.
func (d *descent) enter(entry string) (*os.Root, string, error) {
	dir, name := path.Split(entry)
	if dir == "" {
		return d.root, name, nil
	}
	if d.open == nil || d.name != dir {
		d.close()
		open, err := d.root.OpenRoot(filepath.FromSlash(strings.TrimSuffix(dir, "/")))
		if err != nil {
			return nil, "", err
		}
		d.open, d.name = open, dir
	}
	return d.open, name, nil
}

func (d *descent) close() {
	if d.open != nil {
		_ = d.open.Close() // a folder opened for its name
		d.open = nil
	}
}
