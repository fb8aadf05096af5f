package swarm

import (
	"bytes"
	"fmt"

	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// The stream: frames of wire, either side may send any kind at any time. Every want and every have
// question is answered exactly once, in any order. A data frame is followed by as many raw bytes as
// its header says. A change of these shapes is a new version byte and a new protocol name.
const (
	kindWant   = 1 // want: send me these chunks of that artifact
	kindData   = 2 // data, then raw bytes: an answer to want
	kindRefuse = 3 // refuse: the other answer to want and haveAsk
	kindCancel = 4 // cancel: I no longer need that; it is still answered
	kindAsk    = 5 // haveAsk: which chunks of that artifact have you?
	kindHave   = 6 // have: the answer

	version = 1
)

// Limits of one frame and one request. A peer that breaks one is cut off.
const (
	maxFrame  = 256<<10 + 64 // bytes of a frame's body; a have of 2 million chunks is the longest
	maxWant   = 512          // chunks of one request
	maxExtent = 1 << 20      // bytes of the chunks of one request
	maxHave   = 8 * (256 << 10)
	maxText   = 200
)

// want asks for chunks of one artifact: its root block, the parts of its manifest, its content.
type want struct {
	Req  uint32
	Root artifact.Digest
	IDs  []byte // digests, one after the other
}

// data answers a want. The raw bytes that follow are the chunks in the order of the want, without
// those that are absent.
type data struct {
	Req    uint32
	Bytes  uint32
	Absent []byte // one bit a chunk that this holder has not got; empty if it has all
}

// refusal says why a request is not answered.
type refusal uint8

const (
	refusedAbsent  refusal = iota + 1 // no such artifact here, or a chunk that is no part of it
	refusedAccess                     // this peer may not have it
	refusedBusy                       // too many requests
	refusedGone                       // the request was cancelled
	refusedTrouble                    // the holder could not read its own store
)

func (r refusal) String() string {
	switch r {
	case refusedAbsent:
		return "it has not got the artifact"
	case refusedAccess:
		return "it does not let this node have the artifact"
	case refusedBusy:
		return "it has too many requests"
	case refusedGone:
		return "the request was cancelled"
	case refusedTrouble:
		return "it could not read its own store"
	}
	return fmt.Sprintf("refusal %d, unknown to this version", uint8(r))
}

type refuse struct {
	Req uint32
	Why uint8
}

type cancel struct{ Req uint32 }

type haveAsk struct {
	Req  uint32
	Root artifact.Digest
}

// have says what a holder has: all, or one bit for each distinct chunk in the order of the manifest.
type have struct {
	Req  uint32
	All  bool
	Bits []byte
}

// frame returns one whole frame.
func frame(kind byte, v any) ([]byte, error) {
	body, err := wire.Marshal(version, v)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := wire.WriteFrame(&b, kind, body); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func decode(body []byte, v any) error {
	return wire.Unmarshal(body, version, wire.Limits{Bytes: maxFrame, Depth: 2, Items: 16, Total: 16}, v)
}

// digests splits the ids of a want.
func (w *want) digests() ([]artifact.Digest, error) {
	const size = len(artifact.Digest{})
	n := len(w.IDs) / size
	if n == 0 || n*size != len(w.IDs) {
		return nil, fmt.Errorf("want of %d bytes of ids: not a whole number of digests", len(w.IDs))
	}
	if n > maxWant {
		return nil, &wire.LimitError{What: "chunks of one want", Limit: maxWant, Got: n}
	}
	out := make([]artifact.Digest, n)
	for i := range out {
		copy(out[i][:], w.IDs[i*size:])
	}
	return out, nil
}
