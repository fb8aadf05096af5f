package swarm

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"meshd/store/artifact"
)

// putFiles stores an artifact of these files, which the journal entry of that number made, and returns its name and
// all chunks that it is made of.
func (m *memory) putFiles(t testing.TB, entry uint64, files map[string][]byte) (artifact.Ref, map[artifact.Digest]int64) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var man artifact.Manifest
	var cut artifact.Splitter
	made := map[artifact.Digest]int64{}
	keep := func(b []byte) artifact.Chunk {
		c := artifact.Chunk{ID: artifact.Sum(b), SizeBytes: uint32(len(b))}
		m.chunks[c.ID], made[c.ID] = slices.Clone(b), int64(len(b))
		return c
	}
	for name, content := range files {
		e := artifact.Entry{Name: name, Kind: artifact.File, Mode: 0o644, SizeBytes: int64(len(content))}
		err := cut.Split(bytes.NewReader(content), func(b []byte) error {
			e.Chunks = append(e.Chunks, keep(b))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		man.Entries = append(man.Entries, e)
	}
	man.Origin = artifact.Origin{Node: madeBy, Entry: entry}
	root, parts, ref, err := man.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range append(parts, root) {
		keep(b)
	}
	ref.Name = "app"
	ref.Version = artifact.Version{Counter: entry}
	return ref, made
}

func seededBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), 7}).Read(b) // never fails
	return b
}

// A new version costs what it changed: exactly the chunks that no version here has, and these are few.
func TestANewVersionCostsWhatItChanged(t *testing.T) {
	const large = 32 << 20
	content := seededBytes(1, large)
	spread := slices.Clone(content)
	for i := range 20 { // 1 % in 20 places
		at := i*(large/20) + 300_000
		copy(spread[at:], seededBytes(uint64(i+2), large/100/20))
	}
	tree := map[string][]byte{}
	for i := range 5000 {
		tree[fmt.Sprintf("f%04d", i)] = []byte(fmt.Sprintf("file %d", i))
	}
	one := maps.Clone(tree)
	one["f1007"] = []byte("changed")
	file := func(b []byte) map[string][]byte { return map[string][]byte{"": b} }

	tests := []struct {
		name          string
		before, after map[string][]byte
		most          int64 // bytes that may be served, the index included
	}{
		// A place costs itself and the rest of two chunks, of 73 KiB on the mean.
		{"1 % changed in 20 places", file(content), file(spread), 20*(large/100/20+2*73<<10) + 100<<10},
		{"4 KiB in front", file(content), file(slices.Concat(seededBytes(99, 4096), content)), 100_000},
		{"nothing changed, another version", file(content), file(content), 4096},
		{"one of 5,000 files", tree, one, 60_000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				a, b := w.node(1), w.node(2)
				first, old := a.store.putFiles(t, 1, tt.before)
				if err := b.pull(t, first, time.Minute, a); err != nil {
					t.Fatal(err)
				}
				second, made := a.store.putFiles(t, 2, tt.after)
				if first.Root == second.Root {
					t.Fatal("the two versions are one artifact")
				}
				var want int64
				for id, n := range made {
					if _, here := old[id]; !here {
						want += n
					}
				}
				before := a.swarm.Stats().ServedBytes
				if err := b.pull(t, second, time.Minute, a); err != nil {
					t.Fatal(err)
				}
				b.mustHave(t, a)
				got := a.swarm.Stats().ServedBytes - before
				t.Logf("%d bytes of %d", got, second.SizeBytes)
				if got != want || got > tt.most {
					t.Errorf("%d bytes were served, %d of chunks are new, at most %d are allowed", got, want, tt.most)
				}
			})
		})
	}
}
