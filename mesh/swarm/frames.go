package swarm

import (
	"bytes"
	"fmt"

	"meshd/mesh/id"
	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// The stream: frames of wire, either side may send any kind at any time. Every want and every share is
// answered exactly once, in any order; a share may wait for its answer as long as the stream lives. The bytes that
// a data frame tells of, plain or one zstd frame, come in parts: between two of them the sender may send frames of any
// other kind, so that no question waits behind an answer. A change of these shapes is a new version byte and a new
// protocol name.
const (
	kindWant   = 1 // want: send me these chunks of that artifact
	kindData   = 2 // data: an answer to want and share, whose bytes follow in parts
	kindRefuse = 3 // refuse: the other answer to them
	kindCancel = 4 // cancel: I no longer need that; it is still answered
	kindTell   = 5 // tell: what I have of that artifact
	kindMore   = 6 // more: what I have got of it since
	kindShare  = 7 // share: send me what you choose of that artifact, of what I lack
	kindBye    = 8 // bye: I have nothing of that artifact, or nothing for you, or no longer want it
	kindPart   = 9 // part, then so many bytes: the next ones of the answer that was begun last

	version = 4
)

// Limits of one frame and one request. A peer that breaks one is cut off.
const (
	maxFrame  = 256<<10 + 1024 // bytes of a frame's body; a tell of 2 million chunks is the longest
	maxWant   = 512            // chunks of one request
	maxExtent = 1 << 20        // bytes of the chunks of one request
	maxHave   = 8 * (256 << 10)
	maxParts  = 64 // holders among which a node divides its shares
	maxOthers = 32 // nodes named in a tell
)

// want asks for chunks of one artifact: its root block, the parts of its manifest, its content.
type want struct {
	Req   uint32
	Root  artifact.Digest
	IDs   []byte // digests, one after the other
	Force bool   // what was given to others is to be sent too: they cannot be reached from here
	Rate  uint32 // bytes a second that the link carries of this holder's answers; 0: not known
}

// share asks a holder that has all to choose an extent that the asker lacks, among those that nobody else
// fetches: of those whose number is Part modulo Parts, as the asker divides them among several holders.
type share struct {
	Req   uint32
	Root  artifact.Digest
	Part  uint8
	Parts uint8
	Rate  uint32 // as in want
}

// data answers a want or a share. Another answer begins when all its bytes have come. The bytes are the chunks in the
// order of the want, or of Runs, without those that are absent. If Plain is not 0 they are one zstd frame of so many bytes; a root block is
// never packed, because who asks for it does not know its size.
type data struct {
	Req    uint32
	Bytes  uint32 // that follow, in all parts
	Plain  uint32 // of the chunks; 0: as many as follow
	Absent []byte // one bit a chunk that this holder has not got; empty if it has all
	Runs   []byte // the chunks chosen for a share, as runs; empty for a want
}

// size is how many bytes the chunks are.
func (d *data) size() uint32 {
	if d.Plain > 0 {
		return d.Plain
	}
	return d.Bytes
}

// part goes before bytes of an answer.
type part struct{ Bytes uint32 }

// refusal says why a request is not answered.
type refusal uint8

const (
	refusedAbsent    refusal = iota + 1 // no such artifact here, or a chunk that is no part of it
	refusedAccess                       // this peer may not have it
	refusedBusy                         // too many requests
	refusedGone                         // the request was cancelled
	refusedTrouble                      // the holder could not read its own store
	refusedElsewhere                    // the chunk was given to another wanter, who has it or is getting it
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
	case refusedElsewhere:
		return "it gave that to another node"
	}
	return fmt.Sprintf("refusal %d, unknown to this version", uint8(r))
}

type refuse struct {
	Req uint32
	Why uint8
	At  id.Node // who has it, or is getting it; zero if not known
}

type cancel struct{ Req uint32 }

// tell says what a node has: all, or one bit for each distinct chunk in the order of the manifest.
type tell struct {
	Root   artifact.Digest
	All    bool
	Bits   []byte
	Answer bool   // tell me in turn, and what you get from now on
	Shy    bool   // I have other wanters: ask me for a share
	Others []byte // ids of some that fetch it, 16 bytes each
}

// more lists chunks that a node has got since it told what it has.
type more struct {
	Root artifact.Digest
	Runs []byte
}

// bye takes back all that was told.
type bye struct {
	Root artifact.Digest
	Why  uint8 // a refusal
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

// nodes splits ids that follow one another.
func nodes(b []byte) ([]id.Node, error) {
	n := len(b) / len(id.Node{})
	if n*len(id.Node{}) != len(b) {
		return nil, fmt.Errorf("%d bytes of node ids: not a whole number", len(b))
	}
	if n > maxOthers {
		return nil, &wire.LimitError{What: "nodes of one tell", Limit: maxOthers, Got: n}
	}
	out := make([]id.Node, n)
	for i := range out {
		copy(out[i][:], b[i*len(id.Node{}):])
	}
	return out, nil
}

// bits returns which of n chunks a peer told to have; nil for all.
func (t *tell) bits(n int) (bitset, error) {
	if t.All {
		return nil, nil
	}
	if len(t.Bits) == 0 {
		return newBitset(n), nil
	}
	has := parseBits(t.Bits, n)
	if has == nil {
		return nil, fmt.Errorf("%d bytes of marks for %d chunks", len(t.Bits), n)
	}
	return has, nil
}
