package artifact

import (
	"encoding/binary"
	"io"
	"maps"
	"math"
	"slices"
)

// The encoding, version 1. Numbers are unsigned varints in their shortest form; text is its length and
// its bytes; a digest is its 33 bytes; a chunk is its digest and size; a list is its count and its items.
//
//	entries: version byte, then up to the end, sorted by name: name, kind byte, mode (2 bytes, big-endian), then
//	         for a file its list of chunks, for a symbolic link its target, for a folder nothing
//	root:    version byte, tree, size, list of parts, list of inputs (name, counter, epoch, 16 bytes of node, tree),
//	         origin (16 bytes of node, entry, text), list of meta (key, value) sorted by key
//
// There is exactly one encoding of each value: the decoders refuse every other spelling.
const codecVersion = 1

// leastChunk and leastInput are the bytes of the shortest encoding of each: what a count is held against.
const (
	leastChunk = len(Digest{}) + 1
	leastInput = 2 + 1 + 1 + 16 + len(Digest{})
)

// An entriesReader encodes sorted entries as they are read, so that the encoding of many is never in memory at once.
type entriesReader struct {
	entries []Entry // the first is encoded but for its chunks from next on
	next    int
	begun   bool
	rest    []byte // encoded and not yet read, a part of buf
	buf     []byte
}

// readerStep is how many chunks are encoded at once.
const readerStep = 256

