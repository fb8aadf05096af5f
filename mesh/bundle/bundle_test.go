package bundle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// A shelf is the other side: it takes what it is given, and offers artifacts by the text of their records.
type shelf struct {
	mesh    byte
	offers  map[string]artifact.Ref
	records []string
	chunks  map[artifact.Digest]int
}

func (s *shelf) Head(h Head) error {
	if h.Mesh[0] != s.mesh {
		return fmt.Errorf("%w: of mesh %x, this is %x", ErrRefused, h.Mesh[0], s.mesh)
	}
	return nil
}

func (s *shelf) Records(page [][]byte) error {
	for _, r := range page {
		s.records = append(s.records, string(r))
	}
	return nil
}

func (s *shelf) Artifact(record []byte) (artifact.Ref, error) {
	ref, ok := s.offers[string(record)]
	if !ok {
		return artifact.Ref{}, fmt.Errorf("%w: record %q is not signed", ErrRefused, record)
	}
	return ref, nil
}

func (s *shelf) Chunk(id artifact.Digest, b []byte) error {
	if artifact.Sum(b) != id {
		return errors.New("a chunk was handed on unverified")
	}
	s.chunks[id]++
	return nil
}

// content is a few artifacts and all their chunks.
type content struct {
	chunks map[artifact.Digest][]byte
	names  []string
	offers map[string]artifact.Ref
}

func sample(t testing.TB) *content {
	c := &content{chunks: map[artifact.Digest][]byte{}, offers: map[string]artifact.Ref{}}
	keep := func(b []byte) artifact.Chunk {
		d := artifact.Sum(b)
		c.chunks[d] = b
		return artifact.Chunk{ID: d, SizeBytes: uint32(len(b))}
	}
	shared := keep(bytes.Repeat([]byte("shared"), 1000))
	add := func(name string, entries ...artifact.Entry) {
		root, parts, ref, err := artifact.Manifest{Entries: entries}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range append(parts, root) {
			keep(b)
		}
		ref.Name = name
		c.names = append(c.names, name)
		c.offers[name] = ref
	}
	file := func(name string, chunks ...artifact.Chunk) artifact.Entry {
		e := artifact.Entry{Name: name, Kind: artifact.File, Mode: 0o644, Chunks: chunks}
		for _, c := range chunks {
			e.SizeBytes += int64(c.SizeBytes)
		}
		return e
	}
	add("app", file("a", keep([]byte("hello")), shared), file("b", shared))
	add("tool", file("c", shared, keep([]byte("other"))))
	add("empty", artifact.Entry{Name: "d", Kind: artifact.Dir, Mode: 0o755})
	return c
}

func (c *content) shelf() *shelf {
	return &shelf{mesh: 7, offers: c.offers, chunks: map[artifact.Digest]int{}}
}

func (c *content) read(id artifact.Digest, _ []byte) ([]byte, error) {
	b, ok := c.chunks[id]
	if !ok {
		return nil, errors.New("not held")
	}
	return b, nil
}

