// Package id names nodes and ranks them.
//
// It imports nothing of ours: everything else may speak of nodes.
package id

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
)

// Node identifies a node: the first 16 bytes of the SHA-256 of its Ed25519 public key (SPEC 11).
// The zero value is no node. Node is comparable and may key a map.
type Node [16]byte

// ErrMalformed is returned for text that is not 32 lower-case hexadecimal digits.
var ErrMalformed = errors.New("malformed node id")

// FromKey returns the id of the node that holds the Ed25519 public key pub.
func FromKey(pub []byte) Node {
	sum := sha256.Sum256(pub)
	return Node(sum[:16])
}

// Parse reads the form that String writes. Upper case is refused: a second spelling would be a second key.
func Parse(s string) (Node, error) {
	var n Node
	if len(s) != 2*len(n) {
		return Node{}, fmt.Errorf("node id %q: %w: want 32 hexadecimal digits", s, ErrMalformed)
	}
	if _, err := hex.Decode(n[:], []byte(s)); err != nil || n.String() != s {
		return Node{}, fmt.Errorf("node id %q: %w: want 32 lower-case hexadecimal digits", s, ErrMalformed)
	}
	return n, nil
}

// String returns 32 lower-case hexadecimal digits: the name of the node in the ring.
func (n Node) String() string { return hex.EncodeToString(n[:]) }

// Short returns the first 8 digits, for people.
func (n Node) Short() string { return hex.EncodeToString(n[:4]) }

// IsZero reports whether n is no node.
func (n Node) IsZero() bool { return n == Node{} }

// Compare orders nodes by their bytes.
func (n Node) Compare(o Node) int { return bytes.Compare(n[:], o[:]) }

// Rank orders nodes by their rendezvous weight for key, best first. All who rank the same set agree,
// and when one node leaves, the order of the others stays. The argument is not changed.
func Rank(key []byte, nodes []Node) []Node {
	type weighed struct {
		node   Node
		weight [32]byte
	}
	all := make([]weighed, len(nodes))
	for i, n := range nodes {
		h := sha256.New()
		h.Write(key)
		h.Write(n[:])
		all[i].node = n
		h.Sum(all[i].weight[:0])
	}
	slices.SortFunc(all, func(a, b weighed) int {
		if c := bytes.Compare(b.weight[:], a.weight[:]); c != 0 {
			return c
		}
		return a.node.Compare(b.node)
	})
	out := make([]Node, len(all))
	for i, w := range all {
		out[i] = w.node
	}
	return out
}
