package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"meshd/store/artifact"
)

func TestCollect(t *testing.T) {
	dir, src := t.TempDir(), t.TempDir()
	s := open(t, dir)
	shared := string(noise(400<<10, 99))
	var refs []artifact.Ref
	for i := range 12 {
		write(t, src, map[string]string{"own": string(noise(8<<20, uint64(i))), "shared": shared, "s": fmt.Sprint(i)})
		ref, err := s.Add(t.Context(), AddOptions{Path: src})
		must(t, err)
		refs = append(refs, ref)
	}
	part := noise(70000, 1234) // of an artifact that is being fetched, or of none
	must(t, s.Write([][]byte{part}))
	full := s.packs.sizeLocked()
	keep := []artifact.Digest{refs[3].Root, refs[11].Root}
	collect(t, s, keep, 1)
	if has, err := s.Has(refs[0].Root); err != nil || !has {
		t.Errorf("an artifact went with the first call after it was made: %v", err)
	}
	collect(t, s, keep, 2)
	for i, ref := range refs {
		has, err := s.Has(ref.Root)
		must(t, err)
		if want := i == 3 || i == 11; has != want {
			t.Errorf("artifact %d: has %v, want %v", i, has, want)
		}
	}
	if missing, err := s.Missing(chunksOf(part)); err != nil || len(missing) != 1 {
		t.Errorf("a chunk of nothing is still there: %v", err)
	}
	if now := s.packs.sizeLocked(); now > 40<<20 {
		t.Errorf("packs hold %d bytes for about 17 MB, %d before", now, full)
	}
	check := func(s *Store) {
		t.Helper()
		for _, root := range keep {
			must(t, s.Place(t.Context(), root, PlaceOptions{Base: t.TempDir(), Path: "x"}))
		}
		var onDisk int64
		list, err := os.ReadDir(filepath.Join(dir, "packs"))
		must(t, err)
		for _, f := range list {
			info, err := f.Info()
			must(t, err)
			onDisk += info.Size()
		}
		if onDisk != s.packs.sizeLocked() {
			t.Errorf("%d bytes on disk, %d known", onDisk, s.packs.sizeLocked())
		}
	}
	check(s)
	must(t, s.Close())
	check(open(t, dir))
}

func TestCollectSparesWhatIsExpected(t *testing.T) {
	a, b, src := open(t, t.TempDir()), open(t, t.TempDir()), t.TempDir()
	write(t, src, map[string]string{"x": string(noise(300000, 1))})
	root := added(t, a, src)
	tee(t, a, b, root)
	keep := []artifact.Digest{root}
	collect(t, b, keep, 4)
	if has, err := b.Has(root); err != nil || !has {
		t.Errorf("what was expected is gone: %v", err)
	}
	collect(t, b, nil, 3)
	if has, err := b.Has(root); err != nil || has {
		t.Errorf("what nobody keeps is still there: %v", err)
	}
}

// Artifacts are added, and old chunks used again, while Collect runs all the time and keeps nothing old.
func TestCollectBesideAdd(t *testing.T) {
	s, src := open(t, t.TempDir()), t.TempDir()
	for i := range 4 {
		must(t, os.WriteFile(filepath.Join(src, fmt.Sprint(i)), noise(600<<10, uint64(i)), 0o644))
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := s.Collect(t.Context(), func(artifact.Digest) bool { return false }); err != nil {
				done <- err
				return
			}
		}
	}()
	for i := range 24 {
		w := s.newWriter() // what a longer call of Add would be: nothing of its time may go
		ref, err := s.Add(t.Context(), AddOptions{Path: filepath.Join(src, fmt.Sprint(i%4))})
		must(t, err)
		if has, err := s.Has(ref.Root); err != nil || !has {
			t.Fatalf("round %d: not whole: %v", i, err)
		}
		must(t, s.Place(t.Context(), ref.Root, PlaceOptions{Base: src, Path: "out"}))
		w.close()
	}
	close(stop)
	must(t, <-done)
}

var errFault = errors.New("fault")

// Every step of Write and Add fails once, without and with its work done; the store is then opened anew.
// What was acknowledged is there, what was not is whole or absent, and trying again works.
func TestFaultsAtEveryStep(t *testing.T) {
	for _, step := range []string{"append", "before commit", "after commit"} {
		for nth := 1; nth <= 2; nth++ {
			t.Run(fmt.Sprint(step, nth), func(t *testing.T) {
				dir, src := t.TempDir(), t.TempDir()
				s := open(t, dir)
				acked := [][]byte{noise(100000, 1), noise(100, 2)}
				must(t, s.Write(acked))
				write(t, src, map[string]string{"big": string(noise(1<<20+5, 3)), "small": "x"})
				count := 0
				s.options.Fault = func(name string) error {
					if name != step {
						return nil
					}
					if count++; count == nth {
						return errFault
					}
					return nil
				}
				ref, err := s.Add(t.Context(), AddOptions{Path: src})
				if step == "append" || nth == 1 {
					if !errors.Is(err, errFault) {
						t.Fatalf("Add = %v, want the fault", err)
					}
				}
				must(t, s.Close())
				s = open(t, dir)
				if missing, err := s.Missing(chunksOf(acked...)); err != nil || len(missing) != 0 {
					t.Fatalf("acknowledged chunks are gone: %v, %v", missing, err)
				}
				roots, err := s.Roots()
				must(t, err)
				for _, root := range roots {
					if has, err := s.Has(root); err != nil || !has {
						t.Fatalf("half an artifact: %v", err)
					}
				}
				again, err := s.Add(t.Context(), AddOptions{Path: src})
				must(t, err)
				if ref.Root != again.Root && !ref.Root.IsZero() {
					t.Errorf("another root the second time")
				}
				must(t, s.Place(t.Context(), again.Root, PlaceOptions{Base: t.TempDir(), Path: "x"}))
			})
		}
	}
}

