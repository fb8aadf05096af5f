package artifact

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strings"

	"meshd/mesh/id"
)

// The limits of a manifest. They are checked before anything is allocated for what they bound.
const (
	// MaxRootBytes is the size of the largest root block: it is kept and sent as one chunk.
	MaxRootBytes = MaxChunk
	// MaxManifestBytes is the size of the longest encoding of entries: about 1.7 million chunks.
	MaxManifestBytes = 64 << 20
	// MaxOriginText is the length of the longest Origin.Text, in bytes.
	MaxOriginText = 200

	maxMeta, maxMetaKey, maxMetaValue = 64, 64, 1024
)

// The kinds of an Entry. The values are part of the format.
const (
	File    uint8 = 1
	Dir     uint8 = 2
	Symlink uint8 = 3
)

// Entry is one file, folder or symbolic link of a tree.
//
// Name is relative to the tree, its parts joined by "/"; it is empty for the one entry of an artifact
// that is a single file. Mode holds permission bits alone (0 to 0777; 0 for a symbolic link). Link is
// where a symbolic link leads: relative, in its shortest form, never out of the tree. Chunks are the
// content of a file in order, none for an empty one; SizeBytes is their sum and not encoded.
type Entry struct {
	Name      string
	Kind      uint8
	Mode      uint32
	SizeBytes int64
	Link      string
	Chunks    []Chunk
}

// Input names an artifact that another was made from.
type Input struct {
	Name    string
	Version Version
	Tree    Digest
}

// Compare orders inputs by name, version, tree: the order in which a root block holds them.
func (a Input) Compare(b Input) int {
	return cmp.Or(strings.Compare(a.Name, b.Name), a.Version.Compare(b.Version), a.Tree.Compare(b.Tree))
}

// Origin says which entry of which node's journal made an artifact, with its text (at most MaxOriginText
// bytes of UTF-8), so that the chain of causes can be told where that journal cannot be read.
type Origin struct {
	Node  id.Node
	Entry uint64
	Text  string
}

// Manifest is all that an artifact is made of: its tree, what it was made from, who made it and why.
// It holds no times and no owners.
type Manifest struct {
	Entries []Entry
	Of      []Input
	Origin  Origin
	Meta    map[string]string
}

// Root is a decoded root block: a manifest with Parts, the chunks of the encoded entries, in place of
// the entries.
type Root struct {
	Tree      Digest
	SizeBytes int64
	Parts     []Chunk
	Of        []Input
	Origin    Origin
	Meta      map[string]string
}

// Encode checks m and returns its root block, the parts that the block names, in order, and a Ref
// without name and version. Entries and Of may come in any order; m is not changed. Equal manifests
// have one encoding.
func (m Manifest) Encode() (root []byte, parts [][]byte, ref Ref, err error) {
	root, ref, err = m.EncodeTo(func(_ Chunk, part []byte) error {
		parts = append(parts, slices.Clone(part))
		return nil
	})
	return root, parts, ref, err
}

