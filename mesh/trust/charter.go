// Package trust decides whose word counts: the charter, identities, certificates, invites, statements.
//
// Nothing here reads a clock, a socket or the mesh: time and bytes are passed in, verdicts come back.
// Whoever holds no key that the charter names has no right, whatever gossip says of it (SPEC 11).
package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
)

// Limits of a charter. All versions together stay small enough to be told in one message.
const (
	MaxCharter   = 64 << 10 // bytes of an encoded charter, all versions
	maxKeys      = 256      // keys in one list of one version
	charterLife  = 10 * 365 * 24 * time.Hour
	scoreName    = "score" // the artifact that only score keys publish (SPEC 11)
	wireVersion  = 1
	charterSeal  = "meshd charter 1\x00"
	firstVersion = 1
)

// ErrNotAccepted is wrapped where a charter does not follow from the one in force.
var ErrNotAccepted = errors.New("charter not accepted")

// A Charter is the constitution of a mesh: every version of it so far, each signed by as many root
// keys as the version before it and the version itself ask for. It is immutable and may be used by
// any number of goroutines.
//
// It carries its history so that a node that slept through versions, or meets the mesh for the first
// time with nothing but the mesh id of its invite, can verify the newest one from the first.
type Charter struct {
	raw   []byte // as encoded
	docs  [][]byte
	mesh  [32]byte
	terms Terms // of the newest version
	nth   uint64
}

// Terms is what one version of a charter lays down. Keys are 32 bytes; their order has no meaning.
type Terms struct {
	Threshold  int                 // how many of Roots must sign, at least 1
	Roots      []ed25519.PublicKey // kept offline; they do nothing but sign charters
	Sponsors   []ed25519.PublicKey // node keys that may admit others
	ScoreKeys  []ed25519.PublicKey // node keys that may set the score
	Revokers   []ed25519.PublicKey // node keys that may revoke others
	Publishers []Publisher
	Expires    time.Time // shown to people; a charter does not stop a mesh. Milliseconds count
}

// A Publisher may publish artifacts under a name prefix: the name itself, and what follows it after
// a slash. The empty prefix is every name, except that of the score.
type Publisher struct {
	Key    ed25519.PublicKey
	Prefix string
}

// charterFile, signedDoc and charterDoc are the encoding: each version's document as bytes, beside
// the signatures over charterSeal and those bytes. The hash of the first document is the mesh id.
type charterFile struct {
	Versions []signedDoc
}

type signedDoc struct {
	Doc  []byte
	Sigs []rootSig // ascending by key, so that no key counts twice
}

type rootSig struct {
	Key [32]byte
	Sig [64]byte
}

type charterDoc struct {
	Mesh       [32]byte // of the mesh; zero in the first version, which defines it
	Before     [32]byte // hash of the document before; zero in the first version
	Version    uint64
	Threshold  uint16
	Roots      [][32]byte // this and the other lists ascend: one spelling
	Sponsors   [][32]byte
	ScoreKeys  [][32]byte
	Revokers   [][32]byte
	Publishers []publisherDoc
	MadeMs     int64
	ExpiresMs  int64
}

type publisherDoc struct {
	Key    [32]byte
	Prefix string
}

// NewCharter founds a mesh: version 1, one root key of one, and the first node's key as sponsor,
// score key, publisher of every name, and revoker.
func NewCharter(root ed25519.PrivateKey, firstNode ed25519.PublicKey, now time.Time) (*Charter, error) {
	if len(root) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("new charter: root key of %d bytes, want %d", len(root), ed25519.PrivateKeySize)
	}
	node := []ed25519.PublicKey{firstNode}
	doc, err := document(Terms{
		Threshold: 1, Roots: []ed25519.PublicKey{root.Public().(ed25519.PublicKey)},
		Sponsors: node, ScoreKeys: node, Revokers: node,
		Publishers: []Publisher{{Key: firstNode}},
		Expires:    now.Add(charterLife),
	})
	if err != nil {
		return nil, fmt.Errorf("new charter: %w", err)
	}
	doc.Version, doc.MadeMs = firstVersion, now.UnixMilli()
	return extend(charterFile{}, doc, []ed25519.PrivateKey{root})
}

