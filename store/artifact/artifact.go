// Package artifact holds the nouns of what nodes make: digests, versions, chunks, manifests.
//
// Everything here is a value or a pure function of values.
package artifact

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"

	"meshd/mesh/id"
)

// SHA256 is the algorithm byte of a Digest made with SHA-256, the only one so far.
const SHA256 = 1

// Digest is an algorithm byte followed by the 32 bytes of the hash. The zero value is no digest.
type Digest [33]byte

// ErrMalformed is returned for text or bytes that are not a digest, a name or a manifest.
var ErrMalformed = errors.New("malformed")

// Sum returns the SHA-256 digest of b.
func Sum(b []byte) Digest {
	var d Digest
	d[0] = SHA256
	sum := sha256.Sum256(b)
	copy(d[1:], sum[:])
	return d
}

// String returns "sha256:" and 64 lower-case hexadecimal digits, or "" for the zero digest.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return "sha256:" + hex.EncodeToString(d[1:])
}

// Short returns the first 12 hexadecimal digits, for tables.
func (d Digest) Short() string { return hex.EncodeToString(d[1:7]) }

// IsZero reports whether d is no digest.
func (d Digest) IsZero() bool { return d == Digest{} }

// Compare orders digests by their bytes.
func (d Digest) Compare(o Digest) int { return bytes.Compare(d[:], o[:]) }

// ParseDigest reads the form that String writes.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	const prefix = "sha256:"
	if len(s) != len(prefix)+64 || s[:len(prefix)] != prefix {
		return Digest{}, fmt.Errorf("digest %q: %w: want sha256: and 64 hexadecimal digits", s, ErrMalformed)
	}
	d[0] = SHA256
	if _, err := hex.Decode(d[1:], []byte(s[len(prefix):])); err != nil || d.String() != s {
		return Digest{}, fmt.Errorf("digest %q: %w: want lower-case hexadecimal digits", s, ErrMalformed)
	}
	return d, nil
}

// Version orders the artifacts of one name: by counter, then publisher, then epoch. Two with equal
// versions are ordered by the root of their Ref, so that the order is total (SPEC 6).
// Counter is one more than the highest the publisher had heard for the name; it begins at 1.
type Version struct {
	Counter, Epoch uint64
	By             id.Node
}

// Compare orders versions, older first.
func (v Version) Compare(o Version) int {
	if c := cmp.Compare(v.Counter, o.Counter); c != 0 {
		return c
	}
	if c := v.By.Compare(o.By); c != 0 {
		return c
	}
	return cmp.Compare(v.Epoch, o.Epoch)
}

// Ref names one immutable artifact.
//
// Root is the digest of its root block, which covers all it is made of, its origin included; it is what
// is signed and pulled. Tree is the digest of the entries alone: equal content, equal tree.
// SizeBytes counts the bytes of its files.
type Ref struct {
	Name      string
	Version   Version
	Root      Digest
	Tree      Digest
	SizeBytes int64
}

// Compare orders refs of one name, older first.
func (r Ref) Compare(o Ref) int {
	if c := r.Version.Compare(o.Version); c != 0 {
		return c
	}
	return r.Root.Compare(o.Root)
}

// Chunk names a run of bytes by its content. SizeBytes is 1 to 256 KiB.
type Chunk struct {
	ID        Digest
	SizeBytes uint32
}

// Summed is what a chunk holds, and two sums of it: the digest that names it, and the CRC-32C by which a store finds
// bit rot.
type Summed struct {
	ID    Digest
	CRC   uint32
	Bytes []byte
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC returns the CRC-32C of b.
func CRC(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// SumUp takes both sums of b, which it keeps, one right after the other: where they are taken apart b has left the
// processor's cache in between, and the second takes three times as long.
func SumUp(b []byte) Summed { return Summed{ID: Sum(b), CRC: CRC(b), Bytes: b} }

// A Batch takes chunks that become durable, and readable, together. It belongs to one goroutine at a time.
type Batch interface {
	// Write takes chunks of 1 byte to 256 KiB, whose sums it believes. It keeps none of their bytes.
	Write(chunks []Summed) error
	// Commit makes all that was written so far durable.
	Commit() error
	// Close gives up what is not durable. It is always called.
	Close()
}
