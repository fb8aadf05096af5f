package wire

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// ErrMalformed is wrapped by every error about bytes that are not one canonical msgpack value; a
// broken limit is a *LimitError instead.
var ErrMalformed = errors.New("malformed message")

// Check reports whether b is exactly one msgpack value in its canonical spelling and within lim. It
// allocates nothing that grows with b and recurses at most MaxDepth deep.
//
// Refused are extension types, floats, text that is not UTF-8, map keys that are not text or do not
// ascend (so none comes twice), lengths and integers in a longer form than needed, counts beyond the
// bytes that are left, and bytes after the value. Which nils are right only the type knows: see
// Unmarshal.
func Check(b []byte, lim Limits) error {
	s := scanner{b: b, lim: lim.orDefault()}
	return s.whole(nil)
}

// family is what a msgpack code says about the bytes that follow.
type family uint8

const (
	famNil family = iota
	famBool
	famInt
	famText
	famBytes
	famArray
	famMap
)

func (f family) String() string {
	return [...]string{"nil", "bool", "integer", "text", "bytes", "array", "map"}[f]
}

// span is a run of bytes of the message.
type span struct{ from, to int }

// A scanner walks one msgpack value without decoding it.
type scanner struct {
	b     []byte
	pos   int
	lim   Limits
	total int // values seen
	grown int // bytes the decoded form will take, as far as the shape tells; see grow

	// empties are the empty arrays, maps and bytes of the shape that were not spelled nil. Marshal
	// respells them (collect is set), all others refuse them.
	collect bool
	empties []span
}

// whole scans the one value that the message is, against sh unless it is nil.
func (s *scanner) whole(sh *shape) error {
	if len(s.b) > s.lim.Bytes {
		return &LimitError{"bytes of the message", s.lim.Bytes, len(s.b)}
	}
	if err := s.value(sh, 0); err != nil {
		return err
	}
	if s.pos != len(s.b) {
		return s.bad("%d bytes after the value", len(s.b)-s.pos)
	}
	return nil
}

// value scans one value; depth is the number of arrays and maps around it.
func (s *scanner) value(sh *shape, depth int) error {
	if s.total++; s.total > s.lim.Total {
		return &LimitError{"values in the message", s.lim.Total, s.total}
	}
	start := s.pos
	fam, n, err := s.head()
	if err != nil {
		return err
	}
	if sh != nil {
		if sh, err = s.fit(sh, fam, n, start); err != nil {
			return err
		}
	}
	switch fam {
	case famText, famBytes:
		_, err = s.payload(fam, n)
		return err
	case famArray, famMap:
		if depth >= s.lim.Depth {
			return &LimitError{"nesting of the message", s.lim.Depth, depth + 1}
		}
		if n > s.lim.Items {
			return &LimitError{"count of one " + fam.String(), s.lim.Items, n}
		}
		if fam == famMap {
			return s.entries(sh, n, depth)
		}
		return s.elements(sh, n, depth)
	}
	return nil
}

func (s *scanner) elements(sh *shape, n, depth int) error {
	if n > s.left() {
		return s.bad("array of %d with %d bytes left", n, s.left())
	}
	for i := range n {
		if err := s.value(sh.element(i), depth+1); err != nil {
			return sh.within(i, err)
		}
	}
	return nil
}

func (s *scanner) entries(sh *shape, n, depth int) error {
	if n > s.left()/2 {
		return s.bad("map of %d with %d bytes left", n, s.left())
	}
	var before []byte
	for i := range n {
		if s.total++; s.total > s.lim.Total {
			return &LimitError{"values in the message", s.lim.Total, s.total}
		}
		fam, size, err := s.head()
		if err != nil {
			return err
		}
		if fam != famText {
			return s.bad("map key is %s, want text", fam)
		}
		key, err := s.payload(fam, size)
		if err != nil {
			return err
		}
		if i > 0 && bytes.Compare(before, key) >= 0 {
			return s.bad("map key %.40q after %.40q: keys must ascend", key, before)
		}
		before = key
		if err := s.value(sh.element(i), depth+1); err != nil {
			return fmt.Errorf("%.40q: %w", key, err)
		}
	}
	return nil
}

