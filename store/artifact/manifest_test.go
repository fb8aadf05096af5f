package artifact

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"meshd/mesh/id"
)

func file(name, content string) Entry {
	e := Entry{Name: name, Kind: File, Mode: 0o644, SizeBytes: int64(len(content))}
	if content != "" {
		e.Chunks = []Chunk{{ID: Sum([]byte(content)), SizeBytes: uint32(len(content))}}
	}
	return e
}

func dir(name string) Entry { return Entry{Name: name, Kind: Dir, Mode: 0o755} }

func link(name, target string) Entry { return Entry{Name: name, Kind: Symlink, Link: target} }

func sample() Manifest {
	return Manifest{
		Entries: []Entry{file("a-b", "1"), dir("a"), file("a/x", "two"), file("a/empty", ""), link("a/up", "../a-b"), link("z", "a/x")},
		Of: []Input{
			{Name: "postcard/b", Version: Version{Counter: 2, Epoch: 9, By: id.Node{1}}, Tree: Sum([]byte("b"))},
			{Name: "postcard/a", Version: Version{Counter: 1}, Tree: Sum([]byte("a"))},
		},
		Origin: Origin{Node: id.Node{7}, Entry: 42, Text: "feeds/one.txt was edited"},
		Meta:   map[string]string{"semver": "1.2.3", "arch": "arm64"},
	}
}

// Equal manifests have one encoding, on every machine and for ever.
func TestEncodeGolden(t *testing.T) {
	root, parts, ref, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(parts[0][:24]); got != "0101610201ed03612d620101a401016b86b273ff34fce19d" {
		t.Errorf("part begins %s", got)
	}
	if got := ref.Tree.String(); got != "sha256:b0898ea8068c7a784d454fa62549a6518edbda7dc9de1e7a3d45f3dbec7a67bb" {
		t.Errorf("tree %s", got)
	}
	if got := ref.Root.String(); got != "sha256:1f6632b460a64636b9b0306cf132d305c834ae6942a573a8c3f184a1e0e46a28" || ref.Root != Sum(root) {
		t.Errorf("root %s", got)
	}
}

