package artifact

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"
)

// noise returns n bytes that depend on seed alone.
func noise(n int, seed uint64) []byte {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails, says its documentation
	return b
}

func splitAll(t testing.TB, r io.Reader) (chunks []Chunk, joined []byte) {
	t.Helper()
	err := Split(r, func(c []byte) error {
		chunks = append(chunks, Chunk{ID: Sum(c), SizeBytes: uint32(len(c))})
		joined = append(joined, c...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return chunks, joined
}

// The chunks of given bytes are part of the format: these values may never change.
func TestSplitGolden(t *testing.T) {
	if got := gear[0]; got != 0xd171da48e17b3f95 {
		t.Errorf("gear[0] = %#x", got)
	}
	chunks, _ := splitAll(t, bytes.NewReader(noise(1<<20, 1)))
	var sizes []uint32
	all := make([]byte, 0, len(chunks)*33)
	for _, c := range chunks {
		sizes = append(sizes, c.SizeBytes)
		all = append(all, c.ID[:]...)
	}
	if want := []uint32{74970, 72584, 75591, 116431, 69733, 76835, 91217, 73491, 68540, 80924, 80115, 77546, 67095, 23504}; !slices.Equal(sizes, want) {
		t.Errorf("sizes %v, want %v", sizes, want)
	}
	if got := Sum(all).String(); got != "sha256:9227d362d0195f5c40be1b0599cd5aff54d27f39b7d0c893e3fcb7bfe282599e" {
		t.Errorf("digest of all chunk ids is %s", got)
	}
}

func TestSplitSizes(t *testing.T) {
	tests := []struct {
		name string
		n    int
		want int // chunks, 0 = at least two
	}{
		{"nothing", 0, -1},
		{"one byte", 1, 1},
		{"exactly 64 KiB", 64 << 10, 1},
		{"4 MiB", 4 << 20, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := noise(tt.n, 7)
			chunks, joined := splitAll(t, bytes.NewReader(in))
			if !bytes.Equal(joined, in) {
				t.Fatal("the chunks joined are not the input")
			}
			if tt.want == 0 && len(chunks) < 2 || tt.want == -1 && len(chunks) != 0 || tt.want > 0 && len(chunks) != tt.want {
				t.Errorf("%d chunks", len(chunks))
			}
			for i, c := range chunks {
				if c.SizeBytes > MaxChunk || i < len(chunks)-1 && c.SizeBytes < 16<<10 {
					t.Errorf("chunk %d has %d bytes", i, c.SizeBytes)
				}
			}
			slow, _ := splitAll(t, iotest.HalfReader(bytes.NewReader(in)))
			for i := range chunks {
				if chunks[i] != slow[i] {
					t.Fatalf("chunk %d depends on how the reader hands out bytes", i)
				}
			}
		})
	}
}

func TestSplitZerosIsCutAtTheMaximum(t *testing.T) {
	chunks, _ := splitAll(t, bytes.NewReader(make([]byte, 1<<20)))
	if len(chunks) != 4 || chunks[0] != chunks[3] {
		t.Errorf("1 MiB of zeros: %v", chunks)
	}
}

func TestSplitMeanAndResync(t *testing.T) {
	in := noise(32<<20, 3)
	before, _ := splitAll(t, bytes.NewReader(in))
	if mean := len(in) / len(before); mean < 60<<10 || mean > 85<<10 {
		t.Errorf("mean chunk is %d bytes, about 73 KiB are wanted", mean)
	}
	old := map[Digest]bool{}
	for _, c := range before {
		old[c.ID] = true
	}
	after, _ := splitAll(t, io.MultiReader(bytes.NewReader(noise(4096, 4)), bytes.NewReader(in)))
	fresh := 0
	for _, c := range after {
		if !old[c.ID] {
			fresh += int(c.SizeBytes)
		}
	}
	if fresh > 2*MaxChunk {
		t.Errorf("4 KiB in front makes %d new bytes", fresh)
	}
}

// nothing is as many zero bytes as are asked for, which are cut at MaxChunk.
type nothing struct{}

func (nothing) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// Behind farFrom chunks are longer, up to there they are as ever, and something in front moves few of either kind. The
// sizes are part of the format: these values may never change.
func TestSplitFarChunksAreLonger(t *testing.T) {
	in := noise(8<<20, 6)
	split := func(front string) (sizes []int, ids []Digest) {
		r := io.MultiReader(bytes.NewBufferString(front), io.LimitReader(nothing{}, farFrom), bytes.NewReader(in))
		err := Split(r, func(c []byte) error {
			sizes, ids = append(sizes, len(c)), append(ids, Sum(c))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return sizes, ids
	}
	sizes, ids := split("")
	const near = farFrom / MaxChunk
	if slices.Max(sizes[:near]) != MaxChunk || slices.Min(sizes[:near]) != MaxChunk {
		t.Errorf("chunks before: %v", sizes[:near])
	}
	want := []int{155135, 164612, 78803, 197734, 197491, 205618, 152307, 214729, 250585, 200175, 206049, 212845, 213527, 197274, 199433, 201586, 77275, 197025, 261950, 205354, 201192, 231130, 206815, 160699, 234504, 200981, 212927, 217854, 217099, 144198, 157604, 230277, 182996, 205172, 156412, 115502, 77241, 198725, 207705, 103318, 202991, 202154, 96746, 207123, 204110, 23626}
	if !slices.Equal(sizes[near:], want) {
		t.Errorf("chunks behind: %v, want %v", sizes[near:], want)
	}
	moved, movedIDs := split(string(noise(4096, 4)))
	fresh := 0
	for i, id := range movedIDs {
		if !slices.Contains(ids, id) {
			fresh += moved[i]
		}
	}
	if fresh > 2<<20 {
		t.Errorf("4 KiB in front make %d new bytes", fresh)
	}
}

func TestSplitErrors(t *testing.T) {
	want := errors.New("broken")
	if err := Split(iotest.ErrReader(want), func([]byte) error { return nil }); !errors.Is(err, want) {
		t.Errorf("reader: got %v", err)
	}
	if err := Split(bytes.NewReader([]byte("x")), func([]byte) error { return want }); !errors.Is(err, want) {
		t.Errorf("emit: got %v", err)
	}
}

func BenchmarkSplit(b *testing.B) {
	in := noise(16<<20, 5)
	var s Splitter
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if err := s.Split(bytes.NewReader(in), func([]byte) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