// payload steps over the n bytes of text or bytes.
func (s *scanner) payload(fam family, n int) ([]byte, error) {
	if n > s.left() {
		return nil, s.bad("%s of %d bytes with %d bytes left", fam, n, s.left())
	}
	p := s.b[s.pos : s.pos+n]
	s.pos += n
	if fam == famText && !utf8.Valid(p) {
		return nil, s.bad("text is not UTF-8")
	}
	return p, nil
}

// head reads a code and what belongs to it: n is the length of text and bytes, the count of an array
// or map. The payload of an integer is stepped over.
func (s *scanner) head() (fam family, n int, err error) {
	if s.left() == 0 {
		return 0, 0, s.bad("the message ends where a value should begin")
	}
	c := s.b[s.pos]
	s.pos++
	switch {
	case c <= 0x7f || c >= 0xe0:
		return famInt, 0, nil
	case c <= 0x8f:
		return famMap, int(c & 0x0f), nil
	case c <= 0x9f:
		return famArray, int(c & 0x0f), nil
	case c <= 0xbf:
		return famText, int(c & 0x1f), nil
	}
	switch c {
	case 0xc0:
		return famNil, 0, nil
	case 0xc2, 0xc3:
		return famBool, 0, nil
	case 0xc4:
		return s.length(famBytes, 1, 0)
	case 0xc5:
		return s.length(famBytes, 2, 1<<8)
	case 0xc6:
		return s.length(famBytes, 4, 1<<16)
	case 0xd9:
		return s.length(famText, 1, 32)
	case 0xda:
		return s.length(famText, 2, 1<<8)
	case 0xdb:
		return s.length(famText, 4, 1<<16)
	case 0xdc:
		return s.length(famArray, 2, 16)
	case 0xdd:
		return s.length(famArray, 4, 1<<16)
	case 0xde:
		return s.length(famMap, 2, 16)
	case 0xdf:
		return s.length(famMap, 4, 1<<16)
	case 0xcc, 0xcd, 0xce, 0xcf:
		return famInt, 0, s.unsigned(1 << (c - 0xcc))
	case 0xd0, 0xd1, 0xd2, 0xd3:
		return famInt, 0, s.negative(1 << (c - 0xd0))
	case 0xca, 0xcb:
		return 0, 0, s.bad("floating point numbers are not used")
	}
	return 0, 0, s.bad("code %#02x: extension types are not used", c)
}

// length reads a length of size bytes; what is below least has a shorter form.
func (s *scanner) length(fam family, size int, least uint64) (family, int, error) {
	v, err := s.number(size)
	if err != nil {
		return 0, 0, err
	}
	if v < least {
		return 0, 0, s.bad("%s of length %d in %d bytes: not the shortest form", fam, v, size)
	}
	return fam, int(min(v, math.MaxInt32)), nil // what is cut off here is beyond any bytes left
}

// number reads a big-endian number of size bytes.
func (s *scanner) number(size int) (uint64, error) {
	if size > s.left() {
		return 0, s.bad("the message ends within a number")
	}
	var v uint64
	for _, c := range s.b[s.pos : s.pos+size] {
		v = v<<8 | uint64(c)
	}
	s.pos += size
	return v, nil
}

// unsigned reads an integer that is not negative.
func (s *scanner) unsigned(size int) error {
	v, err := s.number(size)
	if err != nil {
		return err
	}
	least := uint64(1) << 7
	if size > 1 {
		least = 1 << (4 * size)
	}
	if v < least {
		return s.bad("integer %d in %d bytes: not the shortest form", v, size)
	}
	return nil
}

// negative reads a signed integer: only those below zero are spelled so.
func (s *scanner) negative(size int) error {
	v, err := s.number(size)
	if err != nil {
		return err
	}
	signed := int64(v<<(64-8*size)) >> (64 - 8*size)
	most := int64(-33)
	if size > 1 {
		most = -(1 << (4*size - 1)) - 1
	}
	if signed > most {
		return s.bad("integer %d in %d bytes: not the shortest form", signed, size)
	}
	return nil
}

func (s *scanner) left() int { return len(s.b) - s.pos }

func (s *scanner) bad(format string, args ...any) error {
	return fmt.Errorf("%w: byte %d: %s", ErrMalformed, s.pos, fmt.Sprintf(format, args...))
}