func TestEncodeDecode(t *testing.T) {
	many := Manifest{Entries: []Entry{dir("d")}}
	for i := range 5000 {
		many.Entries = append(many.Entries, file(fmt.Sprintf("d/%05d", i), fmt.Sprint(i)))
	}
	for name, m := range map[string]Manifest{
		"sample": sample(), "empty folder": {}, "single file": {Entries: []Entry{file("", "x")}}, "many files": many,
	} {
		t.Run(name, func(t *testing.T) {
			root, parts, ref, err := m.Encode()
			if err != nil {
				t.Fatal(err)
			}
			r, err := DecodeRoot(root)
			if err != nil {
				t.Fatal(err)
			}
			entries, err := DecodeEntries(bytes.Join(parts, nil), r)
			if err != nil {
				t.Fatal(err)
			}
			again := Manifest{Entries: entries, Of: r.Of, Origin: r.Origin, Meta: r.Meta}
			root2, _, ref2, err := again.Encode()
			if err != nil || ref2 != ref || !bytes.Equal(root, root2) {
				t.Errorf("encoded again: %+v, %v; want %+v", ref2, err, ref)
			}
			sorted := slices.Clone(m.Entries)
			slices.SortFunc(sorted, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
			if diff := cmp.Diff(sorted, entries); len(sorted) > 0 && diff != "" {
				t.Error(diff)
			}
			if tree, err := TreeOf(m.Entries); err != nil || tree != ref.Tree {
				t.Errorf("TreeOf = %s, %v; want %s", tree, err, ref.Tree)
			}
		})
	}
}

func TestTreeIsOfTheEntriesAlone(t *testing.T) {
	a, b := sample(), sample()
	b.Of, b.Meta, b.Origin = nil, nil, Origin{}
	_, _, ra, err := a.Encode()
	if err != nil {
		t.Fatal(err)
	}
	_, _, rb, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if ra.Tree != rb.Tree || ra.Root == rb.Root {
		t.Errorf("trees %s %s, roots %s %s", ra.Tree, rb.Tree, ra.Root, rb.Root)
	}
}

// One file changed among 10,000 sends a small manifest.
func TestSmallChangeSmallManifest(t *testing.T) {
	m := Manifest{}
	for i := range 10000 {
		m.Entries = append(m.Entries, file(fmt.Sprintf("%05d", i), fmt.Sprint(i)))
	}
	root, before, _, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	m.Entries[5000] = file("05000", "changed")
	m.Entries = append(m.Entries, file("04999-new", "new"))
	_, after, _, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	old := map[Digest]bool{}
	for _, p := range before {
		old[Sum(p)] = true
	}
	fresh := len(root)
	for _, p := range after {
		if !old[Sum(p)] {
			fresh += len(p)
		}
	}
	t.Logf("%d parts, root block %d bytes, %d bytes to send", len(before), len(root), fresh)
	if fresh > 80<<10 {
		t.Errorf("%d bytes of manifest for one change", fresh)
	}
}

func TestBadEntries(t *testing.T) {
	deep := strings.Repeat("d/", 64) + "f"
	badSize := file("x", "abc")
	badSize.SizeBytes = 4
	big := Entry{Name: "x", Kind: File, SizeBytes: MaxChunk + 1, Chunks: []Chunk{{ID: Sum(nil), SizeBytes: MaxChunk + 1}}}
	noAlgo := Entry{Name: "x", Kind: File, SizeBytes: 1, Chunks: []Chunk{{SizeBytes: 1}}}
	tests := []struct {
		name    string
		entries []Entry
		says    string
	}{
		{"parent", []Entry{file("../x", "1")}, `part ".."`},
		{"parent inside", []Entry{dir("a"), file("a/../x", "1")}, `part ".."`},
		{"dot", []Entry{file("./x", "1")}, `part "."`},
		{"absolute", []Entry{file("/etc/passwd", "1")}, "absolute"},
		{"double slash", []Entry{dir("a"), file("a//x", "1")}, `part ""`},
		{"trailing slash", []Entry{dir("a/")}, `part ""`},
		{"NUL", []Entry{file("a\x00b", "1")}, "NUL"},
		{"not UTF-8", []Entry{file("a\xff", "1")}, "UTF-8"},
		{"300 byte name", []Entry{file(strings.Repeat("n", 300), "1")}, "part"},
		{"5000 byte path", []Entry{file(strings.Repeat("n/", 2500), "1")}, "5000 bytes"},
		{"65 levels", []Entry{file(deep, "1")}, "65 levels"},
		{"twice", []Entry{file("x", "1"), file("x", "2")}, "twice"},
		{"case clash", []Entry{file("README", "1"), file("readme", "2")}, "only in case"},
		{"case clash of folders", []Entry{dir("Ä"), dir("ä")}, "only in case"},
		{"no folder", []Entry{file("a/x", "1")}, "folder is not"},
		{"folder is a file", []Entry{file("a", "1"), file("a/x", "1")}, "no folder"},
		{"folder is a link", []Entry{dir("b"), link("a", "b"), file("a/x", "1")}, "no folder"},
		{"setuid", []Entry{{Name: "x", Kind: File, Mode: 0o4755}}, "setuid"},
		{"device", []Entry{{Name: "x", Kind: 4}}, "kind 4"},
		{"link with mode", []Entry{{Name: "x", Kind: Symlink, Mode: 0o777, Link: "y"}}, "kind 3"},
		{"folder with content", []Entry{{Name: "x", Kind: Dir, SizeBytes: 1, Chunks: file("x", "1").Chunks}}, "kind 2"},
		{"size", []Entry{badSize}, "for a size of 4"},
		{"chunk too large", []Entry{big}, "262145"},
		{"no algorithm", []Entry{noAlgo}, "algorithm 0"},
		{"unnamed folder", []Entry{dir("")}, "without a name"},
		{"unnamed among others", []Entry{file("", "1"), file("x", "1")}, `part ""`},
		{"link out", []Entry{link("x", "../y")}, "out of the tree"},
		{"link out from below", []Entry{dir("a"), link("a/x", "../../y")}, "out of the tree"},
		{"absolute link", []Entry{link("x", "/etc/passwd")}, "relative path"},
		{"empty link", []Entry{link("x", "")}, "relative path"},
		// d/.. is the parent of where d leads, not the folder that holds d.
		{"link by way of a link", []Entry{dir("s"), link("s/d", ".."), link("s/x", "d/../y")}, "shortest form"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, _, err := Manifest{Entries: tt.entries}.Encode()
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Encode: %v; want malformed, %q", err, tt.says)
			}
			raw := appendEntries(nil, tt.entries)
			var size int64
			for _, e := range tt.entries {
				size += e.SizeBytes
			}
			if tt.name == "size" || tt.name == "folder with content" {
				return // cannot be said in the encoding
			}
			if _, err := DecodeEntries(raw, Root{Tree: Sum(raw), SizeBytes: size}); !errors.Is(err, ErrMalformed) {
				t.Errorf("DecodeEntries: %v; want malformed", err)
			}
		})
	}
}

