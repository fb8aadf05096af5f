package store

import (
	"bytes"
	"testing"

	"meshd/store/artifact"
)

// More chunks in one write than one system call takes, small and large in turn, are all there.
func TestManyChunksInOneWrite(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	all := noise(6<<20, 7)
	var chunks [][]byte
	for i := 0; len(all) > 0; i++ {
		n := min(1+i*37%2000, len(all))
		if i%100 == 99 {
			n = min(artifact.MaxChunk, len(all))
		}
		chunks, all = append(chunks, all[:n:n]), all[n:]
	}
	if len(chunks) < 1500 {
		t.Fatalf("%d chunks are too few for this test", len(chunks))
	}
	must(t, s.Write(append(chunks, chunks[:50]...)))
	check := func(s *Store) {
		t.Helper()
		var buf []byte
		for _, c := range chunks {
			b, err := s.Read(artifact.Sum(c), buf)
			must(t, err)
			if !bytes.Equal(b, c) {
				t.Fatalf("a chunk of %d bytes came back otherwise", len(c))
			}
			buf = b
		}
	}
	check(s)
	must(t, s.Close())
	check(open(t, dir))
}

// What came from peers stays in the system's memory up to a limit, however much comes.
func TestWhatCameFromPeersFillsNoMemory(t *testing.T) {
	s := open(t, t.TempDir())
	var chunks [][]byte
	for i := range (keepCached + 16<<20) / artifact.MaxChunk {
		chunks = append(chunks, noise(artifact.MaxChunk, uint64(i)))
		if len(chunks) == 32 {
			must(t, s.Write(chunks))
			chunks = chunks[:0]
		}
	}
	if got := s.packs.cachedBytes; got > keepCached || got < keepCached/2 {
		t.Errorf("%d bytes are thought to be cached, the limit is %d", got, keepCached)
	}
	if b, err := s.Read(artifact.Sum(noise(artifact.MaxChunk, 0)), nil); err != nil || !bytes.Equal(b, noise(artifact.MaxChunk, 0)) {
		t.Errorf("the first chunk is not what it was: %v", err)
	}
}

func TestBatchIsDurableWithItsCommitAndNotBefore(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	first, second, small := noise(200<<10, 1), noise(200<<10, 2), noise(100, 3)
	want := func(s *Store, missing int) {
		t.Helper()
		if m, err := s.Missing(chunksOf(first, second, small)); err != nil || len(m) != missing {
			t.Errorf("%d chunks are missing, want %d: %v", len(m), missing, err)
		}
	}
	b := s.Begin()
	must(t, b.Write([]artifact.Summed{artifact.SumUp(first)}))
	clear(first) // the caller's memory is free again
	first = noise(200<<10, 1)
	want(s, 3)
	must(t, b.Commit())
	want(s, 2)
	must(t, b.Write([]artifact.Summed{artifact.SumUp(small), artifact.SumUp(second)}))
	b.Close()
	want(s, 2)
	if err := b.Write([]artifact.Summed{{ID: artifact.Sum(first)}}); err == nil {
		t.Error("a chunk of no bytes was taken")
	}
	must(t, s.Close())
	s = open(t, dir)
	want(s, 2)
	if got, err := s.Read(artifact.Sum(first), nil); err != nil || !bytes.Equal(got, first) {
		t.Errorf("the chunk is not what was written: %v", err)
	}
}
