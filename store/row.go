package store

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// The buckets of the store itself. All numbers in them are big-endian.
var (
	// bucketChunks maps a digest (33 bytes) to a row: kind byte, generation (4), CRC-32C of the bytes (4),
	// then for rowInline the bytes, for rowPacked pack (4), offset (4), length (4).
	bucketChunks = []byte("chunks/1")

	// bucketPacks maps the number of a pack (4) to where the bytes that count end (8).
	bucketPacks = []byte("packs/1")

	// bucketRoots maps the digest of a root block to a state byte (rootExpected, rootHeld) and the
	// generation (4) in which it got that state. Rows of bucketChunks without a root that reaches them
	// are what Collect removes.
	bucketRoots = []byte("roots/1")

	// bucketPlaced maps an absolute path to the digest of the root that was placed there: paths that
	// Place may replace. Written before the path is.
	bucketPlaced = []byte("placed/1")

	// bucketSelf holds keyGeneration.
	bucketSelf = []byte("self/1")

	keyGeneration = []byte("generation")
)

const (
	rowInline byte = 1
	rowPacked byte = 2

	rootExpected byte = 1
	rootHeld     byte = 2
)

// Chunks of at most maxInline bytes are kept in state.db when no more than maxInlineRun bytes are written
// together: a small artifact then costs one fsync less. In bulk they go to packs: 10,000 chunks of 4 KiB in
// state.db took 82 MB and three times as long (which is why this is not what SPEC 8 says).
const (
	maxInline    = 16 << 10
	maxInlineRun = 64 << 10
)

// row tells where the bytes of a chunk are. Its checksum finds bit rot at a tenth of what SHA-256 costs;
// against malice the digest was checked when the bytes came in, and is again where they are placed.
type row struct {
	generation uint32
	crc        uint32
	inline     []byte // nil = in a pack
	pack       uint32
	off, n     uint32
}

func (r row) encode() []byte {
	kind := rowPacked
	if r.inline != nil {
		kind = rowInline
	}
	b := make([]byte, 0, 21+len(r.inline))
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, r.generation)
	b = binary.BigEndian.AppendUint32(b, r.crc)
	if kind == rowInline {
		return append(b, r.inline...)
	}
	b = binary.BigEndian.AppendUint32(b, r.pack)
	b = binary.BigEndian.AppendUint32(b, r.off)
	return binary.BigEndian.AppendUint32(b, r.n)
}

// decodeRow reads a row; inline is a part of b.
func decodeRow(b []byte) (row, error) {
	if len(b) < 9 || b[0] != rowInline && b[0] != rowPacked || b[0] == rowPacked && len(b) != 21 {
		return row{}, fmt.Errorf("%w: chunk row of %d bytes", errBroken, len(b))
	}
	r := row{generation: binary.BigEndian.Uint32(b[1:]), crc: binary.BigEndian.Uint32(b[5:])}
	if b[0] == rowInline {
		r.inline = b[9:]
		return r, nil
	}
	r.pack, r.off, r.n = binary.BigEndian.Uint32(b[9:]), binary.BigEndian.Uint32(b[13:]), binary.BigEndian.Uint32(b[17:])
	return r, nil
}

// sameBytes reports whether r and o are one piece of storage.
func (r row) sameBytes(o row) bool {
	return (r.inline == nil) == (o.inline == nil) && r.crc == o.crc && r.pack == o.pack && r.off == o.off && r.n == o.n
}

func packKey(number uint32) []byte { return binary.BigEndian.AppendUint32(nil, number) }

// packEnds reads bucketPacks.
func packEnds(tx *bbolt.Tx) (map[uint32]int64, error) {
	ends := map[uint32]int64{}
	return ends, tx.Bucket(bucketPacks).ForEach(func(k, v []byte) error {
		if len(k) != 4 || len(v) != 8 {
			return fmt.Errorf("%w: pack row of %d and %d bytes", errBroken, len(k), len(v))
		}
		ends[binary.BigEndian.Uint32(k)] = int64(binary.BigEndian.Uint64(v))
		return nil
	})
}

func putPackEnd(tx *bbolt.Tx, number uint32, end int64) error {
	return tx.Bucket(bucketPacks).Put(packKey(number), binary.BigEndian.AppendUint64(nil, uint64(end)))
}

// raisePackEnd records that a pack counts up to end, if it did not reach as far before.
func raisePackEnd(tx *bbolt.Tx, number uint32, end int64) error {
	if v := tx.Bucket(bucketPacks).Get(packKey(number)); len(v) == 8 && int64(binary.BigEndian.Uint64(v)) >= end {
		return nil
	}
	return putPackEnd(tx, number, end)
}
