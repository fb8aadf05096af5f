package artifact

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"testing"
)

// A skip ends at once, and takes so many bytes from what others read on from.
type skip struct {
	from  io.Reader
	bytes int64
}

func (s skip) Read([]byte) (int, error) {
	if _, err := io.CopyN(io.Discard, s.from, s.bytes); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

// Of a file of 2 GiB, most of which is cut by farCut, a new version costs what changed and a cut or two around it.
// Run with -v to see how much.
func TestDeltaOfALargeFile(t *testing.T) {
	if os.Getenv("MESHD_TEST_ALL") == "" {
		t.Skip("reads 6 GiB that are made up; MESHD_TEST_ALL=1")
	}
	const size, places = 2 << 30, 20
	held := map[Digest]bool{}
	// fresh are the bytes of a version that are not held: of content, of its manifest.
	fresh := func(r io.Reader) (content, index int) {
		e := Entry{Kind: File, Mode: 0o644}
		err := Split(r, func(b []byte) error {
			c := Chunk{ID: Sum(b), SizeBytes: uint32(len(b))}
			e.Chunks, e.SizeBytes = append(e.Chunks, c), e.SizeBytes+int64(len(b))
			if !held[c.ID] {
				held[c.ID] = true
				content += len(b)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		root, _, err := Manifest{Entries: []Entry{e}}.EncodeTo(func(c Chunk, part []byte) error {
			if !held[c.ID] {
				held[c.ID] = true
				index += len(part)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d chunks, new: %.2f MB of content, %.3f MB of index", len(e.Chunks), float64(content)/1e6, float64(index+len(root))/1e6)
		return content, index + len(root)
	}
	old := func() io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{1}), size) }
	fresh(old())
	if content, index := fresh(io.MultiReader(bytes.NewReader(noise(4<<10, 2)), old())); content > 2<<20 || index > 128<<10 {
		t.Errorf("4 KiB put in front: %d bytes of content, %d of index", content, index)
	}
	var parts []io.Reader
	base := old()
	for i := range places {
		const change = size / 100 / places
		parts = append(parts,
			io.LimitReader(base, size/places/2), skip{base, change}, bytes.NewReader(noise(change, uint64(3+i))),
			io.LimitReader(base, size/places-size/places/2-change),
		)
	}
	if content, index := fresh(io.MultiReader(append(parts, base)...)); content > size/50 || index > 512<<10 {
		t.Errorf("1 %% changed in %d places: %d bytes of content, %d of index", places, content, index)
	}
}
