package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// oneWrite fails at the second Write.
type oneWrite struct {
	bytes.Buffer
	done bool
}

func (w *oneWrite) Write(p []byte) (int, error) {
	if w.done {
		return 0, errors.New("a second write")
	}
	w.done = true
	return w.Buffer.Write(p)
}

func TestFrames(t *testing.T) {
	for _, size := range []int{0, 1, firstRead - 1, firstRead, firstRead + 1, 5*firstRead + 7} {
		var w oneWrite
		want := bytes.Repeat([]byte{'a', 'b', 'c'}, size/3+1)[:size]
		if err := WriteFrame(&w, 9, want); err != nil {
			t.Fatal(err)
		}
		whole := w.Bytes()
		kind, got, err := ReadFrame(iotest.HalfReader(bytes.NewReader(append(whole, "next"...))), size)
		if err != nil || kind != 9 || !bytes.Equal(got, want) {
			t.Errorf("frame of %d: kind %d, %d bytes, %v", size, kind, len(got), err)
		}
		var broken *LimitError
		if _, _, err := ReadFrame(bytes.NewReader(whole), size-1); !errors.As(err, &broken) {
			t.Errorf("frame of %d read with limit %d: %v", size, size-1, err)
		}
		for _, cut := range []int{1, headBytes - 1, headBytes, len(whole) - 1} {
			if cut >= len(whole) {
				continue
			}
			if _, _, err := ReadFrame(bytes.NewReader(whole[:cut]), size); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("frame of %d cut at %d: %v, want %v", size, cut, err, io.ErrUnexpectedEOF)
			}
		}
	}
	if _, _, err := ReadFrame(bytes.NewReader(nil), 10); err != io.EOF {
		t.Errorf("end between frames: %v, want io.EOF itself", err)
	}
}

func TestFrameClaimAllocatesLittle(t *testing.T) {
	claim := []byte{0x7f, 0xff, 0xff, 0xff, 1, 'x'}
	got := allocated(func() {
		if _, _, err := ReadFrame(bytes.NewReader(claim), 1<<31-1); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("frame of one byte: %v", err)
		}
	})
	if got > 2*firstRead {
		t.Errorf("a claim of 2 GiB allocated %d bytes, limit %d", got, 2*firstRead)
	}
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 5, 'x', 'y'})
	f.Add([]byte{255, 255, 255, 255, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		kind, body, err := ReadFrame(r, 1<<16)
		if err != nil {
			return
		}
		var w bytes.Buffer
		if err := WriteFrame(&w, kind, body); err != nil || !bytes.Equal(w.Bytes(), b[:len(b)-r.Len()]) {
			t.Errorf("%x reads to a frame that writes to %x (%v)", b, w.Bytes(), err)
		}
	})
}
