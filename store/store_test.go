package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"meshd/store/artifact"
)

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // closed twice where a test closes it
	return s
}

func noise(n int, seed uint64) []byte {
	var key [32]byte
	binary.BigEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails, says its documentation
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes the files below dir, and the folders above them.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
}

func chunksOf(list ...[]byte) (out []artifact.Chunk) {
	for _, b := range list {
		out = append(out, artifact.Chunk{ID: artifact.Sum(b), SizeBytes: uint32(len(b))})
	}
	return out
}

func TestChunksSurviveReopen(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	list := [][]byte{{1}, noise(maxInline, 1), noise(maxInline+1, 2), noise(artifact.MaxChunk, 3), noise(artifact.MaxChunk, 3)}
	all := chunksOf(list...)
	missing, err := s.Missing(all)
	must(t, err)
	if len(missing) != len(all) {
		t.Fatalf("%d missing in an empty store", len(missing))
	}
	must(t, s.Write(list))
	for range 2 {
		missing, err = s.Missing(all)
		must(t, err)
		if len(missing) != 0 {
			t.Fatalf("missing after Write: %v", missing)
		}
		var buf []byte
		for i, c := range all {
			buf, err = s.Read(c.ID, buf)
			must(t, err)
			if !bytes.Equal(buf, list[i]) {
				t.Fatalf("chunk %d differs", i)
			}
		}
		must(t, s.Close())
		s = open(t, dir)
	}
	if _, err := s.Read(artifact.Sum([]byte("no")), nil); !errors.Is(err, ErrMissing) {
		t.Errorf("unknown chunk: %v", err)
	}
	for _, bad := range [][]byte{{}, make([]byte, artifact.MaxChunk+1)} {
		if err := s.Write([][]byte{bad}); err == nil {
			t.Errorf("chunk of %d bytes was taken", len(bad))
		}
	}
}

func TestSecondMeshdIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	var err error
	synctest.Test(t, func(*testing.T) { _, err = Open(dir, Options{}) }) // it waits a second, in vain
	if err == nil || !strings.Contains(err.Error(), "in use by another meshd") || !strings.Contains(err.Error(), dir) {
		t.Fatalf("got %v", err)
	}
	if want := fmt.Sprintf("(process %d)", os.Getpid()); lockHolder(filepath.Join(dir, "state.db")) != "" && !strings.Contains(err.Error(), want) {
		t.Errorf("%v does not name process %d", err, os.Getpid())
	}
}

func TestShelf(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	h, other := s.Shelf("journal"), s.Shelf("book")
	if keys, _, err := h.Scan(nil, nil, 0); err != nil || len(keys) != 0 {
		t.Fatalf("empty shelf: %q, %v", keys, err)
	}
	must(t, h.Apply([][]byte{{3}, {1}, {2}, {2, 0}}, [][]byte{[]byte("c"), []byte("a"), {}, []byte("d")}))
	must(t, other.Apply([][]byte{{9}}, [][]byte{{9}}))
	must(t, h.Apply([][]byte{{3}, {4}, {4}}, [][]byte{nil, []byte("e"), []byte("f")}))
	must(t, h.Apply(nil, nil))
	must(t, s.Close())
	h = open(t, dir).Shelf("journal")
	tests := []struct {
		from, to []byte
		limit    int
		want     string
	}{
		{nil, nil, 0, `["\x01" "\x02" "\x02\x00" "\x04"] ["a" "" "d" "f"]`},
		{[]byte{2}, []byte{4}, 0, `["\x02" "\x02\x00"] ["" "d"]`},
		{[]byte{2}, nil, 1, `["\x02"] [""]`},
		{[]byte{5}, nil, 0, `[] []`},
	}
	for _, tt := range tests {
		keys, values, err := h.Scan(tt.from, tt.to, tt.limit)
		if got := fmt.Sprintf("%q %q", keys, values); err != nil || got != tt.want {
			t.Errorf("Scan(%v, %v, %d) = %s, %v; want %s", tt.from, tt.to, tt.limit, got, err, tt.want)
		}
	}
	for name, keys := range map[string][][]byte{"empty": {{}}, "long": {make([]byte, 40000)}, "no value": {{1}, {2}}} {
		if err := h.Apply(keys, [][]byte{{1}}); err == nil {
			t.Errorf("%s key: no error", name)
		}
	}
}

