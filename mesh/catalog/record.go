// Package catalog holds everything a node has heard: per-origin logs of signed records, how they merge,
// and the session that makes two catalogs equal.
//
// A catalog is a set of signed facts. Merging is union, then a rule that says which facts a newer fact of
// the same log makes needless (see retain): any order, any repetition, one result. A relay can hold
// records back, for a while, but neither change nor invent one; the Live digest that every record carries
// says whether a log is complete up to its newest record.
package catalog

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"

	"meshd/mesh/id"
	"meshd/mesh/trust"
	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// The scopes of a log. Nodes is synced first: it holds the keys that verify all else.
const (
	ScopeNodes = "nodes"
	ScopeMain  = "main"
)

// The kinds of record. Of an artifact name the newest Keep stay in a log; a withdrawal drops the log's
// artifacts of its name that came before it; of any other kind and name only the newest stays.
const (
	KindCert      = 1 // CertBody: the origin's certificate; its key verifies all other records of the origin
	KindStatus    = 2 // StatusBody: what the origin says of itself
	KindStatement = 3 // a trust.Statement as trust.SignStatement returns it, made by the origin
	KindArtifact  = 4 // ArtifactBody: the origin offers an artifact
	KindWithdraw  = 5 // WithdrawBody: the origin no longer offers any artifact of that name
	KindPlaced    = 6 // PlacedBody: what the origin wants, holds or plays
	// KindCheckpoint is written by the catalog itself: a CheckpointBody, below whose floor nothing of the log
	// counts. Of several in a log the one with the highest floor stays.
	KindCheckpoint = 7
	KindLease      = 8 // LeaseBody: the origin is the attach point of the leaf whose id is the record's name
)

// Limits of a record, counted in its encoding.
const (
	MaxRecordBytes = 1024
	MaxCertBytes   = 2048 // a certificate chain is the one thing that needs more
	MaxNameBytes   = 200
	MaxKeep        = 1000 // versions of one name that one log keeps live
)

// ErrMalformed is wrapped by every error about a record or a message that no honest peer sends.
var ErrMalformed = errors.New("malformed")

// LogID names one append-only log. An origin opens a new epoch when it can not be sure to know its old
// one to the end (a lost store, a restored backup, a fork); epochs of an origin ascend.
type LogID struct {
	Origin id.Node
	Epoch  uint64
	Scope  string
}

// Record is one signed fact. Its values are never changed once made: Body may be shared by many.
//
// Live is the digest of the log's live set after this record. At is shown to people, in milliseconds,
// and never used for order: that is (Epoch, Seq). Seq begins at 1.
type Record struct {
	Log  LogID
	Seq  uint64
	Live artifact.Digest
	Kind uint8
	Name string
	Body []byte
	At   time.Time
	Sig  [64]byte
}

// recordVersion is the version byte of a record on disk and on the wire.
const recordVersion = 1

// signedPrefix keeps a signature of a record from being one of anything else.
const signedPrefix = "meshd record\n"

// core is what a record says; Live and Sig are about it.
type core struct {
	Origin id.Node
	Epoch  uint64
	Scope  uint8 // 1 nodes, 2 main
	Seq    uint64
	Kind   uint8
	Name   string
	Body   []byte
	At     int64
}

var coreLimits = wire.Limits{Bytes: MaxCertBytes, Items: 16, Total: 32}

// tailBytes is what follows the core in the encoding of a record: Live, then Sig, as they are.
const tailBytes = 33 + 64

var scopes = [...]string{1: ScopeNodes, 2: ScopeMain}

func scopeByte(scope string) uint8 {
	switch scope {
	case ScopeNodes:
		return 1
	case ScopeMain:
		return 2
	}
	return 0
}

// scopeOf returns the scope that a kind belongs to, "" for a kind that is unknown here.
func scopeOf(kind uint8) string {
	switch kind {
	case KindCert, KindStatus, KindStatement, KindLease:
		return ScopeNodes
	case KindArtifact, KindWithdraw, KindPlaced, KindCheckpoint:
		return ScopeMain
	}
	return ""
}

// entry is what the merge needs of a record: a hundred bytes, whatever the record has. The others are on
// the shelf, and in memory as long as there is room (see Config.CacheBytes).
type entry struct {
	log  *LogID // shared by all entries of the log, once it is in the set
	name string
	seq  uint64
	hash [32]byte // SHA-256 of the core: what Live sums up
	kind uint8
	keep uint16  // of an artifact: how many of its name stay
	rec  *Record // all of it; nil: it is on the shelf alone
	more *extra  // of few
}

