package catalog

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"meshd/mesh/wire"
)

// Two catalogs are compared in three steps: roots; if unlike, one short hash for each bucket of logs; of
// the unlike buckets, one short line (head) for each log. Then both know what the other lacks.
//
// The short hashes are for finding differences only. What is stored is verified by itself, and two logs
// whose short hashes met by chance (one in 2^48) part again with the next record of either.
const (
	hashBytes     = 6
	logsPerBucket = 4  // few, because a line costs three times a bucket's hash
	maxBucketBits = 15 // 196 KiB of hashes
	maxLines      = 1 << 18
	linesPerFrame = 1 << 13
)

// head is what one side knows of one log. Last is the seq up to which it has the log; 0 asks for all of
// it, because something older may be missing.
type head struct {
	tag  [8]byte
	last uint64
	hash [hashBytes]byte // of the log and its live set
}

// want asks for a log's live records beyond from.
type want struct {
	tag  [8]byte
	from uint64
}

// bucketBits says over how many buckets, a power of two, n logs are spread.
func bucketBits(n int) int {
	bits := 0
	for bits < maxBucketBits && n > logsPerBucket<<bits {
		bits++
	}
	return bits
}

// bucket is where all logs of an origin are. Ids are hashes, so they spread evenly.
func (l LogID) bucket(bits int) int {
	return int(binary.BigEndian.Uint64(l.Origin[:8]) >> (64 - bits))
}

// buckets returns the hash of each of the 2^bits buckets, one after another.
func (s *set) buckets(bits int) []byte {
	out := make([]byte, hashBytes<<bits)
	for i := 0; i < len(s.order); {
		b, from := s.order[i].id.bucket(bits), i
		for i < len(s.order) && s.order[i].id.bucket(bits) == b {
			i++
		}
		h := sha256.Sum256(s.leaves(s.order[from:i]))
		copy(out[b*hashBytes:], h[:hashBytes])
	}
	return out
}

// unlike returns, one bit each, which buckets differ from theirs. An empty bucket is all zero.
func (s *set) unlike(bits int, theirs []byte) []byte {
	out := make([]byte, (1<<bits+7)/8)
	mine := s.buckets(bits)
	for b := range 1 << bits {
		if string(mine[b*hashBytes:(b+1)*hashBytes]) != string(theirs[b*hashBytes:(b+1)*hashBytes]) {
			out[b/8] |= 1 << (b % 8)
		}
	}
	return out
}

func bitSet(bitmap []byte, i int) bool { return bitmap[i/8]>>(i%8)&1 == 1 }

// heads returns the lines of the logs in the buckets that are set in bitmap.
func (s *set) heads(bits int, bitmap []byte) []head {
	var out []head
	for _, h := range s.order {
		if bitSet(bitmap, h.id.bucket(bits)) {
			out = append(out, head{h.tag, s.announce(h), [hashBytes]byte(h.leaf[:hashBytes])})
		}
	}
	return out
}

// announce is the seq up to which this node says to have a log.
func (s *set) announce(h *history) uint64 {
	if h.forked != nil || h.gap || s.caps[h.id.Origin] != nil {
		return 0
	}
	return h.last()
}

// order of one log to be sent.
type task struct {
	log  LogID
	from uint64
}

// diff works out, from a peer's lines about some buckets, what to ask the peer for and what to send it.
func (s *set) diff(bits int, bitmap []byte, theirs []head) (ask []want, send []task) {
	lines := make(map[[8]byte]head, len(theirs))
	for _, t := range theirs {
		lines[t.tag] = t
	}
	for _, h := range s.order {
		if !bitSet(bitmap, h.id.bucket(bits)) {
			continue
		}
		their, ok := lines[h.tag]
		delete(lines, h.tag)
		mine := s.announce(h)
		switch {
		case !ok:
			send = append(send, task{h.id, 0})
		case their.hash == [hashBytes]byte(h.leaf[:hashBytes]):
		case their.last == 0 || mine == 0 || their.last == mine: // not one ahead of the other: all, both ways
			send = append(send, task{h.id, 0})
			ask = append(ask, want{h.tag, 0})
		case their.last < mine:
			send = append(send, task{h.id, their.last})
		default:
			ask = append(ask, want{h.tag, mine})
		}
	}
	for _, t := range theirs { // in the peer's order: a map's would not repeat
		if _, ok := lines[t.tag]; ok {
			ask = append(ask, want{t.tag, 0})
		}
	}
	return ask, send
}

// find resolves the tags of wants; what is no longer here is left out.
func (s *set) find(wants []want) []task {
	from := make(map[[8]byte]uint64, len(wants))
	for _, w := range wants {
		from[w.tag] = w.from
	}
	var out []task
	for _, h := range s.order {
		if seq, ok := from[h.tag]; ok {
			out = append(out, task{h.id, seq})
		}
	}
	return out
}

func packHeads(heads []head) []byte {
	b := make([]byte, 0, 17*len(heads))
	for _, h := range heads {
		b = append(b, h.tag[:]...)
		b = binary.AppendUvarint(b, h.last)
		b = append(b, h.hash[:]...)
	}
	return b
}

func unpackHeads(b []byte) ([]head, error) {
	var out []head
	for len(b) > 0 {
		var h head
		var err error
		if b, err = unpackLine(b, h.tag[:], &h.last, h.hash[:]); err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, tooMany(len(out))
}

func packWants(wants []want) []byte {
	b := make([]byte, 0, 11*len(wants))
	for _, w := range wants {
		b = append(b, w.tag[:]...)
		b = binary.AppendUvarint(b, w.from)
	}
	return b
}

func unpackWants(b []byte) ([]want, error) {
	var out []want
	for len(b) > 0 {
		var w want
		var err error
		if b, err = unpackLine(b, w.tag[:], &w.from, nil); err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	return out, tooMany(len(out))
}

func tooMany(lines int) error {
	if lines > linesPerFrame {
		return &wire.LimitError{What: "lines in a frame", Limit: linesPerFrame, Got: lines}
	}
	return nil
}

// unpackLine reads a tag, a number in its shortest form and a hash from the front of b.
func unpackLine(b, tag []byte, n *uint64, hash []byte) ([]byte, error) {
	if len(b) < len(tag) {
		return nil, fmt.Errorf("%w: a line about a log is cut", ErrMalformed)
	}
	b = b[copy(tag, b):]
	v, size := binary.Uvarint(b)
	if size <= 0 || len(b) < size+len(hash) || size > 1 && b[size-1] == 0 {
		return nil, fmt.Errorf("%w: a line about a log is cut or its number too long", ErrMalformed)
	}
	*n = v
	return b[size+copy(hash, b[size:]):], nil
}
