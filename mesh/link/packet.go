package link

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"golang.org/x/crypto/nacl/box"

	"meshd/mesh/id"
	"meshd/mesh/wire"
)

// A sealed packet, as it is on the wire:
//
//	version(1) sender(8, the first bytes of its id) boot(8) counter(6, big-endian) box(kind(1) payload)
//
// The box is nacl/box between the X25519 keys of the pair. It is symmetric, so its 24-byte nonce says
// which way the packet goes: boot, counter, and the first 10 bytes of a hash of version, mesh, sender
// and receiver. All of these are therefore sealed though only half of them travel: a packet that is
// reflected, readdressed or from another mesh does not open. A boot id is drawn at each start and a
// counter never repeats within it, so no nonce is used twice.
const (
	packetVersion = 1
	packetHead    = 1 + 8 + 8 + 6
	packetCost    = packetHead + box.Overhead + 1

	// MaxPacket is the longest sealed packet, below the smallest usual MTU with room for tunnels.
	MaxPacket = 1400
	// MaxPayload is the most bytes that Send takes.
	MaxPayload = MaxPacket - packetCost

	maxCounter = 1<<48 - 1
)

// A bootID tells one run of a node from its others. It comes from crypto/rand, never from a seed: a run
// that repeated it would use nonces twice.
type bootID [8]byte

// A shortID finds the sender of a packet. Two nodes with one shortID would have to be searched for over
// 2^64 keys; only one of them could then send packets.
type shortID [8]byte

func short(n id.Node) shortID { return shortID(n[:8]) }

// A pair holds what seals packets between this node and one peer.
type pair struct {
	shared  [32]byte
	out, in [10]byte // what each direction puts into the nonce
}

func newPair(mesh [32]byte, self, peer id.Node, peerBox, priv *[32]byte) *pair {
	p := &pair{out: direction(mesh, self, peer), in: direction(mesh, peer, self)}
	box.Precompute(&p.shared, peerBox, priv)
	return p
}

func direction(mesh [32]byte, from, to id.Node) [10]byte {
	h := sha256.New()
	h.Write([]byte{packetVersion})
	h.Write(mesh[:])
	h.Write(from[:])
	h.Write(to[:])
	return [10]byte(h.Sum(nil)[:10])
}

func nonce(boot bootID, counter uint64, way [10]byte) *[24]byte {
	var n [24]byte
	copy(n[:], boot[:])
	putCounter(n[8:14], counter)
	copy(n[14:], way[:])
	return &n
}

func putCounter(b []byte, counter uint64) {
	binary.BigEndian.PutUint16(b, uint16(counter>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(counter))
}

// seal returns the packet that carries payload from self.
func (p *pair) seal(self id.Node, boot bootID, counter uint64, kind byte, payload []byte) []byte {
	b := make([]byte, packetHead, packetCost+len(payload))
	b[0] = packetVersion
	copy(b[1:9], self[:])
	copy(b[9:17], boot[:])
	putCounter(b[17:23], counter)
	plain := append([]byte{kind}, payload...)
	return box.SealAfterPrecomputation(b, plain, nonce(boot, counter, p.out), &p.shared)
}

// A head is the clear part of a packet: claims until the box opened.
type head struct {
	from    shortID
	boot    bootID
	counter uint64
}

// parseHead splits a packet into its clear head and the box.
func parseHead(b []byte) (head, []byte, error) {
	if len(b) > MaxPacket {
		return head{}, nil, &wire.LimitError{What: "bytes of a packet", Limit: MaxPacket, Got: len(b)}
	}
	if len(b) < packetCost {
		return head{}, nil, fmt.Errorf("packet of %d bytes: %w: at least %d", len(b), wire.ErrMalformed, packetCost)
	}
	if b[0] != packetVersion {
		return head{}, nil, fmt.Errorf("packet of version %d, want %d: %w", b[0], packetVersion, wire.ErrMalformed)
	}
	h := head{from: shortID(b[1:9]), boot: bootID(b[9:17])}
	h.counter = uint64(binary.BigEndian.Uint16(b[17:]))<<32 | uint64(binary.BigEndian.Uint32(b[19:]))
	return h, b[packetHead:], nil
}

// open returns what the box of a packet with head h holds, in memory of its own; ok is false unless the
// peer of the pair sealed it for this node.
func (p *pair) open(h head, sealed []byte) (kind byte, payload []byte, ok bool) {
	plain, ok := box.OpenAfterPrecomputation(nil, sealed, nonce(h.boot, h.counter, p.in), &p.shared)
	if !ok || len(plain) == 0 {
		return 0, nil, false
	}
	return plain[0], plain[1:], true
}

// windowBits is how far behind the newest a packet may arrive.
const windowBits = 1024

// A window remembers which counters came, so that each is taken once. The zero window has seen none;
// counters begin at 1.
type window struct {
	newest uint64
	bits   [windowBits / 64]uint64 // counter c at bit c mod windowBits
}

// since returns a window that refuses all counters up to sent: those were used before we listened.
func since(sent uint64) window {
	w := window{newest: sent}
	for i := range w.bits {
		w.bits[i] = ^uint64(0)
	}
	return w
}

// take reports whether counter c is new, and whether it is the newest yet.
func (w *window) take(c uint64) (ok, newest bool) {
	if c == 0 || c+windowBits <= w.newest {
		return false, false
	}
	if c > w.newest {
		if c-w.newest >= windowBits {
			w.bits = [windowBits / 64]uint64{}
		} else {
			for i := w.newest + 1; i < c; i++ {
				w.bits[i%windowBits/64] &^= 1 << (i % 64)
			}
		}
		w.newest = c
		w.bits[c%windowBits/64] |= 1 << (c % 64)
		return true, true
	}
	bit := uint64(1) << (c % 64)
	if w.bits[c%windowBits/64]&bit != 0 {
		return false, false
	}
	w.bits[c%windowBits/64] |= bit
	return true, false
}