func TestManyWritersAtOnce(t *testing.T) {
	s := open(t, t.TempDir())
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for i := range 16 {
		wg.Go(func() {
			h := s.Shelf(fmt.Sprint("shelf", i%4))
			for j := range 8 {
				errs <- errors.Join(
					h.Apply([][]byte{fmt.Appendf(nil, "%d/%d", i, j)}, [][]byte{{1}}),
					s.Write([][]byte{noise(5000, uint64(i%8*100+j)), noise(50, uint64(i*100+j))}))
				if err := <-errs; err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	total := 0
	for i := range 4 {
		keys, _, err := s.Shelf(fmt.Sprint("shelf", i)).Scan(nil, nil, 0)
		must(t, err)
		total += len(keys)
	}
	if total != 128 {
		t.Errorf("%d of 128 keys", total)
	}
	for i := range 8 {
		for j := range 8 {
			b, err := s.Read(artifact.Sum(noise(5000, uint64(i*100+j))), nil)
			if err != nil || !bytes.Equal(b, noise(5000, uint64(i*100+j))) {
				t.Fatalf("chunk %d/%d: %v", i, j, err)
			}
		}
	}
}

func TestWorksInABubble(t *testing.T) {
	dir, src := t.TempDir(), t.TempDir()
	write(t, src, map[string]string{"a": "1", "d/b": strings.Repeat("x", 100000)})
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(dir, Options{})
		must(t, err)
		ref, err := s.Add(t.Context(), AddOptions{Path: src})
		must(t, err)
		must(t, s.Place(t.Context(), ref.Root, PlaceOptions{Base: dir, Path: "out"}))
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() { must(t, s.Shelf("s").Apply([][]byte{{byte(i)}}, [][]byte{{1}})) })
		}
		wg.Wait()
		must(t, s.Close())
	})
}

func TestBrokenStateIsSetAside(t *testing.T) {
	good := t.TempDir()
	s := open(t, good)
	for i := range 300 { // several pages, so that a cut takes some
		must(t, s.Shelf("x").Apply([][]byte{fmt.Appendf(nil, "%d", i)}, [][]byte{noise(2000, uint64(i))}))
	}
	must(t, s.Write([][]byte{noise(100000, 1)}))
	must(t, s.Close())
	whole, err := os.ReadFile(filepath.Join(good, "state.db"))
	must(t, err)
	used := len(bytes.TrimRight(whole, "\x00"))
	spoil := func(from, to int) []byte {
		b := bytes.Clone(whole)
		copy(b[from:to], bytes.Repeat([]byte{0xa5}, to-from))
		return b
	}
	tests := map[string][]byte{
		"cut in the middle":   whole[:used/2],
		"cut to three pages":  whole[:3*4096],
		"cut to one page":     whole[:4096],
		"cut to 10 bytes":     whole[:10],
		"garbage":             noise(100000, 2),
		"text":                []byte("hello\n"),
		"both heads spoiled":  spoil(0, 8192),
		"all pages spoiled":   spoil(8192, used),
		"pages after the 100": spoil(100*4096, used),
	}
	for name, b := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, os.CopyFS(filepath.Join(dir, "packs"), os.DirFS(filepath.Join(good, "packs"))))
			must(t, os.WriteFile(filepath.Join(dir, "state.db"), b, 0o600))
			must(t, os.WriteFile(filepath.Join(dir, "state.db.broken-1"), nil, 0o600))
			s := open(t, dir)
			if want := filepath.Join(dir, "state.db.broken-2"); s.SetAside() != want {
				t.Fatalf("set aside as %q, want %q", s.SetAside(), want)
			}
			kept, err := os.ReadFile(s.SetAside())
			if err != nil || !bytes.Equal(kept, b) {
				t.Errorf("the broken file was changed: %v", err)
			}
			must(t, s.Shelf("x").Apply([][]byte{{1}}, [][]byte{{1}}))
			must(t, s.Write([][]byte{noise(100000, 1)}))
			must(t, s.Close())
			if s := open(t, dir); s.SetAside() != "" {
				t.Errorf("the fresh file was set aside too")
			}
		})
	}
}

