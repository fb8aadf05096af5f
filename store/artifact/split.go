package artifact

import (
	"crypto/sha256"
	"encoding/binary"
	"io"
)

// MaxChunk is the size of the largest chunk, in bytes.
const MaxChunk = 256 << 10

// cutter holds the sizes of a FastCDC (Xia et al., USENIX ATC 2016) with normalisation 2: before normal
// bytes a cut needs two more zero bits than the mean size asks for, after it two less.
type cutter struct {
	min, normal, max int
	early, late      uint // zero bits at the top of the rolling hash
}

// The cutters are part of the format: other sizes give other chunks, other trees, other hashes.
// Content is cut at 64 KiB (mean about 73 KiB), and behind its first farFrom bytes at 192 KiB (mean about 189 KiB):
// what each chunk costs in memory and rows would grow with the file. By the place in the file, not by its size: a
// file that grows keeps its chunks, and a stream need not tell how long it is. A change moves the chunks up to the next
// common cut, about 150 KiB, or 680 KiB there. Manifests are cut finer, because their change is always small: 4 KiB
// inserted in front of 256 MiB costs one part, not half the manifest.
var (
	contentCut  = cutter{min: 16 << 10, normal: 64 << 10, max: MaxChunk, early: 18, late: 14}
	farCut      = cutter{min: 64 << 10, normal: 192 << 10, max: MaxChunk, early: 19, late: 14}
	manifestCut = cutter{min: 2 << 10, normal: 8 << 10, max: 32 << 10, early: 15, late: 11}
)

// farFrom is the number of bytes after which the first chunk that begins is cut by farCut.
const farFrom = 256 << 20

// gear maps a byte to 64 fixed random bits: the first 8 bytes, big-endian, of the SHA-256 of
// "meshd gear/1" and the byte. Part of the format.
var gear = makeGear()

func makeGear() (table [256]uint64) {
	for i := range table {
		sum := sha256.Sum256(append([]byte("meshd gear/1"), byte(i)))
		table[i] = binary.BigEndian.Uint64(sum[:8])
	}
	return table
}

// Split cuts what r holds into chunks, in order: FastCDC of at least 16, about 64 and at most 256 KiB, behind 256 MiB of
// at least 64 and about 192 KiB; 64 KiB or less is one chunk, nothing is none. Equal bytes give equal chunks on every machine. The slice
// given to emit is valid until emit returns; its error ends the work and is returned as it is.
func Split(r io.Reader, emit func(chunk []byte) error) error {
	return new(Splitter).Split(r, emit)
}

// A Splitter does the work of the function Split for one reader after the other, in one buffer. The zero
// value is ready. It must not be used from two goroutines at once.
type Splitter struct {
	cut *cutter // nil = those of content
	buf []byte  // twice the longest chunk, or more than all that is read; empty before the first use
}

// Split is as the function Split.
func (s *Splitter) Split(r io.Reader, emit func(chunk []byte) error) error {
	c := s.cut
	if c == nil {
		c = &contentCut
	}
	if s.buf == nil {
		s.buf = make([]byte, 2*c.max)
	}
	start, end, eof := 0, 0, false
	for done := int64(0); ; {
		if s.cut == nil && done >= farFrom {
			c = &farCut
		}
		if end-start < c.max && !eof {
			end = copy(s.buf, s.buf[start:end])
			start = 0
			n, err := io.ReadFull(r, s.buf[end:])
			end += n
			switch err {
			case nil:
			case io.EOF, io.ErrUnexpectedEOF:
				eof = true
			default:
				return err
			}
		}
		if start == end {
			return nil
		}
		n := end - start
		if done > 0 || n > c.normal {
			n = c.cut(s.buf[start:end])
		}
		if err := emit(s.buf[start : start+n]); err != nil {
			return err
		}
		start += n
		done += int64(n)
	}
}

// cut returns the length of the first chunk of b, which holds c.max bytes or all that is left.
// Hashing starts 64 bytes before the minimum, so that where a cut falls depends on nothing but the 64
// bytes before it.
func (c cutter) cut(b []byte) int {
	if len(b) <= c.min {
		return len(b)
	}
	b = b[:min(len(b), c.max)]
	normal := min(len(b), c.normal)
	var hash uint64
	for _, v := range b[c.min-64 : c.min] {
		hash = hash<<1 + gear[v]
	}
	for i, v := range b[c.min:normal] {
		if hash>>(64-c.early) == 0 {
			return c.min + i
		}
		hash = hash<<1 + gear[v]
	}
	for i, v := range b[normal:] {
		if hash>>(64-c.late) == 0 {
			return normal + i
		}
		hash = hash<<1 + gear[v]
	}
	return len(b)
}
