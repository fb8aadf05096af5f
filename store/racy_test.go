package store

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What somebody writes in the very tick of the clock in which a file was written, placed or read leaves its stat as it
// was, or as it is first seen: it is found all the same.
func TestWhatChangesInTheSameTickIsSeen(t *testing.T) {
	t.Parallel()
	const times = 20
	right, wrong := []byte("as promised\n"), []byte("by a vandal\n")
	trees := map[string]func(dir string) (source, file string){
		"file": func(dir string) (string, string) { return filepath.Join(dir, "f"), "" },
		"tree": func(dir string) (string, string) { return dir, "f" },
	}
	for name, tree := range trees {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, out := open(t, t.TempDir()), t.TempDir()
			dir := t.TempDir()
			source, file := tree(dir)
			must(t, os.WriteFile(filepath.Join(dir, "f"), right, 0o644))
			root := added(t, s, source)
			o := PlaceOptions{Base: out, Path: "there"}
			path := filepath.Join(out, "there", file)
			placed := func(want bool, what string) {
				t.Helper()
				if ok, why, err := s.Placed(t.Context(), root, o); err != nil || ok != want {
					t.Fatalf("%s: Placed says %v %q, %v", what, ok, why, err)
				}
			}
			for range times {
				must(t, s.Place(t.Context(), root, o))
				must(t, os.WriteFile(path, wrong, 0o644))
				placed(false, "written right after it was placed")
				must(t, os.WriteFile(path, right, 0o644))
				placed(true, "written as it was")
				must(t, os.WriteFile(path, wrong, 0o644))
				placed(false, "written right after it was read")
				must(t, os.WriteFile(filepath.Join(dir, "f"), right, 0o644))
				if added(t, s, source) != root {
					t.Fatal("equal content has another root")
				}
				must(t, os.WriteFile(filepath.Join(dir, "f"), wrong, 0o644))
				if added(t, s, source) == root {
					t.Fatal("written right after it was added, and not seen")
				}
			}
		})
	}
}

// Somebody waits for the file and writes to it at once, before the one who placed it has looked at it.
func TestAFileWrittenBeforePlaceReturnsIsSeen(t *testing.T) {
	t.Parallel()
	s, out := open(t, t.TempDir()), t.TempDir()
	src, path := filepath.Join(t.TempDir(), "f"), filepath.Join(out, "f")
	must(t, os.WriteFile(src, []byte("as promised\n"), 0o644))
	root := added(t, s, src)
	o := PlaceOptions{Base: out, Path: "f"}
	for range 20 {
		_ = os.Remove(path) // the first time it is not there
		done := make(chan error)
		go func() {
			for {
				f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
				if err != nil {
					continue // not there yet
				}
				_, err = f.WriteString("vandals were here\n")
				_ = f.Close()
				done <- err
				return
			}
		}()
		err := s.Place(t.Context(), root, o)
		must(t, <-done)
		must(t, err)
		if ok, _, err := s.Placed(t.Context(), root, o); err != nil || ok {
			t.Fatalf("it is damaged, and Placed says %v, %v", ok, err)
		}
	}
}

func TestAStatIsTrustedOnlyWhereALaterWriteWouldChangeIt(t *testing.T) {
	t.Parallel()
	now := time.Now()
	at := func(mtime, ctime time.Duration) fileStat {
		return fileStat{1, 2, now.Add(mtime).UnixNano(), now.Add(ctime).UnixNano()}
	}
	for name, tt := range map[string]struct {
		stat fileStat
		want bool
	}{
		"written long ago":                   {at(-time.Hour, -time.Hour), true},
		"written a second ago":               {at(-time.Second, -time.Second), true},
		"written just now":                   {at(0, 0), false},
		"written just now, with an old time": {at(-time.Hour, 0), false},
		"from the future":                    {at(time.Hour, time.Hour), true},
	} {
		var seen seenFiles
		seen.put("f", tt.stat, nil)
		if got := seen.holds("f", tt.stat, nil); got != tt.want {
			t.Errorf("%s: trusted %v, want %v", name, got, tt.want)
		}
	}
	left := at(-time.Second, -time.Second)
	renamed, written := at(-time.Second, 0), at(0, 0)
	if !renamed.isRenamed(left) || written.isRenamed(left) {
		t.Error("a file that was only renamed looks as it did, but for ctime")
	}
}
