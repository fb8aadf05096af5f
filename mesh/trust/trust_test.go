package trust

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"slices"
	"testing"
	"time"

	"meshd/mesh/id"
)

// noon is when the tests happen: whole milliseconds, as all times on the wire.
var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// seeded is 32 bytes of "random" per number, so that every run has the same keys.
func seeded(n uint64) *bytes.Reader {
	seed := bytes.Repeat([]byte{0xa5}, 64)
	binary.BigEndian.PutUint64(seed, n)
	return bytes.NewReader(seed)
}

func newIdentity(t testing.TB, n uint64) *Identity {
	t.Helper()
	i, err := NewIdentity(seeded(n))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// founded is a mesh with one sponsor, admitted by itself.
func founded(t testing.TB) (c *Charter, root ed25519.PrivateKey, sponsor *Identity) {
	t.Helper()
	root, err := NewKey(seeded(1))
	if err != nil {
		t.Fatal(err)
	}
	sponsor = newIdentity(t, 2)
	c, err = NewCharter(root, sponsor.Public(), noon)
	if err != nil {
		t.Fatal(err)
	}
	sponsor.Chain = issue(t, c, sponsor, sponsor, "first", nil)
	return c, root, sponsor
}

func issue(t testing.TB, c *Charter, sponsor, who *Identity, name string, tags map[string]string) [][]byte {
	t.Helper()
	pub, _ := who.BoxKey()
	serial := bytes.Repeat([]byte{0xfe}, serialBytes)
	chain, err := c.Issue(sponsor, who.Public(), *pub, name, tags, serial, noon, noon.Add(LeafLife))
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func TestCharterRoundTrip(t *testing.T) {
	c, _, sponsor := founded(t)
	again, err := ParseCharter(c.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if again.MeshID() != c.MeshID() || again.Version() != 1 || len(again.MeshName()) != 16 {
		t.Errorf("mesh %x version %d, want %x version 1", again.MeshID(), again.Version(), c.MeshID())
	}
	n, other := sponsor.ID(), newIdentity(t, 9).ID()
	for what, holds := range map[string]func(id.Node) bool{
		"sponsor": again.IsSponsor, "score key": again.IsScoreKey, "revoker": again.IsRevoker,
		"publisher":          func(n id.Node) bool { return again.MayPublish(n, "app/web") },
		"score's publisher":  func(n id.Node) bool { return again.MayPublish(n, "score") },
		"publisher, no path": func(n id.Node) bool { return again.MayPublish(n, "app") },
	} {
		if !holds(n) || holds(other) {
			t.Errorf("%s: first node %v, stranger %v, want true, false", what, holds(n), holds(other))
		}
	}
}

func TestPublisherPrefix(t *testing.T) {
	c, root, _ := founded(t)
	web := newIdentity(t, 5)
	terms := c.Terms()
	terms.Publishers = append(terms.Publishers, Publisher{web.Public(), "app/web"}, Publisher{web.Public(), "score"})
	next, err := c.Amend(terms, noon, root)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"app/web": true, "app/web/img": true, "app/webmail": false, "app": false, "score/x": true,
		"score": false, // for score keys alone
	} {
		if got := next.MayPublish(web.ID(), name); got != want {
			t.Errorf("may publish %s: %v, want %v", name, got, want)
		}
	}
}

func TestCharterAmendments(t *testing.T) {
	v1, root, sponsor := founded(t)
	var roots []ed25519.PrivateKey
	for n := range uint64(3) {
		key, err := NewKey(seeded(100 + n))
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, key)
	}
	terms := v1.Terms()
	terms.Threshold, terms.Roots = 2, nil
	for _, key := range roots {
		terms.Roots = append(terms.Roots, key.Public().(ed25519.PublicKey))
	}
	v2, err := v1.Amend(terms, noon, root, roots[0], roots[2])
	if err != nil {
		t.Fatal(err)
	}
	v3terms := terms
	v3terms.Sponsors = append(slices.Clone(terms.Sponsors), newIdentity(t, 7).Public())
	v3, err := v2.Amend(v3terms, noon, roots[1], roots[2])
	if err != nil {
		t.Fatal(err)
	}
	fork, err := v1.Amend(v1.Terms(), noon.Add(time.Hour), root)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := NewCharter(roots[0], sponsor.Public(), noon)
	if err != nil {
		t.Fatal(err)
	}

	for name, tt := range map[string]struct {
		from, to *Charter
		ok       bool
	}{
		"next": {v1, v2, true}, "over one that was slept through": {v1, v3, true}, "same": {v2, v2, false},
		"older": {v3, v2, false}, "fork": {fork, v3, false}, "other mesh": {v1, foreign, false},
	} {
		if err := tt.from.Accepts(tt.to); (err == nil) != tt.ok {
			t.Errorf("%s: %v, want accepted %v", name, err, tt.ok)
		}
	}
	if v3.MeshID() != v1.MeshID() || !v3.IsSponsor(newIdentity(t, 7).ID()) {
		t.Error("version 3 lost the mesh id or what it lays down")
	}

	for name, keys := range map[string][]ed25519.PrivateKey{
		"none": nil, "one of two": {roots[0]}, "one twice": {roots[0], roots[0]},
		"one and a root of before": {roots[0], root}, "one and a stranger": {roots[0], sponsor.Key},
	} {
		if _, err := v2.Amend(v3terms, noon, keys...); err == nil {
			t.Errorf("signed by %s: accepted", name)
		}
	}
	if _, err := v1.Amend(terms, noon, roots[0], roots[1]); err == nil {
		t.Error("signed by the new keys alone: accepted")
	}
	if _, err := v1.Amend(terms, noon, root, roots[1]); err == nil {
		t.Error("signed by the old key and one of two new: accepted")
	}
	for name, spoil := range map[string]func(*Terms){
		"threshold 0":         func(t *Terms) { t.Threshold = 0 },
		"threshold over keys": func(t *Terms) { t.Threshold = 2 },
		"a key once counted":  func(t *Terms) { t.Threshold, t.Roots = 2, append(t.Roots, t.Roots[0]) },
		"short key":           func(t *Terms) { t.Sponsors = append(t.Sponsors, make([]byte, 31)) },
		"expired at birth":    func(t *Terms) { t.Expires = noon },
	} {
		terms := v1.Terms()
		spoil(&terms)
		if _, err := v1.Amend(terms, noon, root); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestCharterOneBitWrongIsRefused(t *testing.T) {
	c, root, _ := founded(t)
	c, err := c.Amend(c.Terms(), noon, root)
	if err != nil {
		t.Fatal(err)
	}
	good := c.Encode()
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if _, err := ParseCharter(bad); err == nil {
			t.Fatalf("byte %d changed: accepted", i)
		}
	}
	for i := range good {
		if _, err := ParseCharter(good[:i]); err == nil {
			t.Fatalf("cut to %d bytes: accepted", i)
		}
	}
}

func FuzzCharter(f *testing.F) {
	c, root, _ := founded(f)
	f.Add(c.Encode())
	if c, err := c.Amend(c.Terms(), noon, root); err == nil {
		f.Add(c.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCharter(b)
		if err == nil && !bytes.Equal(c.Encode(), b) {
			t.Errorf("%x parses to a charter that encodes to %x", b, c.Encode())
		}
	})
}