// EncodeTo is Encode that hands on one part after the other instead of keeping all. A part is valid until emit returns,
// whose error ends the work and is returned as it is.
func (m Manifest) EncodeTo(emit func(c Chunk, part []byte) error) (root []byte, ref Ref, err error) {
	entries := slices.SortedFunc(slices.Values(m.Entries), func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	r := Root{Of: slices.SortedFunc(slices.Values(m.Of), Input.Compare), Origin: m.Origin, Meta: m.Meta}
	if r.SizeBytes, err = checkEntries(entries); err != nil {
		return nil, Ref{}, err
	}
	tree, total := sha256.New(), 0
	s := Splitter{cut: &manifestCut, buf: make([]byte, min(2*manifestCut.max, mostBytes(entries)+1))}
	err = s.Split(io.TeeReader(&entriesReader{entries: entries}, tree), func(part []byte) error {
		if total += len(part); total > MaxManifestBytes {
			return fmt.Errorf("manifest of %d entries: more than %d bytes: publish it as several artifacts", len(entries), MaxManifestBytes)
		}
		c := Chunk{ID: Sum(part), SizeBytes: uint32(len(part))}
		r.Parts = append(r.Parts, c)
		return emit(c, part)
	})
	if err != nil {
		return nil, Ref{}, err
	}
	r.Tree = digestOf(tree)
	if err := r.check(); err != nil {
		return nil, Ref{}, err
	}
	root = appendRoot(nil, r)
	if len(root) > MaxRootBytes {
		return nil, Ref{}, fmt.Errorf("root block of %d parts and %d inputs: %d bytes, at most %d are allowed",
			len(r.Parts), len(r.Of), len(root), MaxRootBytes)
	}
	return root, Ref{Root: Sum(root), Tree: r.Tree, SizeBytes: r.SizeBytes}, nil
}

func digestOf(h hash.Hash) Digest {
	d := Digest{SHA256}
	copy(d[1:], h.Sum(nil))
	return d
}

// TreeOf returns the digest that the tree of these entries has, in whatever order they come.
func TreeOf(entries []Entry) (Digest, error) {
	entries = slices.SortedFunc(slices.Values(entries), func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	if _, err := checkEntries(entries); err != nil {
		return Digest{}, err
	}
	tree := sha256.New()
	if _, err := io.Copy(tree, &entriesReader{entries: entries}); err != nil {
		return Digest{}, err
	}
	return digestOf(tree), nil
}

// check reports what of r, its tree apart, breaks a rule of the format.
func (r Root) check() error {
	var total int64
	for _, p := range r.Parts {
		if err := p.check(); err != nil {
			return err
		}
		total += int64(p.SizeBytes)
	}
	if total > MaxManifestBytes {
		return malformed("parts of %d bytes, at most %d are allowed", total, MaxManifestBytes)
	}
	if r.Tree[0] != SHA256 || r.SizeBytes < 0 {
		return malformed("tree %x... of %d bytes", r.Tree[:4], r.SizeBytes)
	}
	for i, in := range r.Of {
		if err := CheckName(in.Name); err != nil {
			return err
		}
		if in.Tree[0] != SHA256 {
			return malformed("input %q: unknown hash algorithm %d", in.Name, in.Tree[0])
		}
		if i > 0 && r.Of[i-1].Compare(in) >= 0 {
			return malformed("input %q is out of order or twice", in.Name)
		}
	}
	if len(r.Origin.Text) > MaxOriginText {
		return malformed("origin text of %d bytes, at most %d are allowed", len(r.Origin.Text), MaxOriginText)
	}
	if err := checkText("origin text", r.Origin.Text); err != nil {
		return err
	}
	return r.checkMeta()
}

func (r Root) checkMeta() error {
	if len(r.Meta) > maxMeta {
		return malformed("%d meta values, at most %d are allowed", len(r.Meta), maxMeta)
	}
	for _, key := range slices.Sorted(maps.Keys(r.Meta)) {
		if key == "" || len(key) > maxMetaKey || len(r.Meta[key]) > maxMetaValue {
			return malformed("meta %.80q of %d bytes: a key has 1 to %d bytes, a value at most %d",
				key, len(r.Meta[key]), maxMetaKey, maxMetaValue)
		}
		if err := cmp.Or(checkText("meta key", key), checkText("meta "+key, r.Meta[key])); err != nil {
			return err
		}
	}
	return nil
}

func (c Chunk) check() error {
	if c.ID[0] != SHA256 {
		return malformed("chunk: unknown hash algorithm %d", c.ID[0])
	}
	if c.SizeBytes < 1 || c.SizeBytes > MaxChunk {
		return malformed("chunk %s of %d bytes: 1 to %d are allowed", c.ID.Short(), c.SizeBytes, MaxChunk)
	}
	return nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("manifest: %w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}
