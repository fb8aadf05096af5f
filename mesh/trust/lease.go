package trust

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
)

// Limits of a lease.
const (
	MaxLease      = 256            // bytes as encoded
	MaxLeaseTime  = 25 * time.Hour // a leaf that stays away for longer counts no more
	MaxLeaseCount = 1 << 48        // counters beyond are nobody's
	leaseSeal     = "meshd lease 1\x00"
)

// A Lease is a leaf's word on where it is attached: signed by the leaf, published by its attach point. It has no
// dates: clocks differ. Of two the one with the higher Count stands.
type Lease struct {
	Leaf, At id.Node
	Count    uint64        // one more than in any lease before; begins at 1
	Lasts    time.Duration // how long the leaf counts as live after its attach point saw it last; whole seconds
}

type leaseDoc struct {
	Leaf, At [16]byte
	Count    uint64
	Seconds  uint32
}

type signedLease struct {
	Doc []byte
	Sig [64]byte
}

// SignLease signs l in the name of by, whatever l.Leaf holds, and returns the bytes that ParseLease takes.
func SignLease(l Lease, by *Identity) ([]byte, error) {
	doc := leaseDoc{by.ID(), l.At, l.Count, uint32(l.Lasts / time.Second)}
	if err := doc.check(); err != nil {
		return nil, err
	}
	b, err := wire.Marshal(wireVersion, doc)
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	out, err := wire.Marshal(wireVersion, signedLease{b, sign(by.Key, leaseSeal, b)})
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	return out, nil
}

// ParseLease reads a lease and verifies its signature with the key that key knows of the leaf; nil means
// unknown.
func ParseLease(b []byte, key func(id.Node) ed25519.PublicKey) (Lease, error) {
	var signed signedLease
	var doc leaseDoc
	if err := wire.Unmarshal(b, wireVersion, wire.Limits{Bytes: MaxLease}, &signed); err != nil {
		return Lease{}, fmt.Errorf("lease: %w", err)
	}
	if err := wire.Unmarshal(signed.Doc, wireVersion, wire.Limits{Bytes: MaxLease}, &doc); err != nil {
		return Lease{}, fmt.Errorf("lease: %w", err)
	}
	if err := doc.check(); err != nil {
		return Lease{}, err
	}
	leaf := id.Node(doc.Leaf)
	pub := key(leaf)
	if pub == nil {
		return Lease{}, fmt.Errorf("lease of %s: its key is not known", leaf.Short())
	}
	if id.FromKey(pub) != leaf || !verify(pub, leaseSeal, signed.Doc, signed.Sig) {
		return Lease{}, fmt.Errorf("lease of %s: it did not sign that", leaf.Short())
	}
	return Lease{leaf, id.Node(doc.At), doc.Count, time.Duration(doc.Seconds) * time.Second}, nil
}

// check reports whether a lease is well formed, whoever signed it.
func (d leaseDoc) check() error {
	switch lasts := time.Duration(d.Seconds) * time.Second; {
	case lasts > MaxLeaseTime:
		return fmt.Errorf("lease of %s: it lasts %v, the limit is %v", id.Node(d.Leaf).Short(), lasts, MaxLeaseTime)
	case d.Count == 0 || d.Count > MaxLeaseCount:
		return fmt.Errorf("lease of %s: count %d, want 1 to %d", id.Node(d.Leaf).Short(), d.Count, uint64(MaxLeaseCount))
	case d.Leaf == d.At:
		return fmt.Errorf("lease of %s: it is attached to itself", id.Node(d.Leaf).Short())
	}
	return nil
}
