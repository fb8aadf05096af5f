package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"meshd/store/artifact"
)

func added(t testing.TB, s *Store, path string) artifact.Digest {
	t.Helper()
	ref, err := s.Add(t.Context(), AddOptions{Path: path})
	must(t, err)
	return ref.Root
}

// look lists what is below dir, hidden names included.
func look(t testing.TB, dir string) string {
	t.Helper()
	var out []string
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if path != dir {
			out = append(out, path[len(dir)+1:])
		}
		return err
	}))
	return strings.Join(out, " ")
}

func TestPlaceFile(t *testing.T) {
	s, src, out := open(t, t.TempDir()), t.TempDir(), t.TempDir()
	write(t, src, map[string]string{"v1": "one", "v2": "two"})
	v1, v2 := added(t, s, filepath.Join(src, "v1")), added(t, s, filepath.Join(src, "v2"))
	o := PlaceOptions{Base: out, Path: "sub/f"}
	file := filepath.Join(out, "sub/f")
	check := func(root artifact.Digest, want string) {
		t.Helper()
		for range 2 {
			ok, why, err := s.Placed(t.Context(), root, o)
			must(t, err)
			if ok != (want == "") || !strings.Contains(why, want) {
				t.Fatalf("Placed = %v, %q; want %q", ok, why, want)
			}
		}
	}
	check(v1, "missing")
	must(t, s.Place(t.Context(), v1, o))
	check(v1, "")
	check(v2, "other content")
	before, err := os.Stat(file)
	must(t, err)
	must(t, s.Place(t.Context(), v1, o))
	if after, err := os.Stat(file); err != nil || !os.SameFile(before, after) {
		t.Errorf("placed again though it was right: %v", err)
	}
	must(t, s.Place(t.Context(), v2, o))
	check(v2, "")
	must(t, os.WriteFile(file, []byte("tow"), 0o644))
	check(v2, "other content")
	must(t, s.Place(t.Context(), v2, o))
	must(t, os.WriteFile(file, []byte("longer"), 0o644))
	check(v2, "6 bytes")
	must(t, s.Place(t.Context(), v2, o))
	must(t, os.Chmod(file, 0o600))
	check(v2, "mode")
	must(t, os.Remove(file))
	must(t, os.Mkdir(file, 0o755))
	check(v2, "another kind")
	must(t, s.Place(t.Context(), v2, o))
	check(v2, "")
	o.Mode = 0o700
	check(v2, "mode")
	must(t, s.Place(t.Context(), v2, o))
	check(v2, "")
	if got := look(t, out); got != "sub sub/f" {
		t.Errorf("left behind: %s", got)
	}
	must(t, s.Unplace(t.Context(), o))
	must(t, s.Unplace(t.Context(), o))
	if got := look(t, out); got != "sub" {
		t.Errorf("after Unplace: %s", got)
	}
}