func TestDamagedChunkIsForgottenAndWrittenAgain(t *testing.T) {
	for _, name := range []string{"bit", "cut", "gone"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			a, b := noise(20000, 1), noise(20000, 2)
			must(t, s.Write([][]byte{a, b}))
			pack := filepath.Join(dir, "packs", "00000001.pack")
			raw, err := os.ReadFile(pack)
			must(t, err)
			switch name {
			case "bit":
				raw[30000] ^= 1
				must(t, os.WriteFile(pack, raw, 0o600))
			case "cut":
				must(t, os.Truncate(pack, 30000))
			case "gone":
				must(t, s.Close())
				must(t, os.Remove(pack))
				s = open(t, dir)
			}
			lost := 0
			for _, c := range [][]byte{a, b} {
				got, err := s.Read(artifact.Sum(c), nil)
				if err == nil && !bytes.Equal(got, c) {
					t.Fatal("wrong bytes")
				}
				if errors.Is(err, ErrMissing) {
					lost++
				} else if err != nil {
					t.Fatal(err)
				}
			}
			want := 1
			if name == "gone" {
				want = 2
			}
			missing, err := s.Missing(chunksOf(a, b))
			must(t, err)
			if lost != want || len(missing) != want {
				t.Fatalf("%d lost, %d missing, want %d", lost, len(missing), want)
			}
			must(t, s.Write([][]byte{a, b}))
			for _, c := range [][]byte{a, b} {
				if got, err := s.Read(artifact.Sum(c), nil); err != nil || !bytes.Equal(got, c) {
					t.Fatalf("written again: %v", err)
				}
			}
		})
	}
}

func TestFullStoreTakesNothingHalf(t *testing.T) {
	dir, src := t.TempDir(), t.TempDir()
	s, err := Open(dir, Options{MaxSizeBytes: 1 << 20})
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	must(t, os.WriteFile(filepath.Join(src, "big"), noise(2<<20, 1), 0o644))
	must(t, os.WriteFile(filepath.Join(src, "small"), noise(200<<10, 2), 0o644))
	_, err = s.Add(t.Context(), AddOptions{Path: filepath.Join(src, "big")})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v, want no space", err)
	}
	if roots, err := s.Roots(); err != nil || len(roots) != 0 {
		t.Errorf("roots %v, %v", roots, err)
	}
	value := noise(100<<10, 3)
	for i := 0; err == nil || i == 0; i++ {
		err = s.Shelf("x").Apply([][]byte{{byte(i)}}, [][]byte{value})
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("state.db: got %v, want no space", err)
	}
	for i := range 20 { // room again
		must(t, s.Shelf("x").Apply([][]byte{{byte(i)}}, [][]byte{nil}))
	}
	collect(t, s, nil, 3)
	if _, err := s.Add(t.Context(), AddOptions{Path: filepath.Join(src, "small")}); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// collect runs Collect n times, keeping the given roots.
func collect(t testing.TB, s *Store, keep []artifact.Digest, n int) {
	t.Helper()
	for range n {
		must(t, s.Collect(context.Background(), func(d artifact.Digest) bool {
			for _, k := range keep {
				if k == d {
					return true
				}
			}
			return false
		}))
	}
}

func TestRereadForgetsAllDamageAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, filepath.Join(dir, "data"))
	must(t, os.WriteFile(filepath.Join(dir, "blob"), noise(1<<20, 1), 0o644))
	ref, err := s.Add(t.Context(), AddOptions{Path: filepath.Join(dir, "blob")})
	must(t, err)
	must(t, s.Reread(t.Context(), ref.Root))
	m, err := s.Manifest(ref.Root)
	must(t, err)
	pack := filepath.Join(dir, "data", "packs", "00000001.pack")
	raw, err := os.ReadFile(pack)
	must(t, err)
	chunks := m.Entries[0].Chunks
	for _, c := range chunks {
		b, err := s.Read(c.ID, nil)
		must(t, err)
		raw[bytes.Index(raw, b)] ^= 1
	}
	must(t, os.WriteFile(pack, raw, 0o600))
	if err := s.Reread(t.Context(), ref.Root); !errors.Is(err, ErrMissing) {
		t.Fatalf("reread of damaged bytes: %v", err)
	}
	missing, err := s.Missing(chunks)
	must(t, err)
	if len(missing) != len(chunks) || len(chunks) < 4 {
		t.Errorf("%d of %d damaged chunks are forgotten", len(missing), len(chunks))
	}
}