// Amend makes the next version of the charter. The keys must be enough of the roots in force and of
// the new terms' own; others are refused.
func (c *Charter) Amend(t Terms, now time.Time, keys ...ed25519.PrivateKey) (*Charter, error) {
	doc, err := document(t)
	if err != nil {
		return nil, fmt.Errorf("amend charter: %w", err)
	}
	doc.Mesh, doc.Before = c.mesh, sha256.Sum256(c.docs[len(c.docs)-1])
	doc.Version, doc.MadeMs = c.nth+1, now.UnixMilli()
	var file charterFile
	if err := wire.Unmarshal(c.raw, wireVersion, wire.Limits{Bytes: MaxCharter}, &file); err != nil {
		return nil, fmt.Errorf("amend charter: %w", err)
	}
	return extend(file, doc, keys)
}

// extend signs doc with keys and verifies the whole.
func extend(file charterFile, doc charterDoc, keys []ed25519.PrivateKey) (*Charter, error) {
	b, err := wire.Marshal(wireVersion, doc)
	if err != nil {
		return nil, fmt.Errorf("charter: %w", err)
	}
	next := signedDoc{Doc: b}
	for _, key := range keys {
		if len(key) != ed25519.PrivateKeySize {
			return nil, fmt.Errorf("charter: root key of %d bytes, want %d", len(key), ed25519.PrivateKeySize)
		}
		next.Sigs = append(next.Sigs, rootSig{
			Key: [32]byte(key.Public().(ed25519.PublicKey)), Sig: sign(key, charterSeal, b),
		})
	}
	slices.SortFunc(next.Sigs, func(x, y rootSig) int { return bytes.Compare(x.Key[:], y.Key[:]) })
	next.Sigs = slices.Compact(next.Sigs)
	file.Versions = append(file.Versions, next)
	raw, err := wire.Marshal(wireVersion, file)
	if err != nil {
		return nil, fmt.Errorf("charter: %w", err)
	}
	return ParseCharter(raw)
}

// ParseCharter reads what Encode returns and verifies every version from the first. Whether it is
// the charter of the right mesh the caller must compare: MeshID, or Accepts.
func ParseCharter(b []byte) (*Charter, error) {
	var file charterFile
	if err := wire.Unmarshal(b, wireVersion, wire.Limits{Bytes: MaxCharter}, &file); err != nil {
		return nil, fmt.Errorf("charter: %w", err)
	}
	if len(file.Versions) == 0 {
		return nil, errors.New("charter: no version in it")
	}
	c := &Charter{raw: bytes.Clone(b)}
	var before charterDoc
	for i, v := range file.Versions {
		var doc charterDoc
		err := wire.Unmarshal(v.Doc, wireVersion, wire.Limits{Bytes: MaxCharter}, &doc)
		if err == nil {
			err = doc.check()
		}
		if err == nil {
			err = doc.follows(before, c, i)
		}
		if err == nil {
			err = v.signedFor(doc, before, i == 0)
		}
		if err != nil {
			return nil, fmt.Errorf("charter: version %d: %w", i+1, err)
		}
		if i == 0 {
			c.mesh = sha256.Sum256(v.Doc)
		}
		c.docs = append(c.docs, v.Doc)
		c.nth, c.terms, before = doc.Version, doc.terms(), doc
	}
	return c, nil
}

// follows reports whether doc is the i-th document after those of c, the last of which is before.
func (d charterDoc) follows(before charterDoc, c *Charter, i int) error {
	var link [32]byte
	if i > 0 {
		link = sha256.Sum256(c.docs[i-1])
	}
	switch {
	case d.Version != before.Version+1:
		return fmt.Errorf("says version %d", d.Version)
	case d.Mesh != c.mesh:
		return errors.New("is of another mesh")
	case d.Before != link:
		return errors.New("does not follow from the version before")
	}
	return nil
}

