package catalog

import (
	"encoding/binary"
	"math/bits"

	"meshd/store/artifact"
)

// sum is the sum modulo 2^256 of the hashes of a set, least significant word first. It changes with each
// member at constant cost, and does not depend on order.
//
// Who may choose all members could find two sets with one sum; here the members of a log are chosen by
// its origin, which could as well sign two logs. A relay can not choose them.
type sum [4]uint64

func words(h [32]byte) (w sum) {
	for i := range w {
		w[i] = binary.BigEndian.Uint64(h[24-8*i:])
	}
	return w
}

func (s *sum) add(h [32]byte) { s.plus(words(h)) }
func (s *sum) sub(h [32]byte) { s.minus(words(h)) }

func (s *sum) plus(o sum) {
	var carry uint64
	for i, w := range o {
		s[i], carry = bits.Add64(s[i], w, carry)
	}
}

func (s *sum) minus(o sum) {
	var borrow uint64
	for i, w := range o {
		s[i], borrow = bits.Sub64(s[i], w, borrow)
	}
}

// digest is the sum as the Live of a record: the algorithm of the hashes, then the number big-endian.
func (s sum) digest() artifact.Digest {
	var d artifact.Digest
	d[0] = artifact.SHA256
	for i, w := range s {
		binary.BigEndian.PutUint64(d[25-8*i:], w)
	}
	return d
}
