package swarm

import "math/bits"

// A bitset holds small non-negative integers: the indices of chunks in manifest order.
type bitset []uint64

func newBitset(n int) bitset { return make(bitset, (n+63)/64) }

func (b bitset) set(i int)      { b[i>>6] |= 1 << (i & 63) }
func (b bitset) clear(i int)    { b[i>>6] &^= 1 << (i & 63) }
func (b bitset) has(i int) bool { return b[i>>6]&(1<<(i&63)) != 0 }

// fill sets 0 to n-1.
func (b bitset) fill(n int) {
	for i := range b {
		b[i] = ^uint64(0)
	}
	if n&63 != 0 {
		b[len(b)-1] = 1<<(n&63) - 1
	}
}

func (b bitset) count() int {
	n := 0
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// next returns the first member of b and of mask that is at least i, or -1. A nil mask masks nothing.
func (b bitset) next(i int, mask bitset) int {
	for w := i >> 6; w < len(b); w++ {
		word := b[w]
		if mask != nil {
			word &= mask[w]
		}
		if w == i>>6 {
			word &= ^uint64(0) << (i & 63)
		}
		if word != 0 {
			return w<<6 + bits.TrailingZeros64(word)
		}
	}
	return -1
}

// bytes returns the wire form of the first n: bit i is bit i%8 of byte i/8, trailing bits are 0.
func (b bitset) bytes(n int) []byte {
	out := make([]byte, (n+7)/8)
	for i := range out {
		out[i] = byte(b[i/8] >> (8 * (i % 8)))
	}
	return out
}

// parseBits reads the wire form of a set of integers below n; nil if in is not that.
func parseBits(in []byte, n int) bitset {
	if len(in) != (n+7)/8 || n&7 != 0 && in[len(in)-1]>>(n&7) != 0 {
		return nil
	}
	b := newBitset(n)
	for i, x := range in {
		b[i/8] |= uint64(x) << (8 * (i % 8))
	}
	return b
}

// complement returns which of the first n are not in b.
func (b bitset) complement(n int) bitset {
	out := newBitset(n)
	out.fill(n)
	for i := range out {
		out[i] &^= b[i]
	}
	return out
}
