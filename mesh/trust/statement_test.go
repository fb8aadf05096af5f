package trust

import (
	"bytes"
	"crypto/ed25519"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"meshd/mesh/id"
)

// keyring knows the keys of these nodes.
func keyring(nodes ...*Identity) func(id.Node) ed25519.PublicKey {
	return func(n id.Node) ed25519.PublicKey {
		for _, i := range nodes {
			if i.ID() == n {
				return i.Public()
			}
		}
		return nil
	}
}

func TestStatementRoundTrip(t *testing.T) {
	_, _, sponsor := founded(t)
	who := newIdentity(t, 3)
	for name, s := range map[string]Statement{
		"admission": {
			Kind: Admission, Subject: who.Public(), Name: "till-1", Serial: [16]byte{1}, Invite: [16]byte{2}, At: noon,
			By: sponsor.ID(),
		},
		"revocation": {
			Kind: Revocation, Subject: who.Public(), Reason: "stolen", At: noon, By: sponsor.ID(),
			Heads: []LogHead{{1, "main", 900}, {1, "nodes", 12}, {1 << 60, "main", 3}},
		},
	} {
		b, err := SignStatement(s, sponsor)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseStatement(b, keyring(sponsor))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(s, got, cmpopts.IgnoreFields(Statement{}, "Sig")); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
		if _, err := ParseStatement(b, keyring()); err == nil {
			t.Errorf("%s: accepted from a signer nobody knows", name)
		}
		if _, err := ParseStatement(b, func(id.Node) ed25519.PublicKey { return who.Public() }); err == nil {
			t.Errorf("%s: accepted with the key of another", name)
		}
		for i := range b {
			bad := bytes.Clone(b)
			bad[i] ^= 1 << (i % 8)
			if _, err := ParseStatement(bad, keyring(sponsor)); err == nil {
				t.Fatalf("%s: byte %d changed: accepted", name, i)
			}
		}
	}
}

func TestSignStatement(t *testing.T) {
	_, _, sponsor := founded(t)
	who := newIdentity(t, 3).Public()
	many := make([]LogHead, maxHeads+1)
	for i := range many {
		many[i] = LogHead{uint64(i), "main", 1}
	}
	full := make([]LogHead, maxHeads)
	for i := range full {
		full[i] = LogHead{1<<63 + uint64(i), strings.Repeat("s", maxScope), 1 << 63}
	}
	for name, s := range map[string]Statement{
		"unknown kind": {Kind: 3, Subject: who}, "no subject": {Kind: Admission}, "bad name": {Kind: Admission, Subject: who, Name: "/"},
		"many heads": {Kind: Revocation, Subject: who, Heads: many}, "one log twice": {Kind: Revocation, Subject: who, Heads: []LogHead{{1, "a", 1}, {1, "a", 2}}},
		"no scope":          {Kind: Revocation, Subject: who, Heads: []LogHead{{1, "", 1}}},
		"admission of logs": {Kind: Admission, Subject: who, Heads: full[:1]},
		"too large":         {Kind: Revocation, Subject: who, Heads: full, Reason: strings.Repeat("r", maxReason), Name: strings.Repeat("n", 63)},
	} {
		if b, err := SignStatement(s, sponsor); err == nil {
			t.Errorf("%s: signed as %x", name, b)
		}
	}
	unsorted := Statement{Kind: Revocation, Subject: who, Heads: []LogHead{{2, "main", 1}, {1, "nodes", 1}}, Reason: strings.Repeat("é", 99)}
	b, err := SignStatement(unsorted, sponsor)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseStatement(b, keyring(sponsor)); err != nil || got.Heads[0].Epoch != 1 || len(got.Reason) != maxReason {
		t.Errorf("heads %v, reason of %d bytes (%v)", got.Heads, len(got.Reason), err)
	}
	if unsorted.Heads[0].Epoch != 2 {
		t.Error("the argument was changed")
	}
}

func TestCharterAllows(t *testing.T) {
	c, _, sponsor := founded(t)
	who, stranger := newIdentity(t, 3), newIdentity(t, 4)
	for name, tt := range map[string]struct {
		s  Statement
		ok bool
	}{
		"sponsor admits":    {Statement{Kind: Admission, Subject: who.Public(), By: sponsor.ID()}, true},
		"stranger admits":   {Statement{Kind: Admission, Subject: who.Public(), By: stranger.ID()}, false},
		"itself admits":     {Statement{Kind: Admission, Subject: who.Public(), By: who.ID()}, false},
		"revoker revokes":   {Statement{Kind: Revocation, Subject: who.Public(), By: sponsor.ID()}, true},
		"stranger revokes":  {Statement{Kind: Revocation, Subject: who.Public(), By: stranger.ID()}, false},
		"revokes itself":    {Statement{Kind: Revocation, Subject: who.Public(), By: who.ID()}, true},
		"of a kind unknown": {Statement{Kind: 9, Subject: who.Public(), By: sponsor.ID()}, false},
	} {
		if err := c.Allows(tt.s); (err == nil) != tt.ok {
			t.Errorf("%s: %v, want allowed %v", name, err, tt.ok)
		}
	}
}

func FuzzStatement(f *testing.F) {
	_, _, sponsor := founded(f)
	good, err := SignStatement(Statement{
		Kind: Revocation, Subject: newIdentity(f, 3).Public(), Heads: []LogHead{{1, "main", 9}}, At: noon,
	}, sponsor)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseStatement(b, keyring(sponsor)); err == nil && !bytes.Equal(b, good) {
			t.Errorf("a statement that nobody signed is accepted: %x", b)
		}
	})
}