// extra is what the merge needs of a few kinds.
type extra struct {
	cert   *trust.Cert      // of a certificate: what it says, verified
	revoke *trust.Statement // of a revocation by a revoker: what it says
	admits id.Node          // of an admission by a sponsor: whom
	floor  uint64           // of a checkpoint
}

func (e *entry) cert() *trust.Cert {
	if e.more == nil {
		return nil
	}
	return e.more.cert
}

func (e *entry) revoke() *trust.Statement {
	if e.more == nil {
		return nil
	}
	return e.more.revoke
}

func (e *entry) floor() uint64 {
	if e.more == nil {
		return 0
	}
	return e.more.floor
}

func (r *Record) core() ([]byte, error) {
	return wire.Marshal(recordVersion, &core{
		Origin: r.Log.Origin, Epoch: r.Log.Epoch, Scope: scopeByte(r.Log.Scope), Seq: r.Seq,
		Kind: r.Kind, Name: r.Name, Body: r.Body, At: r.At.UnixMilli(),
	})
}

func toSign(core []byte, live artifact.Digest) []byte {
	b := make([]byte, 0, len(signedPrefix)+len(live)+len(core))
	b = append(b, signedPrefix...)
	b = append(b, live[:]...)
	return append(b, core...)
}

// Encode returns the canonical bytes of the record, on disk and on the wire: the wire-encoded core, whose
// SHA-256 Live sums up, then Live and Sig.
func (r *Record) Encode() ([]byte, error) {
	c, err := r.core()
	if err != nil {
		return nil, err
	}
	return append(append(c, r.Live[:]...), r.Sig[:]...), nil
}

// DecodeRecord reads what Encode writes and checks form and limits; it knows no key, so the signature
// stays unverified: see Verify. The record keeps none of b.
func DecodeRecord(b []byte) (Record, error) {
	e, err := decodeEntry(b)
	if err != nil {
		return Record{}, err
	}
	return *e.rec, nil
}

// Verify reports whether key signed the record and is the key of its origin.
func (r *Record) Verify(key ed25519.PublicKey) error {
	c, err := r.core()
	if err != nil {
		return err
	}
	return r.verify(c, key)
}

func (r *Record) verify(core []byte, key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize || id.FromKey(key) != r.Log.Origin {
		return fmt.Errorf("record %d of %s: the key is not its origin's", r.Seq, r.Log.Origin.Short())
	}
	if !ed25519.Verify(key, toSign(core, r.Live), r.Sig[:]) {
		return fmt.Errorf("record %d of %s: %w: its signature is not by its origin", r.Seq, r.Log.Origin.Short(), ErrMalformed)
	}
	return nil
}

func decodeEntry(b []byte) (*entry, error) {
	if len(b) <= tailBytes {
		return nil, fmt.Errorf("record: %w: %d bytes", ErrMalformed, len(b))
	}
	said, tail := b[:len(b)-tailBytes], b[len(b)-tailBytes:]
	var c core
	if err := wire.Unmarshal(said, recordVersion, coreLimits, &c); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if c.Scope == 0 || int(c.Scope) >= len(scopes) {
		return nil, fmt.Errorf("record %d of %s: %w: scope %d, want 1 or 2", c.Seq, c.Origin.Short(), ErrMalformed, c.Scope)
	}
	r := &Record{
		Log: LogID{c.Origin, c.Epoch, scopes[c.Scope]}, Seq: c.Seq, Live: artifact.Digest(tail[:33]), Kind: c.Kind,
		Name: c.Name, Body: c.Body, At: time.UnixMilli(c.At).UTC(), Sig: [64]byte(tail[33:]),
	}
	e := &entry{log: &r.Log, name: r.Name, seq: r.Seq, hash: sha256.Sum256(said), kind: r.Kind, rec: r}
	return e, e.check(len(b))
}

