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
// The hashes are of three or four bytes, with a salt that is drawn for each comparison: where two meet by
// chance, the next comparison tells them apart. They find differences only; what is stored is verified by
// itself.
const (
	saltBytes     = 8
	hashBytes     = 3
	tagBytes      = 4
	logsPerBucket = 4  // few, because a line costs three times a bucket's hash
	maxBucketBits = 15 // 96 KiB of hashes
	maxLines      = 1 << 18
	linesPerFrame = 1 << 13
)

// A view is how one comparison sees a catalog. The zero value is none.
type view struct {
	salt [saltBytes]byte
	bits int
}

// head is one side's line about a log: how far it has it, or that of the log only the grave is left, or
// that it asks for all because something older may be missing.
type head struct {
	tag   [tagBytes]byte
	hash  [hashBytes]byte // of the log's member of the root
	claim uint64          // all that is live up to this seq is there
	all   bool
	grave bool
}

// A line is what this node listed: a log, or a grave.
type line struct {
	head
	h     *history
	stone grave
}

// want asks for what the peer listed as its line-th: the log's live records beyond from, or the grave.
type want struct {
	line int
	from uint64
}

// task is one thing to send: a log beyond from, or a grave.
type task struct {
	log   LogID
	from  uint64
	stone *grave
}

// bucketBits says over how many buckets, a power of two, n logs are spread.
func bucketBits(n int) int {
	bits := 0
	for bits < maxBucketBits && n > logsPerBucket<<bits {
		bits++
	}
	return bits
}

// bucket is one of 2^bits, into which tags fall evenly.
func bucket(tag [8]byte, bits int) int { return int(binary.BigEndian.Uint64(tag[:]) >> (64 - bits)) }

// buckets returns the hash of each of the 2^bits buckets, one after another; an empty one is all zero.
func (s *set) buckets(v view) []byte {
	sums := make([]sum, 1<<v.bits)
	for _, h := range s.order {
		sums[bucket(h.tag, v.bits)].plus(h.member)
	}
	for tag, g := range s.graves {
		sums[bucket(tag, v.bits)].plus(member(g))
	}
	out := make([]byte, 0, hashBytes<<v.bits)
	for _, b := range sums {
		if b == (sum{}) {
			out = append(out, make([]byte, hashBytes)...)
			continue
		}
		h := v.hash(b)
		out = append(out, h[:hashBytes]...)
	}
	return out
}

// hash is salted.
func (v view) hash(s sum) [32]byte {
	d := s.digest()
	return sha256.Sum256(append(v.salt[:], d[:]...))
}

func (v view) head(tag [8]byte, member sum) head {
	t := sha256.Sum256(append(v.salt[:], tag[:]...))
	h := v.hash(member)
	return head{tag: [tagBytes]byte(t[:]), hash: [hashBytes]byte(h[:])}
}

// unlike returns, one bit each, which buckets differ from theirs.
func (s *set) unlike(v view, theirs []byte) []byte {
	out := make([]byte, (1<<v.bits+7)/8)
	mine := s.buckets(v)
	for b := range 1 << v.bits {
		if string(mine[b*hashBytes:(b+1)*hashBytes]) != string(theirs[b*hashBytes:(b+1)*hashBytes]) {
			out[b/8] |= 1 << (b % 8)
		}
	}
	return out
}

func bitSet(bitmap []byte, i int) bool { return bitmap[i/8]>>(i%8)&1 == 1 }

// lines lists the logs and graves in the buckets that are set in bitmap.
func (s *set) lines(v view, bitmap []byte) []line {
	var out []line
	for _, h := range s.order {
		if bitSet(bitmap, bucket(h.tag, v.bits)) {
			l := line{head: v.head(h.tag, h.member), h: h}
			l.claim, l.all = s.announce(h)
			out = append(out, l)
		}
	}
	for tag, g := range s.graves {
		if bitSet(bitmap, bucket(tag, v.bits)) {
			l := line{head: v.head(tag, member(g)), stone: g}
			l.grave = true
			out = append(out, l)
		}
	}
	return out
}

// announce is the seq up to which this node says to have all of a log, or that it asks for all of it.
func (s *set) announce(h *history) (claim uint64, all bool) {
	switch {
	case h.forked || h.gap || s.caps[h.id.Origin] != nil:
		return 0, true
	case h.complete():
		return h.last(), false
	}
	return max(h.cursor, h.sealed), false
}