func (r *entriesReader) Read(b []byte) (int, error) {
	if len(r.rest) == 0 {
		r.fill()
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *entriesReader) fill() {
	out := r.buf[:0]
	if !r.begun {
		r.begun = true
		out = append(out, codecVersion)
	}
	for left := readerStep; left > 0 && len(r.entries) > 0; left-- {
		e := r.entries[0]
		if r.next == 0 {
			out = appendHead(out, e)
		}
		if e.Kind == File {
			n := min(len(e.Chunks)-r.next, left)
			out = appendList(out, e.Chunks[r.next:r.next+n])
			r.next += n
			left -= n
		}
		if e.Kind != File || r.next == len(e.Chunks) {
			r.entries, r.next = r.entries[1:], 0
		}
	}
	r.buf, r.rest = out, out
}

// mostBytes is what the encoding of entries takes, or a little more.
func mostBytes(entries []Entry) int {
	n := 1
	for _, e := range entries {
		n += len(e.Name) + len(e.Link) + 3 + 3*binary.MaxVarintLen32 + len(e.Chunks)*(len(Digest{})+3)
	}
	return n
}

// appendHead appends an entry without its chunks.
func appendHead(b []byte, e Entry) []byte {
	b = appendText(b, e.Name)
	b = append(b, e.Kind)
	b = binary.BigEndian.AppendUint16(b, uint16(e.Mode))
	switch e.Kind {
	case File:
		b = binary.AppendUvarint(b, uint64(len(e.Chunks)))
	case Symlink:
		b = appendText(b, e.Link)
	}
	return b
}

func appendRoot(b []byte, r Root) []byte {
	b = append(b, codecVersion)
	b = append(b, r.Tree[:]...)
	b = binary.AppendUvarint(b, uint64(r.SizeBytes))
	b = appendChunks(b, r.Parts)
	b = binary.AppendUvarint(b, uint64(len(r.Of)))
	for _, in := range r.Of {
		b = appendText(b, in.Name)
		b = binary.AppendUvarint(b, in.Version.Counter)
		b = binary.AppendUvarint(b, in.Version.Epoch)
		b = append(b, in.Version.By[:]...)
		b = append(b, in.Tree[:]...)
	}
	b = append(b, r.Origin.Node[:]...)
	b = binary.AppendUvarint(b, r.Origin.Entry)
	b = appendText(b, r.Origin.Text)
	b = binary.AppendUvarint(b, uint64(len(r.Meta)))
	for _, key := range slices.Sorted(maps.Keys(r.Meta)) {
		b = appendText(appendText(b, key), r.Meta[key])
	}
	return b
}

func appendChunks(b []byte, chunks []Chunk) []byte {
	return appendList(binary.AppendUvarint(b, uint64(len(chunks))), chunks)
}

func appendList(b []byte, chunks []Chunk) []byte {
	for _, c := range chunks {
		b = append(b, c.ID[:]...)
		b = binary.AppendUvarint(b, uint64(c.SizeBytes))
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// DecodeRoot reads a root block. It refuses, wrapping ErrMalformed, every block that Encode could not
// have made. It does not look at the parts: what they hold is checked by DecodeEntries.
func DecodeRoot(b []byte) (Root, error) {
	if len(b) > MaxRootBytes {
		return Root{}, malformed("root block of %d bytes, at most %d are allowed", len(b), MaxRootBytes)
	}
	d := decoder{rest: b}
	d.version()
	r := Root{Tree: d.digest(), SizeBytes: int64(d.number(math.MaxInt64))}
	r.Parts = d.chunks(d.count(leastChunk), nil)
	if n := d.count(leastInput); n > 0 {
		r.Of = make([]Input, n)
	}
	for i := range r.Of {
		in := &r.Of[i]
		in.Name = d.text()
		in.Version.Counter, in.Version.Epoch = d.number(math.MaxUint64), d.number(math.MaxUint64)
		copy(in.Version.By[:], d.take(16))
		in.Tree = d.digest()
	}
	copy(r.Origin.Node[:], d.take(16))
	r.Origin.Entry = d.number(math.MaxUint64)
	r.Origin.Text = d.text()
	d.meta(&r)
	if err := d.finish(); err != nil {
		return Root{}, err
	}
	return r, r.check()
}

// DecodeEntries reads the joined parts of want, which must be exactly what its Tree and SizeBytes say.
// It refuses, wrapping ErrMalformed, names that leave the tree and all else that Encode could not have
// made. The entries keep no part of parts.
func DecodeEntries(parts []byte, want Root) ([]Entry, error) {
	if len(parts) > MaxManifestBytes {
		return nil, malformed("entries of %d bytes, at most %d are allowed", len(parts), MaxManifestBytes)
	}
	if got := Sum(parts); got != want.Tree {
		return nil, malformed("tree is %s, the root block says %s", got, want.Tree)
	}
	nEntries, nChunks, err := countEntries(parts)
	if err != nil {
		return nil, err
	}
	entries, slab := make([]Entry, nEntries), make([]Chunk, 0, nChunks)
	d := decoder{rest: parts}
	if nChunks < manyChunks*nEntries {
		d.whole = string(parts)
	}
	d.version()
	for i := range entries {
		e := &entries[i]
		e.Name, e.Kind, e.Mode = d.text(), d.take(1)[0], uint32(binary.BigEndian.Uint16(d.take(2)))
		switch e.Kind {
		case File:
			from := len(slab)
			slab = d.chunks(d.count(leastChunk), slab)
			if from < len(slab) {
				e.Chunks = slab[from:len(slab):len(slab)]
			}
			for _, c := range e.Chunks {
				e.SizeBytes += int64(c.SizeBytes)
			}
		case Symlink:
			e.Link = d.text()
		}
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	size, err := checkEntries(entries)
	if err == nil && size != want.SizeBytes {
		err = malformed("files of %d bytes, the root block says %d", size, want.SizeBytes)
	}
	if err != nil {
		return nil, err
	}
	return entries, nil
}

// manyChunks of an entry, on the mean, are so much more than its name that names are copied one by one.
const manyChunks = 16

// countEntries walks encoded entries without keeping any, so that DecodeEntries allocates once, and only
// for what is there. After it, reading the same bytes again cannot run short.
func countEntries(parts []byte) (entries, chunks int, err error) {
	d := decoder{rest: parts}
	d.version()
	for len(d.rest) > 0 && d.err == nil {
		entries++
		d.take(d.count(1))
		kind := d.take(1)
		d.take(2)
		if d.err != nil {
			break
		}
		switch kind[0] {
		case File:
			n := d.count(leastChunk)
			for range n {
				d.take(len(Digest{}))
				d.number(MaxChunk)
			}
			chunks += n
		case Dir:
		case Symlink:
			d.take(d.count(1))
		default:
			return 0, 0, malformed("entry %d is of unknown kind %d", entries, kind[0])
		}
	}
	return entries, chunks, d.finish()
}
