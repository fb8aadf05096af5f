package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"meshd/store/artifact"
)

// What lies untouched where it was placed is found so without its manifest being read, and nothing else is.
func TestAnUntouchedFileIsKnownByItsStat(t *testing.T) {
	t.Parallel()
	src, out := filepath.Join(t.TempDir(), "f"), t.TempDir()
	must(t, os.WriteFile(src, noise(1<<20, 4), 0o640))
	s := open(t, t.TempDir())
	root := added(t, s, src)
	o := PlaceOptions{Base: out, Path: "f"}
	must(t, s.Place(t.Context(), root, o))
	placed := func(want bool, what string) {
		t.Helper()
		if ok, why, err := s.Placed(t.Context(), root, o); err != nil || ok != want {
			t.Errorf("%s: Placed says %v %q, %v", what, ok, why, err)
		}
	}
	if !s.isUntouched(root, o) {
		t.Fatal("what was placed just now is not known")
	}
	placed(true, "untouched")
	must(t, os.Chmod(filepath.Join(out, "f"), 0o600))
	placed(false, "another mode")
	must(t, os.Chmod(filepath.Join(out, "f"), 0o640))
	placed(true, "the old mode again, looked at closely")
	must(t, s.Place(t.Context(), root, o))
	if o.Mode = 0o600; s.isUntouched(root, o) {
		t.Error("another mode than the file's is wanted, and not missed")
	}
	o.Mode = 0
	must(t, os.WriteFile(filepath.Join(out, "f"), noise(1<<20, 5), 0o640))
	placed(false, "other content of the same length")
	must(t, os.Remove(filepath.Join(out, "f")))
	placed(false, "missing")

	must(t, s.Place(t.Context(), root, o))
	row, _, err := s.locate(root, nil)
	must(t, err)
	if _, err := s.forget(root, row); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Placed(t.Context(), root, o); !errors.Is(err, ErrMissing) {
		t.Errorf("the manifest is lost, and Placed says %v", err)
	}
}

// A file of too many chunks to remember is not read again to find it unchanged.
func TestTheContentOfALargeFileIsRememberedInShort(t *testing.T) {
	var seen seenFiles
	chunks := make([]artifact.Chunk, maxSeenChunks+1)
	for i := range chunks {
		chunks[i] = artifact.Chunk{ID: artifact.Digest{artifact.SHA256, byte(i), byte(i >> 8), byte(i >> 16)}, SizeBytes: 1}
	}
	st := fileStat{inode: 1, size: 2}
	seen.put("large", st, chunks)
	if !seen.holds("large", st, chunks) {
		t.Error("a file of many chunks is forgotten")
	}
	if seen.holds("large", fileStat{inode: 2, size: 2}, chunks) {
		t.Error("another file is taken for it")
	}
	chunks[5].ID[7]++
	if seen.holds("large", st, chunks) {
		t.Error("other content is taken for its")
	}
	if _, ok := seen.chunksOf("large", st); ok || seen.chunks > 1 {
		t.Errorf("%d chunks of it are kept", seen.chunks)
	}
}