func (l line) task(from uint64) task {
	if l.h == nil {
		return task{stone: &l.stone}
	}
	return task{log: l.h.id, from: from}
}

// diff works out, from a peer's lines about some buckets and the own ones, what to ask the peer for and
// what to send it. The asks ascend by line.
func diff(mine []line, theirs []head) (ask []want, send []task) {
	own := make(map[[tagBytes]byte]line, len(mine))
	for _, l := range mine {
		own[l.tag] = l
	}
	listed := make(map[[tagBytes]byte]bool, len(theirs))
	for i, t := range theirs {
		listed[t.tag] = true
		l, ok := own[t.tag]
		switch {
		case !ok:
			ask = append(ask, want{i, 0})
		case l.hash == t.hash:
		case l.grave && t.grave: // both: that with the higher leaf stays
			ask, send = append(ask, want{i, 0}), append(send, l.task(0))
		case l.grave:
			ask = append(ask, want{i, 0})
		case t.grave:
			send = append(send, l.task(0))
		case l.all || t.all || l.claim == t.claim: // not one ahead of the other: all, both ways
			ask, send = append(ask, want{i, 0}), append(send, l.task(0))
		default:
			if t.claim > l.claim {
				ask = append(ask, want{i, l.claim})
			}
			if l.h.last() > t.claim {
				send = append(send, l.task(t.claim))
			}
		}
	}
	for _, l := range mine {
		if !listed[l.tag] {
			send = append(send, l.task(0))
		}
	}
	return ask, send
}

// What the number of a line holds besides the claim.
const (
	lineAll   = 1
	lineGrave = 2
	lineShift = 2
	maxClaim  = 1<<(64-lineShift) - 1
)

func packHeads(lines []line) []byte {
	b := make([]byte, 0, 10*len(lines))
	for _, l := range lines {
		n := min(l.claim, maxClaim) << lineShift
		if l.all {
			n |= lineAll
		}
		if l.grave {
			n |= lineGrave
		}
		b = append(b, l.tag[:]...)
		b = binary.AppendUvarint(b, n)
		b = append(b, l.hash[:]...)
	}
	return b
}

func unpackHeads(b []byte) ([]head, error) {
	var out []head
	for len(b) > 0 {
		var h head
		if len(b) < tagBytes {
			return nil, fmt.Errorf("%w: a line about a log is cut", ErrMalformed)
		}
		b = b[copy(h.tag[:], b):]
		n, rest, err := unpackNumber(b)
		if err != nil || len(rest) < hashBytes {
			return nil, fmt.Errorf("%w: a line about a log is cut or its number too long", ErrMalformed)
		}
		b = rest[copy(h.hash[:], rest):]
		h.claim, h.all, h.grave = n>>lineShift, n&lineAll != 0, n&lineGrave != 0
		if h.claim > 0 && (h.all || h.grave) {
			return nil, fmt.Errorf("%w: a line claims seq %d and asks for all", ErrMalformed, h.claim)
		}
		out = append(out, h)
	}
	return out, tooMany(len(out))
}

// packWants writes for each want by how much its line is beyond the one before, and from; last is the line
// of the want before.
func packWants(wants []want, last int) []byte {
	b := make([]byte, 0, 4*len(wants))
	for _, w := range wants {
		b = binary.AppendUvarint(b, uint64(w.line-last))
		b = binary.AppendUvarint(b, w.from)
		last = w.line
	}
	return b
}

// unpackWants reads what packWants writes; no line is beyond the listed ones.
func unpackWants(b []byte, last, listed int) ([]want, error) {
	var out []want
	for len(b) > 0 {
		step, rest, err := unpackNumber(b)
		if err != nil {
			return nil, err
		}
		if step == 0 || step >= uint64(listed-last) {
			return nil, fmt.Errorf("%w: a want of line %d+%d of %d", ErrMalformed, last, step, listed)
		}
		last += int(step)
		w := want{line: last}
		if w.from, b, err = unpackNumber(rest); err != nil {
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

// unpackNumber reads a number in its shortest form from the front of b.
func unpackNumber(b []byte) (uint64, []byte, error) {
	v, size := binary.Uvarint(b)
	if size <= 0 || size > 1 && b[size-1] == 0 {
		return 0, nil, fmt.Errorf("%w: a number is cut or too long", ErrMalformed)
	}
	return v, b[size:], nil
}