func TestPlaceRespectsWhatIsNotOurs(t *testing.T) {
	dir, src, out := t.TempDir(), t.TempDir(), t.TempDir()
	s := open(t, dir)
	write(t, src, map[string]string{"f": "ours", "same": "ours"})
	write(t, out, map[string]string{"f": "theirs", "same": "ours", "d/x": "theirs"})
	root := added(t, s, filepath.Join(src, "f"))
	for _, path := range []string{"f", "d"} {
		o := PlaceOptions{Path: filepath.Join(out, path)}
		if err := s.Place(t.Context(), root, o); err == nil || !strings.Contains(err.Error(), "adopt") {
			t.Errorf("%s: %v", path, err)
		}
		if err := s.Unplace(t.Context(), o); err == nil || !strings.Contains(err.Error(), "did not make it") {
			t.Errorf("Unplace %s: %v", path, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(out, "f")); string(got) != "theirs" || look(t, out) != "d d/x f same" {
		t.Fatalf("changed: %q, %v, %s", got, err, look(t, out))
	}
	must(t, s.Place(t.Context(), root, PlaceOptions{Base: out, Path: "same"})) // nothing to replace
	for _, path := range []string{"f", "d"} {
		must(t, s.Place(t.Context(), root, PlaceOptions{Base: out, Path: path, Adopt: true}))
	}
	must(t, s.Close())
	s = open(t, dir)
	must(t, os.WriteFile(filepath.Join(out, "d"), []byte("damaged"), 0o644))
	must(t, s.Place(t.Context(), root, PlaceOptions{Base: out, Path: "d"})) // still ours after a restart
	if got := look(t, out); got != "d f same" {
		t.Errorf("left behind: %s", got)
	}
}

func TestPlaceTree(t *testing.T) {
	s, src, out := open(t, t.TempDir()), t.TempDir(), t.TempDir()
	write(t, src, map[string]string{"a": "1", "d/b": string(noise(200000, 1)), "d/deep/er/c": "3", "ro/x": "4"})
	must(t, os.Symlink("../a", filepath.Join(src, "d/l")))
	must(t, os.Chmod(filepath.Join(src, "ro"), 0o555))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(src, "ro"), 0o755) })
	v1 := added(t, s, src)
	write(t, src, map[string]string{"a": "2"})
	v2 := added(t, s, src)
	o := PlaceOptions{Base: out, Path: "app"}
	at := func(name string) string { return filepath.Join(out, "app", name) }
	content := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(at("d/l")); err != nil || string(got) != want {
			t.Fatalf("a = %q, %v; want %q", got, err, want)
		}
	}
	why := func(root artifact.Digest) string {
		t.Helper()
		ok, why, err := s.Placed(t.Context(), root, o)
		must(t, err)
		if ok != (why == "") {
			t.Fatalf("Placed = %v, %q", ok, why)
		}
		return why
	}
	must(t, s.Place(t.Context(), v1, o))
	content("1")
	if got := why(v1) + why(v1); got != "" || why(v2) == "" {
		t.Fatalf("placed: %q, other version: %q", got, why(v2))
	}
	must(t, s.Place(t.Context(), v2, o))
	content("2")
	must(t, s.Place(t.Context(), v1, o)) // back is a rename: the folder is still there
	content("1")
	if got, err := os.ReadDir(out); err != nil || len(got) != 3 {
		t.Errorf("%v, %v: want the link and two folders", got, err)
	}
	damage := map[string]func(){
		`"new" is extra`:              func() { write(t, at(""), map[string]string{"new": "x"}) },
		`"d/b" is missing`:            func() { must(t, os.Remove(at("d/b"))) },
		`"d/b" has other content`:     func() { must(t, os.WriteFile(at("d/b"), noise(200000, 2), 0o644)) },
		`"a" has mode`:                func() { must(t, os.Chmod(at("a"), 0o600)) },
		`"d/l" leads to`:              func() { must(t, os.Remove(at("d/l"))); must(t, os.Symlink("b", at("d/l"))) },
		`"d/deep" is of another kind`: func() { must(t, os.RemoveAll(at("d/deep"))); write(t, at(""), map[string]string{"d/deep": "x"}) },
		`pipe`:                        func() { must(t, syscall.Mkfifo(at("pipe"), 0o600)) },
		`is extra`:                    func() { write(t, at(""), map[string]string{".a.meshd-tmp": "x"}) },
		`something else`: func() {
			must(t, os.Remove(filepath.Join(out, "app")))
			must(t, os.Symlink("nowhere", filepath.Join(out, "app")))
		},
		`it is missing`: func() { must(t, os.Remove(filepath.Join(out, "app"))) },
	}
	for says, spoil := range damage {
		spoil()
		if got := why(v1); !strings.Contains(got, says) {
			t.Errorf("damage told as %q, want %q", got, says)
		}
		must(t, s.Place(t.Context(), v1, o))
		content("1")
		if got := why(v1); got != "" {
			t.Errorf("after repair of %q: %s", says, got)
		}
	}
	if _, err := s.Add(t.Context(), AddOptions{Path: out}); err != nil {
		t.Errorf("publish what holds a placed tree: %v", err)
	}
	tree, err := s.TreeOf(t.Context(), AddOptions{Base: out, Paths: []string{"app"}})
	must(t, err)
	write(t, src, map[string]string{"a": "1"})
	if want, err := s.TreeOf(t.Context(), AddOptions{Base: filepath.Dir(src), Paths: []string{filepath.Base(src)}}); err != nil || want == tree {
		t.Errorf("trees of other names are equal: %v", err)
	}
	if err := s.Place(t.Context(), v1, PlaceOptions{Base: out, Path: "m", Mode: 0o600}); err == nil {
		t.Error("a mode for a tree was taken")
	}
	file := filepath.Join(src, "a")
	must(t, s.Place(t.Context(), added(t, s, file), o)) // a file in place of a tree
	must(t, s.Unplace(t.Context(), o))
	if got := look(t, out); got != "" {
		t.Errorf("left behind: %s", got)
	}
}

