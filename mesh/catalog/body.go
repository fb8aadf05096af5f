package catalog

import (
	"fmt"

	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// bodyVersion is the version byte of every body but a status'.
const bodyVersion = 1

// bodyLimits bounds a body before it is decoded; the record around it has its own limit in bytes.
var bodyLimits = wire.Limits{Bytes: MaxCertBytes, Items: 64, Total: 512}

// CertBody is the body of a cert record: leaf, then the sponsor's intermediate, in DER.
type CertBody struct{ Chain [][]byte }

// StatusBody is what a node says of itself. None of it is attested: rights never come from it.
type StatusBody struct {
	Addrs             []string // HOST:PORT where it may be reached
	Name              string
	Tags              map[string]string // declared
	Roles             []string          // that it plays
	Score             string            // version of the score in force
	Version, Platform string            // of its meshd

	Kept, Repaired, Failed, Waiting, Drifted int // promises by outcome

	Facts map[string]string

	State uint8 // StatusRunning, StatusLeft or StatusCloned; another counts as running
}

// The states of a node, as it says itself.
const (
	StatusRunning = 0
	StatusLeft    = 1 // it was stopped in order
	StatusCloned  = 2 // another machine writes with its key: it publishes nothing
)

// statusVersion is the version byte of a status' body.
const statusVersion = 2

// ArtifactBody offers one version of the record's name. Keep is 1 to MaxKeep: how many versions of the
// name stay live in this log. Semver is the version that people gave, "" for none.
type ArtifactBody struct {
	Counter    uint64 // one more than the highest heard for the name; begins at 1
	Root, Tree artifact.Digest
	SizeBytes  int64
	Keep       int
	Semver     string
}

// WithdrawBody is empty: the record's name says all.
type WithdrawBody struct{}

// PlacedBody says how a want of this node stands. Version and Tree are zero while there is none yet.
type PlacedBody struct {
	Version artifact.Version
	Tree    artifact.Digest
	Promise string // address of the promise that wants it
	Outcome uint8
}

// CheckpointBody says that no record of its log below seq Floor counts any more: what was live there was
// written again above it. So withdrawals need not be kept for ever.
type CheckpointBody struct{ Floor uint64 }

// EncodeCheckpoint returns the body of a checkpoint record.
func EncodeCheckpoint(b CheckpointBody) ([]byte, error) { return wire.Marshal(bodyVersion, &b) }

// DecodeCheckpoint reads what EncodeCheckpoint writes.
func DecodeCheckpoint(b []byte) (CheckpointBody, error) { return decodeBody[CheckpointBody](b) }

// LeaseBody is what an attach point says of a leaf. Nothing of it counts unless the leaf signed the lease.
type LeaseBody struct {
	Lease []byte // as trust.SignLease returns it
	State uint8
}

// The states of a leaf at its attach point.
const (
	LeaseHere   = 1 // its session is open
	LeaseAway   = 2 // it was there; it counts as live for as long as the lease lasts
	LeaseOver   = 3 // it said goodbye
	LeaseInRing = 4 // it is no leaf any more
)

// EncodeLease returns the body of a lease record.
func EncodeLease(b LeaseBody) ([]byte, error) { return wire.Marshal(bodyVersion, &b) }

// DecodeLease reads what EncodeLease writes. The lease in it is not verified.
func DecodeLease(b []byte) (LeaseBody, error) { return decodeBody[LeaseBody](b) }

// EncodeCert returns the body of a cert record.
func EncodeCert(b CertBody) ([]byte, error) { return wire.Marshal(bodyVersion, &b) }

// EncodeStatus returns the body of a status record. Append refuses one beyond MaxRecordBytes.
func EncodeStatus(b StatusBody) ([]byte, error) { return wire.Marshal(statusVersion, &b) }

// EncodeArtifact returns the body of an artifact record.
func EncodeArtifact(b ArtifactBody) ([]byte, error) { return wire.Marshal(bodyVersion, &b) }

// EncodeWithdraw returns the body of a withdraw record.
func EncodeWithdraw(b WithdrawBody) ([]byte, error) { return wire.Marshal(bodyVersion, &b) }

// EncodePlaced returns the body of a placed record.
func EncodePlaced(b PlacedBody) ([]byte, error) { return wire.Marshal(bodyVersion, &b) }

// DecodeCert reads what EncodeCert writes. The chain is not verified: see Catalog.Cert.
func DecodeCert(b []byte) (CertBody, error) { return decodeBody[CertBody](b) }

// DecodeStatus reads what EncodeStatus writes.
func DecodeStatus(b []byte) (StatusBody, error) { return decodeBodyOf[StatusBody](b, statusVersion) }

// DecodeWithdraw reads what EncodeWithdraw writes.
func DecodeWithdraw(b []byte) (WithdrawBody, error) { return decodeBody[WithdrawBody](b) }

// DecodePlaced reads what EncodePlaced writes.
func DecodePlaced(b []byte) (PlacedBody, error) { return decodeBody[PlacedBody](b) }

// DecodeArtifact reads what EncodeArtifact writes and checks its numbers.
func DecodeArtifact(b []byte) (ArtifactBody, error) {
	a, err := decodeBody[ArtifactBody](b)
	if err != nil {
		return a, err
	}
	switch {
	case a.Keep < 1 || a.Keep > MaxKeep:
		err = fmt.Errorf("artifact body: %w", &wire.LimitError{What: "versions to keep (at least 1)", Limit: MaxKeep, Got: a.Keep})
	case a.Counter == 0:
		err = fmt.Errorf("artifact body: %w: counter 0, it begins at 1", ErrMalformed)
	case a.SizeBytes < 0:
		err = fmt.Errorf("artifact body: %w: size of %d bytes", ErrMalformed, a.SizeBytes)
	case a.Root[0] != artifact.SHA256 || a.Tree[0] != artifact.SHA256:
		err = fmt.Errorf("artifact body: %w: a digest is not SHA-256", ErrMalformed)
	}
	if err != nil {
		return ArtifactBody{}, err
	}
	return a, nil
}

func decodeBody[T any](b []byte) (T, error) { return decodeBodyOf[T](b, bodyVersion) }

func decodeBodyOf[T any](b []byte, version byte) (T, error) {
	var v T
	if err := wire.Unmarshal(b, version, bodyLimits, &v); err != nil {
		return v, fmt.Errorf("record body: %w", err)
	}
	return v, nil
}

// Ref returns what an artifact record offers. It is an error for any other kind.
func (r *Record) Ref() (artifact.Ref, ArtifactBody, error) {
	if r.Kind != KindArtifact {
		return artifact.Ref{}, ArtifactBody{}, fmt.Errorf("record %d of %s is of kind %d, not an artifact", r.Seq, r.Log.Origin.Short(), r.Kind)
	}
	a, err := DecodeArtifact(r.Body)
	if err != nil {
		return artifact.Ref{}, ArtifactBody{}, err
	}
	return artifact.Ref{
		Name: r.Name, Version: artifact.Version{Counter: a.Counter, Epoch: r.Log.Epoch, By: r.Log.Origin},
		Root: a.Root, Tree: a.Tree, SizeBytes: a.SizeBytes,
	}, a, nil
}