// A change to a shelf that fails is applied wholly or not at all, and may be made again.
func TestFaultsOfApply(t *testing.T) {
	for step, want := range map[string]int{"before commit": 0, "after commit": 2} {
		dir := t.TempDir()
		s := open(t, dir)
		s.options.Fault = func(name string) error {
			if name == step {
				return errFault
			}
			return nil
		}
		keys := [][]byte{{1}, {2}}
		if err := s.Shelf("x").Apply(keys, keys); !errors.Is(err, errFault) {
			t.Fatalf("%s: %v", step, err)
		}
		must(t, s.Close())
		h := open(t, dir).Shelf("x")
		if got, _, err := h.Scan(nil, nil, 0); err != nil || len(got) != want {
			t.Errorf("%s: %d keys, %v; want %d", step, len(got), err, want)
		}
		must(t, h.Apply(keys, keys))
		if got, _, err := h.Scan(nil, nil, 0); err != nil || len(got) != 2 {
			t.Errorf("%s, again: %d keys, %v", step, len(got), err)
		}
	}
}

// The folder is copied between the steps of a random run, sometimes with bytes behind the packs that no
// row knows, as a kill leaves it. Every copy opens, and holds all that was acknowledged before it.
func TestKilledAtAnyPoint(t *testing.T) {
	for seed := range uint64(2) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		dir, src := t.TempDir(), t.TempDir()
		s := open(t, dir)
		type state struct {
			dir    string
			chunks [][]byte
			roots  []artifact.Digest
			keys   int
		}
		var acked state
		var copies []state
		snapshot := func() {
			c := state{filepath.Join(t.TempDir(), "copy"), slices.Clone(acked.chunks), slices.Clone(acked.roots), acked.keys}
			must(t, os.CopyFS(c.dir, os.DirFS(dir)))
			packs, err := filepath.Glob(filepath.Join(c.dir, "packs", "*.pack"))
			must(t, err)
			if len(packs) > 0 && rnd.IntN(2) == 0 {
				f, err := os.OpenFile(packs[len(packs)-1], os.O_APPEND|os.O_WRONLY, 0)
				must(t, err)
				_, err = f.Write(noise(rnd.IntN(100000), seed))
				must(t, errors.Join(err, f.Close()))
			}
			must(t, os.WriteFile(filepath.Join(c.dir, "packs", "00000777.pack"), []byte("unknown"), 0o600))
			copies = append(copies, c)
		}
		s.options.Fault = func(string) error {
			if rnd.IntN(6) == 0 {
				snapshot()
			}
			return nil
		}
		for i := range 20 {
			switch rnd.IntN(3) {
			case 0:
				c := noise(1+rnd.IntN(100000), rnd.Uint64())
				must(t, s.Write([][]byte{c}))
				acked.chunks = append(acked.chunks, c)
			case 1:
				must(t, os.WriteFile(filepath.Join(src, "f"), noise(rnd.IntN(1<<20), rnd.Uint64()), 0o644))
				acked.roots = append(acked.roots, added(t, s, src))
			case 2:
				must(t, s.Shelf("j").Apply([][]byte{{byte(i)}}, [][]byte{noise(100, seed)}))
				acked.keys++
			}
		}
		snapshot()
		for i, c := range copies {
			s := open(t, c.dir)
			if s.SetAside() != "" {
				t.Fatalf("seed %d copy %d: set aside", seed, i)
			}
			keys, _, err := s.Shelf("j").Scan(nil, nil, 0)
			if err != nil || len(keys) < c.keys {
				t.Errorf("seed %d copy %d: %d keys of %d, %v", seed, i, len(keys), c.keys, err)
			}
			for _, b := range c.chunks {
				if got, err := s.Read(artifact.Sum(b), nil); err != nil || !bytes.Equal(got, b) {
					t.Errorf("seed %d copy %d: chunk: %v", seed, i, err)
				}
			}
			for _, root := range c.roots {
				must(t, s.Place(t.Context(), root, PlaceOptions{Base: t.TempDir(), Path: "x"}))
			}
			if _, err := os.Stat(filepath.Join(c.dir, "packs", "00000777.pack")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("an unknown pack stays: %v", err)
			}
			must(t, s.Write([][]byte{noise(70000, seed)}))
			must(t, s.Close())
		}
	}
}
