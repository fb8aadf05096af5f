package catalog

import (
	"fmt"
	"slices"

	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// The frames of a session. Bodies are wire-encoded under sessionVersion.
//
//	root    -> asks the peer to compare; sent by one side, after which that side answers
//	same    <- the roots are equal: done
//	buckets <- they are not: a hash for each bucket of logs; also with no question, when that is known
//	heads   -> lines about the logs in unlike buckets, in one or more frames
//	want    <- asks for logs, in none or more frames, while pages and done follow
//	page    <> records; also sent at any other time, when they are new
//	graves  <> what stays of logs that aged out
//	done    <> all that was to be sent was sent; first by who asked with want, then by the other
//	fork    <> a proof, at any time
const (
	frameRoot    = 1
	frameSame    = 2
	frameBuckets = 3
	frameHeads   = 4
	frameWant    = 5
	framePage    = 6
	frameDone    = 7
	frameGraves  = 8
	frameFork    = 9
)

const sessionVersion = 2

// Limits of frames.
const (
	maxPageRecords = 1000
	maxPageBytes   = 256 << 10
	maxFrameBytes  = 512 << 10
	gravesPerFrame = 4096
)

var frameLimits = wire.Limits{Bytes: maxFrameBytes, Items: maxPageRecords, Total: 2 * maxPageRecords}

type rootFrame struct{ Root artifact.Digest }

type sameFrame struct{}

// bucketsFrame holds hashBytes for each of 2^Bits buckets.
type bucketsFrame struct {
	Salt   [saltBytes]byte
	Bits   uint8
	Hashes []byte
}

// headsFrame holds lines as packHeads writes them. The last frame names the unlike buckets, one bit each.
type headsFrame struct {
	Lines  []byte
	Last   bool
	Unlike []byte
}

// wantFrame holds lines as packWants writes them.
type wantFrame struct{ Lines []byte }

// pageFrame holds records as Encode returns them. Those that were asked for come log after log, certificates
// first and the others of a log by age.
type pageFrame struct {
	Asked   bool
	Records [][]byte
}

type doneFrame struct{ Root artifact.Digest }

// gravesFrame holds graves of graveBytes, one after another.
type gravesFrame struct{ Graves []byte }

// forkFrame is two records of one seq of one log.
type forkFrame struct{ A, B []byte }

// frame is one that waits to be sent.
type frame struct {
	kind byte
	body any
}

func decodeFrame[T any](b []byte) (T, error) {
	var v T
	err := wire.Unmarshal(b, sessionVersion, frameLimits, &v)
	return v, err
}

// decodeBuckets reads a buckets frame whose numbers agree.
func decodeBuckets(b []byte) (bucketsFrame, error) {
	f, err := decodeFrame[bucketsFrame](b)
	if err != nil {
		return f, err
	}
	if f.Bits > maxBucketBits || len(f.Hashes) != hashBytes<<f.Bits {
		return f, fmt.Errorf("%w: %d bytes of hashes for 2^%d buckets", ErrMalformed, len(f.Hashes), f.Bits)
	}
	return f, nil
}

// decodeHeads reads a heads frame that answers 2^bits buckets.
func decodeHeads(b []byte, bits int) (headsFrame, []head, error) {
	f, err := decodeFrame[headsFrame](b)
	if err != nil {
		return f, nil, err
	}
	if f.Last && len(f.Unlike) != (1<<bits+7)/8 {
		return f, nil, fmt.Errorf("%w: %d bytes to name buckets of 2^%d", ErrMalformed, len(f.Unlike), bits)
	}
	lines, err := unpackHeads(f.Lines)
	return f, lines, err
}

// decodeGraves reads a graves frame.
func decodeGraves(b []byte) ([]grave, error) {
	f, err := decodeFrame[gravesFrame](b)
	if err != nil {
		return nil, err
	}
	if n := len(f.Graves); n%graveBytes != 0 || n > gravesPerFrame*graveBytes {
		return nil, fmt.Errorf("%w: graves of %d bytes", ErrMalformed, n)
	}
	var out []grave
	for g := range slices.Chunk(f.Graves, graveBytes) {
		out = append(out, readGrave(g))
	}
	return out, nil
}
