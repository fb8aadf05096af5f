package trust

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"meshd/mesh/wire"
)

func TestALeaseIsItsLeafsWord(t *testing.T) {
	leaf, at, other := newIdentity(t, 3), newIdentity(t, 4), newIdentity(t, 5)
	l := Lease{Leaf: leaf.ID(), At: at.ID(), Count: 7, Lasts: 10 * time.Minute}
	good, err := SignLease(l, leaf)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseLease(good, keyring(leaf)); err != nil || got != l {
		t.Fatalf("ParseLease = %+v, %v, want %+v", got, err, l)
	}
	if _, err := ParseLease(good, keyring(other)); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("without the leaf's key: %v", err)
	}
	tests := []struct {
		name string
		make func() ([]byte, error)
		want string
	}{
		{"for ever", func() ([]byte, error) { return SignLease(Lease{At: at.ID(), Count: 1, Lasts: 26 * time.Hour}, leaf) }, "the limit is 25h"},
		{"count 0", func() ([]byte, error) { return SignLease(Lease{At: at.ID()}, leaf) }, "count 0"},
		{"a count that leaves no room", func() ([]byte, error) { return SignLease(Lease{At: at.ID(), Count: 1 << 60}, leaf) }, "count 1152921504606846976"},
		{"at itself", func() ([]byte, error) { return SignLease(Lease{At: leaf.ID(), Count: 1}, leaf) }, "attached to itself"},
		{"in another's name", func() ([]byte, error) {
			doc, err := wire.Marshal(wireVersion, leaseDoc{leaf.ID(), at.ID(), 1, 600})
			if err != nil {
				return nil, err
			}
			return wire.Marshal(wireVersion, signedLease{doc, sign(other.Key, leaseSeal, doc)})
		}, "did not sign"},
		{"signed, and for ever", func() ([]byte, error) {
			doc, err := wire.Marshal(wireVersion, leaseDoc{leaf.ID(), at.ID(), 1, 1 << 30})
			if err != nil {
				return nil, err
			}
			return wire.Marshal(wireVersion, signedLease{doc, sign(leaf.Key, leaseSeal, doc)})
		}, "the limit is 25h"},
		{"cut", func() ([]byte, error) { return good[:len(good)-1], nil }, "lease"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := tt.make()
			if err == nil {
				_, err = ParseLease(b, keyring(leaf, other))
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func FuzzLease(f *testing.F) {
	leaf := newIdentity(f, 3)
	good, err := SignLease(Lease{At: newIdentity(f, 4).ID(), Count: 1, Lasts: time.Minute}, leaf)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseLease(b, keyring(leaf)); err == nil && !bytes.Equal(b, good) {
			t.Errorf("a lease that nobody signed is accepted: %x", b)
		}
	})
}