func TestPlaceStaysBelowItsBase(t *testing.T) {
	s, src, out, outside := open(t, t.TempDir()), t.TempDir(), t.TempDir(), t.TempDir()
	write(t, src, map[string]string{"f": "x"})
	root := added(t, s, filepath.Join(src, "f"))
	must(t, os.Symlink(outside, filepath.Join(out, "l")))
	for _, o := range []PlaceOptions{
		{Base: out, Path: "../x"},
		{Base: out, Path: "/x"},
		{Base: out, Path: "."},
		{Base: out, Path: ""},
		{Base: out, Path: "a/../../x"},
		{Base: "rel", Path: "x"},
		{Path: "x"},
		{Path: "/"},
		{Base: out, Path: "l/x"},
		{Base: out, Path: "l/d/x"},
		{Base: out, Path: ".x.meshd-tmp"},
		{Base: out, Path: "x", Mode: 0o4755},
		{Base: out, Path: "x", Mode: os.ModeSetuid},
	} {
		if err := s.Place(t.Context(), root, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
	if look(t, outside) != "" {
		t.Errorf("outside: %s", look(t, outside))
	}
}

// A folder swapped for a link to the outside, again and again, while trees are placed in it.
func TestPlaceNeverWritesOutside(t *testing.T) {
	s, src, out, outside := open(t, t.TempDir()), t.TempDir(), t.TempDir(), t.TempDir()
	write(t, src, map[string]string{"d/f": "x", "g": "y"})
	root := added(t, s, src)
	must(t, os.Mkdir(filepath.Join(out, "p"), 0o755))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	swaps := 0
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Rename(filepath.Join(out, "p"), filepath.Join(out, "q"))
			_ = os.Symlink(outside, filepath.Join(out, "p"))
			_ = os.Remove(filepath.Join(out, "p"))
			_ = os.Rename(filepath.Join(out, "q"), filepath.Join(out, "p"))
			swaps++
		}
	})
	good := 0
	for i := range 60 {
		if s.Place(t.Context(), root, PlaceOptions{Base: out, Path: fmt.Sprint("p/t", i)}) == nil {
			good++
		}
	}
	close(stop)
	wg.Wait()
	t.Logf("%d swaps, %d of 60 placed", swaps, good)
	if look(t, outside) != "" {
		t.Errorf("outside: %s", look(t, outside))
	}
}

func TestPlaceOfDamagedBytes(t *testing.T) {
	dir, src, out := t.TempDir(), t.TempDir(), t.TempDir()
	s := open(t, dir)
	write(t, src, map[string]string{"f": string(noise(100000, 1)), "g": "x"})
	root := added(t, s, src)
	pack := filepath.Join(dir, "packs", "00000001.pack")
	raw, err := os.ReadFile(pack)
	must(t, err)
	raw[50000] ^= 1
	must(t, os.WriteFile(pack, raw, 0o600))
	if err := s.Place(t.Context(), root, PlaceOptions{Base: out, Path: "app"}); !errors.Is(err, ErrMissing) {
		t.Fatalf("got %v", err)
	}
	if got := look(t, out); got != "" {
		t.Errorf("left behind: %s", got)
	}
	if has, err := s.Has(root); err != nil || has {
		t.Errorf("Has = %v, %v", has, err)
	}
	s.seen.drop(filepath.Join(src, "f"))
	added(t, s, src)
	must(t, s.Place(t.Context(), root, PlaceOptions{Base: out, Path: "app"}))
}

func BenchmarkPlace256MiB(b *testing.B) {
	s, src, out := open(b, b.TempDir()), b.TempDir(), b.TempDir()
	f, err := os.Create(filepath.Join(src, "big"))
	must(b, err)
	for i := range 32 {
		_, err := f.Write(noise(8<<20, uint64(i)))
		must(b, err)
	}
	must(b, f.Close())
	root := added(b, s, f.Name())
	b.SetBytes(256 << 20)
	for b.Loop() {
		must(b, s.Place(b.Context(), root, PlaceOptions{Base: out, Path: "big"}))
		b.StopTimer()
		must(b, s.Unplace(b.Context(), PlaceOptions{Base: out, Path: "big"}))
		b.StartTimer()
	}
}

func BenchmarkPlace10000(b *testing.B) {
	s, src, out := open(b, b.TempDir()), b.TempDir(), b.TempDir()
	for i := range 10000 {
		write(b, src, map[string]string{fmt.Sprintf("%02d/%05d", i%100, i): string(noise(4096, uint64(i)))})
	}
	root := added(b, s, src)
	o := PlaceOptions{Base: out, Path: "tree"}
	b.Run("place", func(b *testing.B) {
		for b.Loop() {
			must(b, s.Place(b.Context(), root, o))
			b.StopTimer()
			must(b, s.Unplace(b.Context(), o))
			b.StartTimer()
		}
	})
	must(b, s.Place(b.Context(), root, o))
	b.Run("placed", func(b *testing.B) {
		for b.Loop() {
			if ok, why, err := s.Placed(b.Context(), root, o); !ok || err != nil {
				b.Fatal(why, err)
			}
		}
	})
}

func BenchmarkPlaced1000Files(b *testing.B) {
	s, src, out := open(b, b.TempDir()), b.TempDir(), b.TempDir()
	var roots []artifact.Digest
	for i := range 1000 {
		name := filepath.Join(src, fmt.Sprint(i))
		must(b, os.WriteFile(name, noise(1000, uint64(i)), 0o644))
		roots = append(roots, added(b, s, name))
		must(b, s.Place(b.Context(), roots[i], PlaceOptions{Base: out, Path: fmt.Sprint(i)}))
	}
	for b.Loop() {
		for i, root := range roots {
			if ok, why, err := s.Placed(b.Context(), root, PlaceOptions{Base: out, Path: fmt.Sprint(i)}); !ok || err != nil {
				b.Fatal(why, err)
			}
		}
	}
}
