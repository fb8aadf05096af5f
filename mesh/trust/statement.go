package trust

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"meshd/mesh/id"
	"meshd/mesh/wire"
)

// Kinds of statements.
const (
	Admission  uint8 = 1 // By, a sponsor, admitted Subject
	Revocation uint8 = 2 // By says that Subject is no longer of the mesh
)

// Limits of a statement: it is the body of a catalog record, which has 1,024 bytes in all.
const (
	MaxStatement  = 800 // bytes as encoded
	maxHeads      = 16
	maxScope      = 16
	maxReason     = 100
	statementSeal = "meshd statement 1\x00"
)

// A Statement is what one node says of another's key, signed, for all who hear of it.
type Statement struct {
	Kind    uint8
	Subject ed25519.PublicKey // of whom: by key, so that no other certificate of it evades
	Name    string            // admission: the name bound, if any; revocation: shown
	Serial  [16]byte          // admission: of the certificate
	Invite  [16]byte          // admission: the invite redeemed; zero if none
	Heads   []LogHead         // revocation: the last valid record of each log; other logs are void
	Reason  string            // for people, at most 100 bytes
	At      time.Time         // by the signer's clock; milliseconds count
	By      id.Node
	Sig     [64]byte // filled in by ParseStatement
}

// A LogHead names the last record of one log that still counts.
type LogHead struct {
	Epoch uint64
	Scope string
	Seq   uint64
}

// signedStatement is the encoding: the document as it was signed, with statementSeal before it.
type signedStatement struct {
	Doc []byte
	Sig [64]byte
}

type statementDoc struct {
	Kind    uint8
	Subject [32]byte
	Name    string
	Serial  [16]byte
	Invite  [16]byte
	Heads   []LogHead
	Reason  string
	AtMs    int64
	By      [16]byte
}

// SignStatement signs s in the name of by, whatever s.By and s.Sig hold, and returns the bytes that
// ParseStatement takes. A longer Reason is cut, Heads are sorted.
func SignStatement(s Statement, by *Identity) ([]byte, error) {
	if len(s.Subject) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("statement: subject key of %d bytes, want %d", len(s.Subject), ed25519.PublicKeySize)
	}
	heads := slices.SortedFunc(slices.Values(s.Heads), LogHead.compare)
	doc := statementDoc{
		s.Kind, [32]byte(s.Subject), s.Name, s.Serial, s.Invite, heads, shorten(s.Reason, maxReason),
		s.At.UnixMilli(), by.ID(),
	}
	if err := doc.check(); err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	b, err := wire.Marshal(wireVersion, doc)
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	out, err := wire.Marshal(wireVersion, signedStatement{b, sign(by.Key, statementSeal, b)})
	if err == nil && len(out) > MaxStatement {
		err = &wire.LimitError{What: "bytes of the statement", Limit: MaxStatement, Got: len(out)}
	}
	if err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	return out, nil
}

// ParseStatement reads a statement and verifies its signature with the key that key knows of its
// signer; nil means unknown. Whether the signer may say so is the charter's to tell: Allows.
func ParseStatement(b []byte, key func(id.Node) ed25519.PublicKey) (Statement, error) {
	var signed signedStatement
	var doc statementDoc
	if err := wire.Unmarshal(b, wireVersion, wire.Limits{Bytes: MaxStatement}, &signed); err != nil {
		return Statement{}, fmt.Errorf("statement: %w", err)
	}
	if err := wire.Unmarshal(signed.Doc, wireVersion, wire.Limits{Bytes: MaxStatement}, &doc); err != nil {
		return Statement{}, fmt.Errorf("statement: %w", err)
	}
	if err := doc.check(); err != nil {
		return Statement{}, fmt.Errorf("statement: %w", err)
	}
	by := id.Node(doc.By)
	pub := key(by)
	if pub == nil {
		return Statement{}, fmt.Errorf("statement: key of its signer %s is not known", by.Short())
	}
	if id.FromKey(pub) != by || !verify(pub, statementSeal, signed.Doc, signed.Sig) {
		return Statement{}, fmt.Errorf("statement: signature of %s is wrong", by.Short())
	}
	return Statement{
		Kind: doc.Kind, Subject: bytes.Clone(doc.Subject[:]), Name: doc.Name, Serial: doc.Serial,
		Invite: doc.Invite, Heads: doc.Heads, Reason: doc.Reason, At: time.UnixMilli(doc.AtMs).UTC(),
		By: by, Sig: signed.Sig,
	}, nil
}

// Allows returns nil when the charter gives the signer the right to what it says: admissions are for
// sponsors, revocations for revokers and for the key itself.
func (c *Charter) Allows(s Statement) error {
	switch {
	case s.Kind == Admission && c.IsSponsor(s.By):
		return nil
	case s.Kind == Revocation && (c.IsRevoker(s.By) || id.FromKey(s.Subject) == s.By):
		return nil
	case s.Kind == Admission:
		return fmt.Errorf("admission by %s, which is no sponsor in the charter", s.By.Short())
	}
	return fmt.Errorf("revocation by %s, which has no revoke key in the charter", s.By.Short())
}

// check reports whether a statement is well formed, whoever signed it.
func (d statementDoc) check() error {
	if d.Kind != Admission && d.Kind != Revocation {
		return fmt.Errorf("kind %d is unknown", d.Kind)
	}
	if d.Name != "" {
		if err := CheckName(d.Name); err != nil {
			return err
		}
	}
	if d.Kind == Admission && len(d.Heads) > 0 {
		return errors.New("an admission names heads of logs")
	}
	if len(d.Heads) > maxHeads {
		return fmt.Errorf("%d heads of logs, limit %d", len(d.Heads), maxHeads)
	}
	for i, h := range d.Heads {
		if h.Scope == "" || len(h.Scope) > maxScope {
			return fmt.Errorf("scope of %d bytes, want 1 to %d", len(h.Scope), maxScope)
		}
		if i > 0 && d.Heads[i-1].compare(h) >= 0 {
			return errors.New("heads do not ascend by epoch and scope")
		}
	}
	if len(d.Reason) > maxReason {
		return fmt.Errorf("reason of %d bytes, limit %d", len(d.Reason), maxReason)
	}
	return nil
}

// compare orders heads by log.
func (h LogHead) compare(o LogHead) int {
	return cmp.Or(cmp.Compare(h.Epoch, o.Epoch), strings.Compare(h.Scope, o.Scope))
}

// shorten cuts text for people to at most n bytes of valid UTF-8.
func shorten(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