func TestDecodeRefusesOtherSpellings(t *testing.T) {
	root, parts, _, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	want, err := DecodeRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	joined := bytes.Join(parts, nil)
	for n := range root {
		if _, err := DecodeRoot(root[:n]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("root cut to %d bytes: %v", n, err)
		}
	}
	for n := range joined {
		if _, err := DecodeEntries(joined[:n], want); !errors.Is(err, ErrMalformed) {
			t.Fatalf("entries cut to %d bytes: %v", n, err)
		}
		// With a tree of its own, a cut between two entries is another good tree; no other cut is.
		entries, err := DecodeEntries(joined[:n], Root{Tree: Sum(joined[:n]), SizeBytes: sizeOf(joined[:n])})
		if err == nil && !bytes.Equal(appendEntries(nil, entries), joined[:n]) {
			t.Fatalf("entries cut to %d bytes decode to %v", n, entries)
		}
	}
	long := append([]byte{1, 0x83, 0}, joined[2:]...)
	tests := map[string]struct {
		parts []byte
		want  Root
	}{
		"other tree":  {joined, Root{Tree: Sum(nil), SizeBytes: want.SizeBytes}},
		"other size":  {joined, Root{Tree: want.Tree, SizeBytes: want.SizeBytes + 1}},
		"long varint": {long, Root{Tree: Sum(long), SizeBytes: want.SizeBytes}},
		"version 2":   {[]byte{2}, Root{Tree: Sum([]byte{2})}},
	}
	for name, tt := range tests {
		if _, err := DecodeEntries(tt.parts, tt.want); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodeRoot(append(slices.Clone(root), 0)); !errors.Is(err, ErrMalformed) {
		t.Errorf("a byte too many: %v", err)
	}
}

func TestBadRoot(t *testing.T) {
	tests := map[string]func(*Manifest){
		"long origin":     func(m *Manifest) { m.Origin.Text = strings.Repeat("x", MaxOriginText+1) },
		"input twice":     func(m *Manifest) { m.Of = append(m.Of, m.Of[0]) },
		"input name":      func(m *Manifest) { m.Of[0].Name = "../x" },
		"empty meta key":  func(m *Manifest) { m.Meta[""] = "x" },
		"long meta value": func(m *Manifest) { m.Meta["k"] = strings.Repeat("x", 1025) },
		"much meta": func(m *Manifest) {
			for i := range 65 {
				m.Meta[fmt.Sprint(i)] = ""
			}
		},
	}
	for name, spoil := range tests {
		m := sample()
		spoil(&m)
		if _, _, _, err := m.Encode(); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	tests := []struct {
		name string
		ok   bool
	}{
		{"app", true},
		{"postcard/container_1", true},
		{"a/b/c.tar.gz", true},
		{strings.Repeat("n", MaxName), true},
		{strings.Repeat("n", MaxName+1), false},
		{"", false},
		{"/a", false},
		{"a/", false},
		{"a//b", false},
		{"a/../b", false},
		{".", false},
		{"a b", false},
		{"a\n", false},
		{"ä", false},
	}
	for _, tt := range tests {
		if err := CheckName(tt.name); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("CheckName(%.20q) = %v, want ok %v", tt.name, err, tt.ok)
		}
	}
}

// allocated returns the bytes that f allocates. Other goroutines must be quiet.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// The densest encodings of 64 KiB that there are take no more than 1 MiB.
func TestDecodeAllocatesLittle(t *testing.T) {
	folders, upper := []byte{1}, []byte{1}
	for i := 0; len(folders) < 64<<10-8; i++ {
		folders = appendEntry(folders, dir(strconv.FormatInt(int64(36*36+i), 36)))
	}
	for i := 0; len(upper) < 64<<10-8; i++ {
		upper = appendEntry(upper, dir("A"+string(rune(0x4e00+i))))
	}
	f := Entry{Name: "x", Kind: File}
	for len(f.Chunks) < 64<<10/34-1 {
		f.Chunks = append(f.Chunks, Chunk{ID: Sum(nil), SizeBytes: 1})
	}
	chunks := appendEntries(nil, []Entry{f})
	for name, b := range map[string][]byte{"folders": folders, "chunks": chunks, "upper": upper} {
		var n int
		want, err := Root{Tree: Sum(b), SizeBytes: sizeOf(b)}, error(nil)
		got := allocated(func() {
			var entries []Entry
			entries, err = DecodeEntries(b, want)
			n = len(entries)
		})
		if got > 1<<20 || err != nil || n == 0 {
			t.Errorf("%s: %d bytes allocated for %d entries, %v", name, got, n, err)
		}
	}
}

func FuzzDecodeEntries(f *testing.F) {
	_, parts, _, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bytes.Join(parts, nil))
	f.Add([]byte{1})
	f.Add([]byte{1, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			return
		}
		var entries []Entry
		var err error
		for size := range int64(2) { // the size is not in b: try to get past it
			want := Root{Tree: Sum(b), SizeBytes: size}
			if size == 1 {
				want.SizeBytes = sizeOf(b)
			}
			got := allocated(func() { entries, err = DecodeEntries(b, want) })
			if got > 1<<20 {
				t.Fatalf("%d bytes allocated for %d", got, len(b))
			}
		}
		if err == nil && !bytes.Equal(appendEntries(nil, entries), b) {
			t.Fatal("a second spelling")
		}
	})
}

