package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

func names(entries []artifact.Entry) string {
	var out []string
	for _, e := range entries {
		name := e.Name
		switch e.Kind {
		case artifact.Dir:
			name += "/"
		case artifact.Symlink:
			name += "->" + e.Link
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

func TestAdd(t *testing.T) {
	src := t.TempDir()
	write(t, src, map[string]string{
		"one.txt": "1", "empty": "", "d/two.txt": "22", "d/e/three": strings.Repeat("3", 300000), "d/.three.meshd-tmp": "half",
	})
	must(t, os.Mkdir(filepath.Join(src, "bare"), 0o750))
	must(t, os.Symlink(".//d/./e/", filepath.Join(src, "link")))
	must(t, os.Symlink("../one.txt", filepath.Join(src, "d/up")))
	must(t, os.Symlink(src, filepath.Join(t.TempDir(), "src")))
	s := open(t, t.TempDir())
	tests := []struct {
		name string
		o    AddOptions
		want string
		size int64
	}{
		{"file", AddOptions{Path: filepath.Join(src, "one.txt")}, "", 1},
		{"empty file", AddOptions{Path: filepath.Join(src, "empty")}, "", 0},
		{"file by a link", AddOptions{Path: filepath.Join(src, "d/up")}, "", 1},
		{"folder", AddOptions{Path: src}, "bare/ d/ d/e/ d/e/three d/two.txt d/up->../one.txt empty link->d/e one.txt", 300003},
		{"empty folder", AddOptions{Path: filepath.Join(src, "bare")}, "", 0},
		{"paths", AddOptions{Base: src, Paths: []string{"one.txt", "d/two.txt"}}, "d/ d/two.txt one.txt", 3},
		{"folder in paths", AddOptions{Base: src, Paths: []string{"d/e", "d/e/three"}}, "d/ d/e/ d/e/three", 300000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := tt.o
			o.Of = []artifact.Input{{Name: "in", Version: artifact.Version{Counter: 1}, Tree: artifact.Sum(nil)}}
			o.Origin = artifact.Origin{Node: id.Node{1}, Entry: 2, Text: "because"}
			o.Meta = map[string]string{"k": "v"}
			tree, err := s.TreeOf(t.Context(), o)
			must(t, err)
			for range 2 { // the second time nothing is read
				ref, err := s.Add(t.Context(), o)
				must(t, err)
				if ref.Tree != tree || ref.SizeBytes != tt.size {
					t.Errorf("ref %+v; TreeOf %s, want %d bytes", ref, tree, tt.size)
				}
				m, err := s.Manifest(ref.Root)
				must(t, err)
				if got := names(m.Entries); got != tt.want {
					t.Errorf("entries %s, want %s", got, tt.want)
				}
				if m.Origin != o.Origin || m.Meta["k"] != "v" || len(m.Of) != 1 || m.Of[0] != o.Of[0] {
					t.Errorf("manifest %+v", m)
				}
				if has, err := s.Has(ref.Root); err != nil || !has {
					t.Errorf("Has = %v, %v", has, err)
				}
				chunks, err := s.Chunks(ref.Root)
				must(t, err)
				if chunks[0].ID != ref.Root {
					t.Errorf("chunks %v do not begin with the root block", chunks)
				}
			}
		})
	}
	if roots, err := s.Roots(); err != nil || len(roots) != len(tests)-1 { // "file" and "file by a link" are one
		t.Errorf("%d roots, %v", len(roots), err)
	}
}

func TestAddRefusesByName(t *testing.T) {
	s := open(t, t.TempDir())
	mk := func(f func(dir string)) string {
		dir := t.TempDir()
		f(dir)
		return dir
	}
	sub := func(dir, name string) string { return filepath.Join(dir, name) }
	tests := []struct {
		name, says string
		o          AddOptions
	}{
		{"fifo", "pipe", AddOptions{Path: mk(func(d string) { must(t, syscall.Mkfifo(sub(d, "pipe"), 0o600)) })}},
		{"fifo alone", "pipe", AddOptions{Path: sub(mk(func(d string) { must(t, syscall.Mkfifo(sub(d, "pipe"), 0o600)) }), "pipe")}},
		{"setuid", "suid", AddOptions{Path: mk(func(d string) {
			write(t, d, map[string]string{"suid": "x"})
			must(t, os.Chmod(sub(d, "suid"), 0o755|os.ModeSetuid))
		})}},
		{"link out", "out", AddOptions{Path: mk(func(d string) { must(t, os.Symlink("../..", sub(d, "out"))) })}},
		{"absolute link", "abs", AddOptions{Path: mk(func(d string) { must(t, os.Symlink("/etc", sub(d, "abs"))) })}},
		{"case clash", "README", AddOptions{Path: mk(func(d string) { write(t, d, map[string]string{"README": "x", "readme": "x"}) })}},
		{"relative", "absolute path", AddOptions{Path: "here"}},
		{"nothing", "a path or a base", AddOptions{}},
		{"missing", "no such file", AddOptions{Path: "/nowhere/at/all"}},
		{"device", "null", AddOptions{Path: "/dev/null"}},
		{"path leaves base", "../x", AddOptions{Base: t.TempDir(), Paths: []string{"../x"}}},
		{"path through a link", "no folder", AddOptions{Base: mk(func(d string) {
			write(t, d, map[string]string{"d/x": "1"})
			must(t, os.Symlink("d", sub(d, "l")))
		}), Paths: []string{"l/x"}}},
		{"long origin", "origin text", AddOptions{Path: mk(func(string) {}), Origin: artifact.Origin{Text: strings.Repeat("x", 201)}}},
	}
	for _, tt := range tests {
		if _, err := s.Add(t.Context(), tt.o); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v does not say %q", tt.name, err, tt.says)
		}
	}
	if roots, err := s.Roots(); err != nil || len(roots) != 0 {
		t.Errorf("roots %v, %v", roots, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Add(ctx, AddOptions{Path: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: %v", err)
	}
}

func TestAddWritesOnlyWhatIsNew(t *testing.T) {
	dir, src := t.TempDir(), t.TempDir()
	s := open(t, dir)
	big := noise(8<<20, 1)
	file := filepath.Join(src, "big")
	must(t, os.WriteFile(file, big, 0o644))
	first, err := s.Add(t.Context(), AddOptions{Path: src})
	must(t, err)
	before := s.packs.sizeLocked()
	must(t, os.WriteFile(file, append(noise(4096, 2), big...), 0o644))
	second, err := s.Add(t.Context(), AddOptions{Path: src})
	must(t, err)
	if first.Tree == second.Tree {
		t.Fatal("the change was not seen")
	}
	if grown := s.packs.sizeLocked() - before; grown > 400<<10 {
		t.Errorf("4 KiB in front of 8 MiB wrote %d bytes", grown)
	}
	before = s.packs.sizeLocked()
	must(t, os.WriteFile(filepath.Join(src, "twice"), bytes.Repeat(noise(artifact.MaxChunk, 3), 4), 0o644))
	_, err = s.Add(t.Context(), AddOptions{Path: src})
	must(t, err)
	if grown := s.packs.sizeLocked() - before; grown > 2<<20 {
		t.Errorf("1 MiB of repeats wrote %d bytes", grown)
	}
}

func TestTreeOfSeesEveryChange(t *testing.T) {
	s, src := open(t, t.TempDir()), t.TempDir()
	write(t, src, map[string]string{"a": "1", "b": "2"})
	o := AddOptions{Path: src}
	seen := map[artifact.Digest]string{}
	look := func(what string) {
		t.Helper()
		tree, err := s.TreeOf(t.Context(), o)
		must(t, err)
		if before, ok := seen[tree]; ok {
			t.Errorf("%s: same tree as after %s", what, before)
		}
		seen[tree] = what
	}
	look("begin")
	write(t, src, map[string]string{"a": "3"})
	look("content of equal size")
	must(t, os.Chmod(filepath.Join(src, "a"), 0o600))
	look("mode")
	must(t, os.Rename(filepath.Join(src, "a"), filepath.Join(src, "c")))
	look("name")
	must(t, os.Remove(filepath.Join(src, "b")))
	look("removal")
	if roots, err := s.Roots(); err != nil || len(roots) != 0 {
		t.Errorf("TreeOf wrote: %v, %v", roots, err)
	}
}

// tee reads an artifact as a swarm would: chunk by chunk from one store to another.
func tee(t testing.TB, from, to *Store, root artifact.Digest) {
	t.Helper()
	must(t, to.Expect(root)())
	chunks, err := from.Chunks(root)
	must(t, err)
	missing, err := to.Missing(chunks)
	must(t, err)
	for _, c := range missing {
		b, err := from.Read(c.ID, nil)
		must(t, err)
		must(t, to.Write([][]byte{b}))
	}
}

func TestHasNeedsEveryByte(t *testing.T) {
	a, b, src := open(t, t.TempDir()), open(t, t.TempDir()), t.TempDir()
	write(t, src, map[string]string{"x": string(noise(300000, 1)), "y": "small"})
	ref, err := a.Add(t.Context(), AddOptions{Path: src})
	must(t, err)
	chunks, err := a.Chunks(ref.Root)
	must(t, err)
	must(t, b.Expect(ref.Root)())
	for _, c := range chunks {
		if has, err := b.Has(ref.Root); err != nil || has {
			t.Fatalf("Has before the last chunk: %v, %v", has, err)
		}
		if roots, err := b.Roots(); err != nil || len(roots) != 0 {
			t.Fatalf("listed before it is whole: %v, %v", roots, err)
		}
		bytes, err := a.Read(c.ID, nil)
		must(t, err)
		must(t, b.Write([][]byte{bytes}))
	}
	if has, err := b.Has(ref.Root); err != nil || !has {
		t.Fatalf("Has = %v, %v", has, err)
	}
	if roots, err := b.Roots(); err != nil || len(roots) != 1 {
		t.Errorf("roots %v, %v", roots, err)
	}
	must(t, os.Truncate(filepath.Join(b.dir, "packs", "00000001.pack"), 100))
	for _, c := range chunks {
		_, _ = b.Read(c.ID, nil) // finds the damage
	}
	if has, err := b.Has(ref.Root); err != nil || has {
		t.Errorf("Has of a damaged artifact = %v, %v", has, err)
	}
	tee(t, a, b, ref.Root)
	if has, err := b.Has(ref.Root); err != nil || !has {
		t.Errorf("Has after fetching again = %v, %v", has, err)
	}
}

func BenchmarkAdd256MiB(b *testing.B) {
	src := b.TempDir()
	f, err := os.Create(filepath.Join(src, "big"))
	must(b, err)
	for i := range 32 {
		_, err := f.Write(noise(8<<20, uint64(i)))
		must(b, err)
	}
	must(b, f.Close())
	b.SetBytes(256 << 20)
	var before, after syscall.Rusage
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &before))
	n := 0
	for b.Loop() {
		b.StopTimer()
		s, err := Open(filepath.Join(b.TempDir(), fmt.Sprint(n)), Options{})
		must(b, err)
		b.StartTimer()
		_, err = s.Add(b.Context(), AddOptions{Path: src})
		must(b, err)
		b.StopTimer()
		must(b, s.Close())
		must(b, os.RemoveAll(s.dir))
		b.StartTimer()
		n++
	}
	must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &after))
	cpu := after.Utime.Nano() - before.Utime.Nano() + after.Stime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(cpu)/1e9/float64(n), "cpu-s/op")
}

