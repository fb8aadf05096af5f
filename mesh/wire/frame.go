package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// A frame on a stream is the length of its body (4 bytes, big-endian), its kind, and the body.
const headBytes = 5

// firstRead is what ReadFrame allocates on a claim alone; more follows bytes that have come.
const firstRead = 64 << 10

// WriteFrame writes one frame with a single Write, so that frames of several writers, each holding a
// lock for the one call, never mix.
func WriteFrame(w io.Writer, kind byte, body []byte) error {
	if len(body) > math.MaxInt32 {
		return &LimitError{"bytes of a frame", math.MaxInt32, len(body)}
	}
	b := make([]byte, headBytes, headBytes+len(body))
	binary.BigEndian.PutUint32(b, uint32(len(body)))
	b[4] = kind
	_, err := w.Write(append(b, body...))
	return err
}

// ReadFrame reads one frame whose body has at most max bytes; a longer one is a *LimitError, after
// which the stream is of no more use. The error is io.EOF only where the stream ends between frames,
// and io.ErrUnexpectedEOF (wrapped) within one. It reads not a byte beyond the frame and never
// allocates more than twice the bytes that have come, or 64 KiB. The caller owns the body.
func ReadFrame(r io.Reader, max int) (kind byte, body []byte, err error) {
	var head [headBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, nil, fmt.Errorf("head of a frame: %w", err)
		}
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if int64(n) > int64(max) {
		return 0, nil, &LimitError{"bytes of a frame", max, int(min(n, math.MaxInt32))}
	}
	size := int(n)
	body = make([]byte, 0, min(size, firstRead))
	for {
		have := len(body)
		body = body[:cap(body)]
		if _, err := io.ReadFull(r, body[have:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, nil, fmt.Errorf("frame of %d bytes: %w", size, err)
		}
		if len(body) == size {
			return head[4], body, nil
		}
		more := make([]byte, len(body), min(size, 2*len(body)))
		copy(more, body)
		body = more
	}
}
