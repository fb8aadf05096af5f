package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"meshd/store/artifact"
)

// pull brings root from one store to another in batches, as peers send it, and calls between before each.
func pull(t testing.TB, from, to *Store, root artifact.Digest, between func(n int)) error {
	t.Helper()
	all, err := from.Chunks(root)
	must(t, err)
	missing, err := to.Missing(all)
	must(t, err)
	head, entries, err := from.manifest(root)
	must(t, err)
	to.Known(root, head, entries)
	for n := 0; len(missing) > 0; n++ {
		if between != nil {
			between(n)
		}
		some := missing[:min(len(missing), 7)]
		missing = missing[len(some):]
		chunks := make([]artifact.Summed, len(some))
		for i, c := range some {
			b, err := from.Read(c.ID, nil)
			must(t, err)
			chunks[i] = artifact.SumUp(b)
		}
		b := to.Begin()
		err := errors.Join(b.Write(chunks), b.Commit())
		b.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// spoilPacks makes every byte of every pack wrong, so that whoever reads one finds damage, until mend is called.
func spoilPacks(t testing.TB, s *Store) (mend func()) {
	t.Helper()
	was := map[string][]byte{}
	list, err := filepath.Glob(filepath.Join(s.dir, "packs", "*.pack"))
	must(t, err)
	for _, name := range list {
		b, err := os.ReadFile(name)
		must(t, err)
		was[name] = b
		must(t, os.WriteFile(name, make([]byte, len(b)), 0o600))
	}
	return func() {
		for name, b := range was {
			must(t, os.WriteFile(name, b, 0o600))
		}
	}
}

// sources are a file and a tree of all that a tree may hold, each with a second version.
func sources(t testing.TB) (file, tree string, change func()) {
	file, tree = filepath.Join(t.TempDir(), "file"), t.TempDir()
	body := noise(3<<20, 1)
	must(t, os.WriteFile(file, body, 0o640))
	files := map[string]string{"empty": "", "big": string(body), "twin": string(body), "d/big": string(noise(700000, 2))}
	for i := range 40 {
		files[fmt.Sprintf("d/e/%02d", i)] = string(noise(3000, uint64(i+10)))
	}
	write(t, tree, files)
	must(t, os.Symlink("../big", filepath.Join(tree, "d/link")))
	must(t, os.Chmod(filepath.Join(tree, "d/e/00"), 0o444))
	must(t, os.Chmod(filepath.Join(tree, "d/e"), 0o555))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(tree, "d/e"), 0o755) })
	return file, tree, func() {
		copy(body[1<<20:], noise(100000, 3))
		must(t, os.WriteFile(file, body, 0o640))
		must(t, os.WriteFile(filepath.Join(tree, "big"), body, 0o644))
	}
}

// placedIs compares content, names, modes and links.
func placedIs(t testing.TB, path, source string) {
	t.Helper()
	s := open(t, t.TempDir())
	got, err := s.TreeOf(t.Context(), AddOptions{Path: path})
	must(t, err)
	want, err := s.TreeOf(t.Context(), AddOptions{Path: source})
	must(t, err)
	if got != want {
		t.Errorf("%s holds %s, want %s", path, got.Short(), want.Short())
	}
}

func TestWhatIsStagedIsPlacedWithoutReadingPacks(t *testing.T) {
	t.Parallel()
	file, tree, _ := sources(t)
	for _, source := range []string{file, tree} {
		from, to, out := open(t, t.TempDir()), open(t, t.TempDir()), t.TempDir()
		root := added(t, from, source)
		o := PlaceOptions{Base: out, Path: "sub/doc"}
		cancel := to.Stage(root, o)
		must(t, pull(t, from, to, root, nil))
		mend := spoilPacks(t, to)
		must(t, to.Place(t.Context(), root, o))
		mend()
		placedIs(t, filepath.Join(out, "sub/doc"), source)
		ok, why, err := to.Placed(t.Context(), root, o)
		if err != nil || !ok {
			t.Errorf("Placed says %q, %v", why, err)
		}
		cancel()
		list, err := filepath.Glob(filepath.Join(out, "sub", ".doc.meshd-tmp"))
		if err != nil || len(list) > 0 {
			t.Errorf("left behind: %v, %v", list, err)
		}
	}
}

// What is here of an older version is read from packs, the rest is staged.
func TestANewVersionIsStagedAsFarAsItComes(t *testing.T) {
	t.Parallel()
	file, tree, change := sources(t)
	from, to, out := open(t, t.TempDir()), open(t, t.TempDir()), t.TempDir()
	olds := []artifact.Digest{added(t, from, file), added(t, from, tree)}
	for i, root := range olds {
		must(t, pull(t, from, to, root, nil))
		must(t, to.Place(t.Context(), root, PlaceOptions{Base: out, Path: fmt.Sprint(i)}))
	}
	change()
	for i, source := range []string{file, tree} {
		root := added(t, from, source)
		o := PlaceOptions{Base: out, Path: fmt.Sprint(i)}
		cancel := to.Stage(root, o)
		must(t, pull(t, from, to, root, nil))
		must(t, to.Place(t.Context(), root, o))
		cancel()
		placedIs(t, filepath.Join(out, fmt.Sprint(i)), source)
	}
}

