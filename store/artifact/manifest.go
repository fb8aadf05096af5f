package artifact

import (
	"io"

	"meshd/mesh/id"
)

// MaxName is the longest name of an artifact, in bytes.
const MaxName = 200

// CheckName reports whether name may name an artifact.
func CheckName(name string) error { panic("not built") }

// Split cuts what r holds into chunks.
func Split(r io.Reader, emit func(chunk []byte) error) error { panic("not built") }

// The kinds of an Entry.
const (
	File uint8 = iota + 1
	Dir
	Symlink
)

// Entry is one file, folder or symbolic link of a tree.
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

// Origin says which journal entry of which node made an artifact.
type Origin struct {
	Node  id.Node
	Entry uint64
	Text  string
}

// Manifest is all that an artifact is made of.
type Manifest struct {
	Entries []Entry
	Of      []Input
	Origin  Origin
	Meta    map[string]string
}

// Root is a decoded root block.
type Root struct {
	Tree      Digest
	SizeBytes int64
	Parts     []Chunk
	Of        []Input
	Origin    Origin
	Meta      map[string]string
}

// Encode returns the root block, the parts and a ref without name and version.
func (m Manifest) Encode() (root []byte, parts [][]byte, ref Ref, err error) { panic("not built") }

// DecodeRoot reads a root block.
func DecodeRoot(b []byte) (Root, error) { panic("not built") }

// DecodeEntries reads the joined parts of want.
func DecodeEntries(parts []byte, want Root) ([]Entry, error) { panic("not built") }
