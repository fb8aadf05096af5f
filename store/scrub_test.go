package store

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"meshd/store/artifact"
)

func TestScrubFindsWhatTheDiskDamaged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	var chunks [][]byte
	for i := range 40 {
		chunks = append(chunks, noise(100<<10, uint64(i)))
	}
	must(t, s.Write(chunks))
	if next, lost, err := s.Scrub(t.Context(), artifact.Digest{}, 1<<40, 1<<40); err != nil || lost != 0 || !next.IsZero() {
		t.Fatalf("Scrub of a sound store = %v, %d, %v", next, lost, err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "packs", "00000001.pack"), os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("rot"), 5*100<<10+7)
	must(t, err)
	must(t, f.Close())
	if _, lost, err := s.Scrub(t.Context(), artifact.Digest{}, 1<<40, 1<<40); err != nil || lost != 1 {
		t.Errorf("Scrub found %d damaged chunks, want 1: %v", lost, err)
	}
	if missing, err := s.Missing(chunksOf(chunks...)); err != nil || len(missing) != 1 || missing[0].ID != artifact.Sum(chunks[5]) {
		t.Errorf("missing after it: %v, %v", missing, err)
	}
	must(t, s.Write(chunks[5:6]))
	if _, lost, err := s.Scrub(t.Context(), artifact.Digest{}, 1<<40, 1<<40); err != nil || lost != 0 {
		t.Errorf("Scrub of the mended store finds %d: %v", lost, err)
	}
}

// It takes its time, goes on where it was, and ends with its context.
func TestScrubIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, t.TempDir())
		for i := range 80 {
			must(t, s.Write([][]byte{noise(200<<10, uint64(i))}))
		}
		began := time.Now()
		_, _, err := s.Scrub(t.Context(), artifact.Digest{}, 1<<40, 1<<20)
		must(t, err)
		if took := time.Since(began); took < 12*time.Second || took > 20*time.Second {
			t.Errorf("16 MB at 1 MiB/s took %v", took)
		}
	})
}