// write makes the whole bundle.
func (c *content) write(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, Head{[32]byte{7}})
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range [][][]byte{{[]byte("cert"), []byte("status")}, {[]byte("app")}} {
		if err := w.Records(page); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range c.names {
		if err := w.Artifact([]byte(name), c.offers[name], c.read, func(int) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestABundleComesOutAsItWentIn(t *testing.T) {
	c := sample(t)
	b := c.write(t)
	if !bytes.Equal(b, c.write(t)) {
		t.Error("equal content, unlike files")
	}
	for name, r := range map[string]io.Reader{"whole": bytes.NewReader(b), "byte by byte": iotest.OneByteReader(bytes.NewReader(b))} {
		s := c.shelf()
		totals, err := Read(r, s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := []string{"cert", "status", "app"}; !slices.Equal(s.records, want) || totals.Records != 3 || totals.Artifacts != 3 {
			t.Errorf("%s: records %q, totals %+v", name, s.records, totals)
		}
		for d := range c.chunks {
			if s.chunks[d] != 1 {
				t.Errorf("%s: chunk %s came %d times", name, d.Short(), s.chunks[d])
			}
		}
	}
}

// Wherever it is cut, and whichever byte is another, it is refused by name.
func TestACutOrAlteredBundleIsRefused(t *testing.T) {
	c := sample(t)
	b := c.write(t)
	try := func(what string, b []byte) {
		t.Helper()
		if _, err := Read(bytes.NewReader(b), c.shelf()); !errors.Is(err, ErrRefused) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for n := range len(b) {
		try(fmt.Sprintf("cut at %d", n), b[:n])
	}
	for n := range len(b) {
		for _, bit := range []byte{1, 0x80} {
			bad := bytes.Clone(b)
			bad[n] ^= bit
			try(fmt.Sprintf("byte %d altered", n), bad)
		}
	}
	try("a byte more", append(bytes.Clone(b), 0))
	try("twice", append(bytes.Clone(b), b...))
	failing := errors.New("the stick is out")
	if _, err := Read(io.MultiReader(bytes.NewReader(b[:100]), iotest.ErrReader(failing)), c.shelf()); !errors.Is(err, failing) || errors.Is(err, ErrRefused) {
		t.Errorf("an error of the reader is told as %v", err)
	}
}

// forge writes any frames, with an end that agrees with them.
func forge(t testing.TB, end bool, frames ...func(*Writer)) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, Head{[32]byte{7}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		f(w)
	}
	if end {
		if _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return out.Bytes()
}

func raw(kind byte, body []byte) func(*Writer) {
	return func(w *Writer) {
		if err := wire.WriteFrame(w.out(), kind, body); err != nil {
			panic(err)
		}
	}
}

func body(v any) []byte {
	b, err := wire.Marshal(version, v)
	if err != nil {
		panic(err)
	}
	return b
}

// What is well summed up and still wrong is refused, each by its name.
func TestForgedBundlesAreRefusedByName(t *testing.T) {
	c := sample(t)
	app, root := c.offers["app"], c.chunks[c.offers["app"].Root]
	records := raw(frameRecords, body(&recordsFrame{[][]byte{[]byte("cert")}}))
	escape := artifact.Manifest{Entries: []artifact.Entry{{Name: "xx/evil", Kind: artifact.Dir, Mode: 0o755}, {Name: "xx", Kind: artifact.Dir, Mode: 0o755}}}
	block, parts, ref, err := escape.Encode()
	if err != nil {
		t.Fatal(err)
	}
	// A tree with ".." can't be encoded: patch the bytes, and name them anew all the way up.
	part := bytes.ReplaceAll(parts[0], []byte("xx"), []byte(".."))
	old, now := artifact.Sum(parts[0]), artifact.Sum(part)
	block = bytes.ReplaceAll(block, old[:], now[:])
	ref.Tree, ref.Root, ref.Name = now, artifact.Sum(block), "escape"
	c.offers["escape"] = ref
	big := bytes.Repeat([]byte{'x'}, maxRecord+1)
	for _, tt := range []struct {
		name, want string
		b          []byte
	}{
		{"another format", "format 9, this meshd reads 1", append([]byte{9}, c.write(t)[1:]...)},
		{"nothing", "the file is empty", nil},
		{"a foreign mesh", "of mesh 8, this is 7", bytes.Replace(c.write(t), []byte{7, 0, 0, 0}, []byte{8, 0, 0, 0}, 1)},
		{"no head", "where the head should be", func() []byte {
			var b bytes.Buffer
			b.WriteByte(version)
			_ = wire.WriteFrame(&b, frameRecords, body(&recordsFrame{}))
			return b.Bytes()
		}()},
		{"an unsigned record", `record "forged" is not signed`, forge(t, true, records, offered("forged"))},
		{"bytes that nobody offers", "a frame of kind 4 is out of place", forge(t, true, records, raw(frameChunk, root))},
		{"records after artifacts", "a frame of kind 2 is out of place", forge(t, true, offered("empty"),
			raw(frameChunk, c.chunks[c.offers["empty"].Root]), raw(frameChunk, c.chunks[artifact.Digest(c.offers["empty"].Tree)]), records)},
		{"a second head", "a frame of kind 1 is out of place", forge(t, true, raw(frameHead, body(&Head{[32]byte{7}})))},
		{"an unknown frame", "a frame of kind 77 is not known", forge(t, true, raw(77, nil))},
		{"an artifact without bytes", "where chunk", forge(t, true, offered("app"), offered("tool"))},
		{"another artifact's bytes", "want " + app.Root.Short(), forge(t, true, offered("app"), raw(frameChunk, c.chunks[c.offers["tool"].Root]))},
		{"a path that leaves the tree", `".."`, forge(t, true, offered("escape"), raw(frameChunk, block), raw(frameChunk, part))},
		{"an empty page", "a page with no record", forge(t, true, raw(frameRecords, body(&recordsFrame{})))},
		{"a record too long", "bytes of a record: 2049, limit 2048", forge(t, true, raw(frameRecords, body(&recordsFrame{[][]byte{big}})))},
		{"a frame too long", "bytes of a frame", forge(t, true, raw(frameHead, make([]byte, maxHead+1)))},
		{"a message of another shape", "bundle refused", forge(t, true, raw(frameRecords, body(&artifactFrame{[]byte("x")})))},
		{"totals that lie", "its end says", forge(t, true, func(w *Writer) { w.totals.Records = 5 })},
		{"no end", "it has no end", forge(t, false, records)},
	} {
		_, err := Read(bytes.NewReader(tt.b), c.shelf())
		if !errors.Is(err, ErrRefused) || !strings.Contains(fmt.Sprint(err), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestWhatIsNotHeldIsNotWritten(t *testing.T) {
	c := sample(t)
	delete(c.chunks, c.offers["tool"].Root)
	w, err := NewWriter(io.Discard, Head{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Artifact([]byte("tool"), c.offers["tool"], c.read, func(int) error { return nil }); err == nil || !strings.Contains(err.Error(), "tool") {
		t.Errorf("bytes that are not there were written: %v", err)
	}
}

func offered(name string) func(*Writer) {
	return raw(frameArtifact, body(&artifactFrame{[]byte(name)}))
}

// A claim costs no memory: reading 64 KiB of anything allocates less than 1 MiB (SPEC 12).
func TestReadingAllocatesLittle(t *testing.T) {
	c := sample(t)
	claim := append([]byte{version}, binary.BigEndian.AppendUint32(nil, uint32(maxPageFrame))...)
	claim = append(claim, frameRecords)
	for name, b := range map[string][]byte{"whole": c.write(t), "a claim": claim, "an artifact without end": forge(t, false, offered("app"))} {
		best := ^uint64(0)
		for range 3 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, _ = Read(bytes.NewReader(b), c.shelf())
			runtime.ReadMemStats(&after)
			best = min(best, after.TotalAlloc-before.TotalAlloc)
		}
		if most := uint64(1<<20 + 16*len(b)); best > most {
			t.Errorf("%s: %d bytes allocated for %d, limit %d", name, best, len(b), most)
		}
	}
}

func FuzzRead(f *testing.F) {
	c := sample(f)
	f.Add(c.write(f))
	f.Add(forge(f, true))
	f.Add(forge(f, true, raw(frameRecords, body(&recordsFrame{[][]byte{[]byte("cert")}})), raw(frameArtifact, body(&artifactFrame{[]byte("app")}))))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := c.shelf()
		totals, err := Read(bytes.NewReader(b), s)
		if err != nil {
			return
		}
		if totals.Records != uint64(len(s.records)) {
			t.Errorf("%d records in the totals, %d came", totals.Records, len(s.records))
		}
	})
}