func BenchmarkAdd10000Small(b *testing.B) {
	src := b.TempDir()
	for i := range 10000 {
		must(b, os.WriteFile(filepath.Join(src, fmt.Sprintf("%05d", i)), noise(4096, uint64(i)), 0o644))
	}
	n := 0
	for b.Loop() {
		s, err := Open(filepath.Join(b.TempDir(), fmt.Sprint(n)), Options{})
		must(b, err)
		_, err = s.Add(b.Context(), AddOptions{Path: src})
		must(b, err)
		must(b, s.Close())
		info, err := os.Stat(filepath.Join(s.dir, "state.db"))
		must(b, err)
		b.ReportMetric(float64(info.Size()), "state.db-bytes")
		must(b, os.RemoveAll(s.dir))
		n++
	}
}

func BenchmarkAdd10KiB(b *testing.B) {
	src := filepath.Join(b.TempDir(), "f")
	s := open(b, b.TempDir())
	n := uint64(0)
	for b.Loop() {
		must(b, os.WriteFile(src, noise(10<<10, n), 0o644))
		_, err := s.Add(b.Context(), AddOptions{Path: src})
		must(b, err)
		n++
	}
}

func BenchmarkHashOnly256MiB(b *testing.B) {
	in := noise(8<<20, 1)
	b.SetBytes(256 << 20)
	for b.Loop() {
		for range 32 {
			must(b, artifact.Split(bytes.NewReader(in), func(c []byte) error {
				if artifact.Sum(c).IsZero() {
					return io.ErrNoProgress
				}
				return nil
			}))
		}
	}
}