// check holds a record against the limits of its kind and reads what the merge needs of its body.
func (e *entry) check(sizeBytes int) error {
	most := MaxRecordBytes
	if e.kind == KindCert {
		most = MaxCertBytes
	}
	where := func(err error) error {
		return fmt.Errorf("record %d of %s, kind %d: %w", e.seq, e.log.Origin.Short(), e.kind, err)
	}
	switch want := scopeOf(e.kind); {
	case sizeBytes > most:
		return where(&wire.LimitError{What: "bytes of a record", Limit: most, Got: sizeBytes})
	case e.seq == 0 || e.log.Epoch == 0 || e.log.Origin.IsZero() || e.kind == 0:
		return where(fmt.Errorf("%w: origin, epoch, seq and kind are never 0", ErrMalformed))
	case want != "" && want != e.log.Scope:
		return where(fmt.Errorf("%w: it belongs to scope %q, not %q", ErrMalformed, want, e.log.Scope))
	case e.rec.At.UnixMilli() < 0 || e.rec.At.Year() > 9999:
		return where(fmt.Errorf("%w: its time is not between the years 1970 and 9999", ErrMalformed))
	case e.rec.Live[0] != artifact.SHA256:
		return where(fmt.Errorf("%w: live digest of algorithm %d, want %d", ErrMalformed, e.rec.Live[0], artifact.SHA256))
	}
	if err := checkName(e.kind, e.name); err != nil {
		return where(err)
	}
	switch e.kind {
	case KindArtifact:
		body, err := DecodeArtifact(e.rec.Body)
		if err != nil {
			return where(err)
		}
		e.keep = uint16(body.Keep)
	case KindCert, KindCheckpoint:
		if e.name != "" {
			return where(fmt.Errorf("%w: it is recorded under no name, not %q", ErrMalformed, e.name))
		}
	}
	if e.kind == KindCheckpoint {
		body, err := DecodeCheckpoint(e.rec.Body)
		switch {
		case err != nil:
			return where(err)
		case body.Floor == 0 || body.Floor > e.seq:
			return where(fmt.Errorf("%w: a floor of %d is not within the log", ErrMalformed, body.Floor))
		}
		e.more = &extra{floor: body.Floor}
	}
	return nil
}

func checkName(kind uint8, name string) error {
	if kind == KindArtifact || kind == KindWithdraw {
		return artifact.CheckName(name)
	}
	if len(name) > MaxNameBytes {
		return &wire.LimitError{What: "bytes of a record's name", Limit: MaxNameBytes, Got: len(name)}
	}
	if !utf8.ValidString(name) {
		return fmt.Errorf("%w: the name is not UTF-8", ErrMalformed)
	}
	for _, c := range name {
		if unicode.IsControl(c) {
			return fmt.Errorf("%w: the name %q has a control character", ErrMalformed, name)
		}
	}
	return nil
}

// compare orders the entries of one kind and name by origin, then age; checkpoints of a log by floor. Two
// of one log with one seq are a fork; their hashes order them, so that all who have both agree.
func (e *entry) compare(o *entry) int {
	if c := e.log.Origin.Compare(o.log.Origin); c != 0 {
		return c
	}
	if c := cmp.Compare(e.log.Epoch, o.log.Epoch); c != 0 {
		return c
	}
	if c := cmp.Compare(e.floor(), o.floor()); c != 0 {
		return c
	}
	return e.compareSeq(o)
}

// compareSeq orders the entries of one log by age.
func (e *entry) compareSeq(o *entry) int {
	if c := cmp.Compare(e.seq, o.seq); c != 0 {
		return c
	}
	return bytes.Compare(e.hash[:], o.hash[:])
}

// compare orders logs by origin, epoch and scope, the order of the root.
func (l LogID) compare(o LogID) int {
	if c := l.Origin.Compare(o.Origin); c != 0 {
		return c
	}
	if c := cmp.Compare(l.Epoch, o.Epoch); c != 0 {
		return c
	}
	return cmp.Compare(scopeByte(l.Scope), scopeByte(o.Scope))
}

// key is the log in 25 bytes that sort as compare does.
func (l LogID) key() []byte {
	b := binary.BigEndian.AppendUint64(l.Origin[:], l.Epoch)
	return append(b, scopeByte(l.Scope))
}

// readLogKey reads what key writes.
func readLogKey(b []byte) (LogID, bool) {
	if len(b) != 25 || b[24] == 0 || int(b[24]) >= len(scopes) {
		return LogID{}, false
	}
	return LogID{id.Node(b[:16]), binary.BigEndian.Uint64(b[16:]), scopes[b[24]]}, true
}

// String is for logs and errors.
func (l LogID) String() string { return fmt.Sprintf("%s/%x/%s", l.Origin.Short(), l.Epoch, l.Scope) }