// Whatever becomes of a stage, what is placed is right and nothing stays behind.
func TestAStageThatIsDisturbedCostsReadsAlone(t *testing.T) {
	t.Parallel()
	file, tree, _ := sources(t)
	for _, source := range []string{file, tree} {
		var s *Store
		var out string
		temp := func() string { return filepath.Join(out, ".doc.meshd-tmp") }
		for what, disturb := range map[string]func(n int){
			"removed":  func(int) { must(t, os.RemoveAll(temp())) },
			"replaced": func(int) { must(t, os.RemoveAll(temp())); must(t, os.WriteFile(temp(), []byte("x"), 0o600)) },
			"for room": func(n int) {
				if n == 4 && !s.unstageAll() {
					t.Error("nothing was staged")
				}
			},
			"cancelled": nil,
		} {
			from := open(t, t.TempDir())
			s, out = open(t, t.TempDir()), t.TempDir()
			root := added(t, from, source)
			o := PlaceOptions{Base: out, Path: "doc"}
			cancel := s.Stage(root, o)
			must(t, pull(t, from, s, root, disturb))
			if disturb == nil {
				cancel()
			}
			must(t, s.Place(t.Context(), root, o))
			cancel()
			placedIs(t, filepath.Join(out, "doc"), source)
			if _, err := os.Lstat(temp()); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: %v stays behind: %v", what, temp(), err)
			}
		}
	}
}

// A crash leaves a half-made file and half of the chunks: the rest comes, the place is made anew.
func TestAStageOfACrashIsMadeAnew(t *testing.T) {
	t.Parallel()
	file, tree, _ := sources(t)
	for _, source := range []string{file, tree} {
		from, dir, out := open(t, t.TempDir()), t.TempDir(), t.TempDir()
		root := added(t, from, source)
		o := PlaceOptions{Base: out, Path: "doc"}
		crash := errors.New("crash")
		n := 0
		s, err := Open(dir, Options{Fault: func(step string) error {
			if n++; n > 5 {
				return crash
			}
			return nil
		}})
		must(t, err)
		s.Stage(root, o)
		if err := pull(t, from, s, root, nil); !errors.Is(err, crash) {
			t.Fatalf("pulled: %v", err)
		}
		if _, err := os.Lstat(filepath.Join(out, ".doc.meshd-tmp")); err != nil {
			t.Fatalf("nothing was staged: %v", err)
		}
		must(t, s.Close())
		s = open(t, dir)
		cancel := s.Stage(root, o)
		must(t, pull(t, from, s, root, nil))
		must(t, s.Place(t.Context(), root, o))
		cancel()
		placedIs(t, filepath.Join(out, "doc"), source)
		if _, err := os.Lstat(filepath.Join(out, ".doc.meshd-tmp")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left behind: %v", err)
		}
	}
}

// Where there is no room for both, what is staged gives way to the chunks.
func TestAStageGivesItsRoomToChunks(t *testing.T) {
	t.Parallel()
	file, _, _ := sources(t)
	from, out := open(t, t.TempDir()), t.TempDir()
	root := added(t, from, file)
	s, err := Open(t.TempDir(), Options{MaxPackBytes: 1 << 20})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	defer s.Stage(root, PlaceOptions{Base: out, Path: "doc"})()
	if err := pull(t, from, s, root, nil); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("pulled: %v", err)
	}
	if got := look(t, out); got != "" {
		t.Errorf("what was staged takes room still: %s", got)
	}
}

// Bytes that are not what the path is to hold never get there by way of a stage.
func TestAStageTakesOnlyItsOwnChunks(t *testing.T) {
	t.Parallel()
	file, _, _ := sources(t)
	from, to, out := open(t, t.TempDir()), open(t, t.TempDir()), t.TempDir()
	root := added(t, from, file)
	o := PlaceOptions{Base: out, Path: "doc"}
	defer to.Stage(root, o)()
	other := filepath.Join(t.TempDir(), "other")
	must(t, os.WriteFile(other, []byte(strings.Repeat("another file\n", 200000)), 0o644))
	must(t, pull(t, from, to, root, func(n int) {
		if n == 2 {
			must(t, pull(t, from, to, added(t, from, other), nil))
		}
	}))
	if err := to.Place(t.Context(), root, PlaceOptions{Base: out, Path: "elsewhere"}); err != nil {
		t.Error(err)
	}
	must(t, to.Place(t.Context(), root, o))
	for _, name := range []string{"doc", "elsewhere"} {
		placedIs(t, filepath.Join(out, name), file)
	}
}
