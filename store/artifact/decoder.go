package artifact

import "encoding/binary"

// decoder reads the encoding of codec.go. After the first error it yields zero values, and finish tells it.
type decoder struct {
	rest  []byte
	whole string // what rest is the tail of, to take text from without copying; empty: copied
	err   error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = malformed(format, args...)
	}
	d.rest = nil
}

// finish returns the first error; bytes left over are one.
func (d *decoder) finish() error {
	if d.err == nil && len(d.rest) > 0 {
		d.fail("%d bytes too many", len(d.rest))
	}
	return d.err
}

// zeros is what take yields after an error, for the sizes its callers ask for.
const zeros = 64

// take returns the next n bytes. After an error it returns zeros, as many as fixed fields need.
func (d *decoder) take(n int) []byte {
	if d.err == nil && n > len(d.rest) {
		d.fail("%d bytes are missing at the end", n-len(d.rest))
	}
	if d.err != nil {
		return make([]byte, min(n, zeros))
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) version() {
	if v := d.take(1); d.err == nil && v[0] != codecVersion {
		d.fail("version %d is not known here: a newer meshd wrote it", v[0])
	}
}

// number reads a varint of at most limit, in its shortest form.
func (d *decoder) number(limit uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	switch {
	case d.err != nil:
		return 0
	case n <= 0:
		d.fail("a number is cut or too long")
		return 0
	case n > 1 && d.rest[n-1] == 0:
		d.fail("a number is not in its shortest form")
		return 0
	case v > limit:
		d.fail("number %d, at most %d is allowed", v, limit)
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// count reads the count of items that take at least each bytes: more than can follow are refused.
func (d *decoder) count(each int) int {
	v := d.number(1 << 62)
	if v > uint64(len(d.rest)/each) {
		d.fail("%d items of at least %d bytes announced in %d bytes", v, each, len(d.rest))
		return 0
	}
	return int(v)
}

func (d *decoder) text() string {
	n := d.count(1)
	if d.whole == "" {
		return string(d.take(n))
	}
	start := len(d.whole) - len(d.rest)
	d.take(n)
	return d.whole[start : start+n]
}

func (d *decoder) digest() (g Digest) {
	copy(g[:], d.take(len(g)))
	return g
}

// chunks appends the next n chunks to list.
func (d *decoder) chunks(n int, list []Chunk) []Chunk {
	if list == nil && n > 0 {
		list = make([]Chunk, 0, n)
	}
	for range n {
		id := d.digest()
		list = append(list, Chunk{ID: id, SizeBytes: uint32(d.number(MaxChunk))})
	}
	return list
}

// meta reads the meta list of r, which must be sorted.
func (d *decoder) meta(r *Root) {
	n := d.count(2)
	if n > maxMeta {
		d.fail("%d meta values, at most %d are allowed", n, maxMeta)
		return
	}
	if n > 0 {
		r.Meta = make(map[string]string, n)
	}
	before := ""
	for range n {
		key, value := d.text(), d.text()
		if d.err != nil {
			return
		}
		if key <= before {
			d.fail("meta %.80q is out of order or twice", key)
			return
		}
		before = key
		r.Meta[key] = value
	}
}