// signedFor verifies the signatures against the roots of doc and, unless it is the first, of before.
func (v signedDoc) signedFor(doc, before charterDoc, first bool) error {
	var byOld, byNew int
	for i, s := range v.Sigs {
		if i > 0 && bytes.Compare(v.Sigs[i-1].Key[:], s.Key[:]) >= 0 {
			return errors.New("signatures do not ascend by key: no key counts twice")
		}
		isOld, isNew := slices.Contains(before.Roots, s.Key), slices.Contains(doc.Roots, s.Key)
		if !isOld && !isNew {
			return fmt.Errorf("signed by %x, which is no root key", s.Key[:4])
		}
		if !verify(s.Key[:], charterSeal, v.Doc, s.Sig) {
			return fmt.Errorf("signature of root key %x is wrong", s.Key[:4])
		}
		if isOld {
			byOld++
		}
		if isNew {
			byNew++
		}
	}
	if byNew < int(doc.Threshold) {
		return fmt.Errorf("signed by %d of its own root keys, needs %d", byNew, doc.Threshold)
	}
	if !first && byOld < int(before.Threshold) {
		return fmt.Errorf("signed by %d root keys of the version before, needs %d", byOld, before.Threshold)
	}
	return nil
}

// Accepts returns nil when next is a later version of this charter: its history holds this one, and
// it is signed all the way from there. A node replaces its charter only by one it accepts.
func (c *Charter) Accepts(next *Charter) error {
	switch {
	case next.mesh != c.mesh:
		return fmt.Errorf("%w: it is of mesh %s, this is mesh %s", ErrNotAccepted, next.MeshName(), c.MeshName())
	case next.nth <= c.nth:
		return fmt.Errorf("%w: it is version %d, version %d is in force", ErrNotAccepted, next.nth, c.nth)
	case !bytes.Equal(next.docs[len(c.docs)-1], c.docs[len(c.docs)-1]):
		return fmt.Errorf("%w: its version %d is not the one in force; the root keys signed two", ErrNotAccepted, c.nth)
	}
	return nil
}

// Encode returns the bytes that ParseCharter takes: a copy.
func (c *Charter) Encode() []byte { return bytes.Clone(c.raw) }

// MeshID is the hash of the first version: it names the mesh for ever.
func (c *Charter) MeshID() [32]byte { return c.mesh }

// MeshName is the first 16 hexadecimal digits of the mesh id, for people.
func (c *Charter) MeshName() string { return hex.EncodeToString(c.mesh[:8]) }

// Version counts from 1.
func (c *Charter) Version() uint64 { return c.nth }

// Terms returns the terms in force: a copy.
func (c *Charter) Terms() Terms {
	t := c.terms
	t.Roots, t.Sponsors = cloneKeys(t.Roots), cloneKeys(t.Sponsors)
	t.ScoreKeys, t.Revokers = cloneKeys(t.ScoreKeys), cloneKeys(t.Revokers)
	t.Publishers = slices.Clone(t.Publishers)
	for i := range t.Publishers {
		t.Publishers[i].Key = bytes.Clone(t.Publishers[i].Key)
	}
	return t
}

// IsSponsor reports whether n may admit others.
func (c *Charter) IsSponsor(n id.Node) bool { return holds(c.terms.Sponsors, n) }

// IsScoreKey reports whether n may set the score.
func (c *Charter) IsScoreKey(n id.Node) bool { return holds(c.terms.ScoreKeys, n) }

// IsRevoker reports whether n may revoke others.
func (c *Charter) IsRevoker(n id.Node) bool { return holds(c.terms.Revokers, n) }

// MayPublish reports whether the charter lets n publish name. The score is for score keys alone,
// whatever prefixes say. What the score's access allows besides is not known here.
func (c *Charter) MayPublish(n id.Node, name string) bool {
	if name == scoreName {
		return c.IsScoreKey(n)
	}
	for _, p := range c.terms.Publishers {
		under := p.Prefix == "" || name == p.Prefix || strings.HasPrefix(name, strings.TrimSuffix(p.Prefix, "/")+"/")
		if under && id.FromKey(p.Key) == n {
			return true
		}
	}
	return false
}

func holds(keys []ed25519.PublicKey, n id.Node) bool {
	return slices.ContainsFunc(keys, func(k ed25519.PublicKey) bool { return id.FromKey(k) == n })
}

func cloneKeys(keys []ed25519.PublicKey) []ed25519.PublicKey {
	out := make([]ed25519.PublicKey, len(keys))
	for i, k := range keys {
		out[i] = bytes.Clone(k)
	}
	return out
}