// sizeOf sums the chunk sizes that b claims, if it can be read at all.
func sizeOf(b []byte) (size int64) {
	if _, _, err := countEntries(b); err != nil {
		return 0
	}
	d := decoder{rest: b}
	d.version()
	for len(d.rest) > 0 && d.err == nil {
		d.text()
		kind := d.take(3)[0]
		switch kind {
		case File:
			for _, c := range d.chunks(d.count(leastChunk), nil) {
				size += int64(c.SizeBytes)
			}
		case Symlink:
			d.text()
		}
	}
	return size
}

func FuzzDecodeRoot(f *testing.F) {
	root, _, _, err := sample().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(root)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			return
		}
		var r Root
		var err error
		if got := allocated(func() { r, err = DecodeRoot(b) }); got > 1<<20 {
			t.Fatalf("%d bytes allocated for %d", got, len(b))
		}
		if err == nil && !bytes.Equal(appendRoot(nil, r), b) {
			t.Fatal("a second spelling")
		}
	})
}

// appendEntry appends the encoding of one entry.
func appendEntry(b []byte, e Entry) []byte { return append(b, appendEntries(nil, []Entry{e})[1:]...) }

// appendEntries appends the encoding of entries, which need not be sorted or good.
func appendEntries(b []byte, entries []Entry) []byte {
	all, err := io.ReadAll(&entriesReader{entries: entries})
	if err != nil {
		panic(err) // it returns none
	}
	return append(b, all...)
}

// What is encoded in steps is one encoding, wherever the steps end.
func TestManyEntriesAreEncodedInSteps(t *testing.T) {
	var m Manifest
	for i := range 700 {
		e := Entry{Name: fmt.Sprintf("%04d", i), Kind: File, Mode: 0o644}
		for j := range i % 300 {
			e.Chunks = append(e.Chunks, Chunk{ID: Sum([]byte{byte(i), byte(j), byte(j >> 8)}), SizeBytes: uint32(1 + i*j%MaxChunk)})
			e.SizeBytes += int64(e.Chunks[j].SizeBytes)
		}
		m.Entries = append(m.Entries, e)
	}
	root, parts, ref, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	r, err := DecodeRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	joined := slices.Concat(parts...)
	entries, err := DecodeEntries(joined, r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m.Entries, entries); diff != "" {
		t.Errorf("the entries are others than were encoded: %s", diff)
	}
	if most := mostBytes(entries); len(joined) > most || len(parts) < 50 {
		t.Errorf("%d bytes in %d parts, at most %d were expected", len(joined), len(parts), most)
	}
	if tree, err := TreeOf(m.Entries); err != nil || tree != ref.Tree || tree != Sum(joined) {
		t.Errorf("the tree is %s, %v; want %s", tree.Short(), err, ref.Tree.Short())
	}
}
