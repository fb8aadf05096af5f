package swarm

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

const (
	maxManifests = 64      // artifacts whose chunk lists are kept in memory
	maxCached    = 1 << 17 // chunks of all of those together, 10 MiB; one larger list is kept alone
)

// A manifest is what the swarm knows of one artifact: which chunks belong to it. It does not change.
type manifest struct {
	root   artifact.Digest
	maker  id.Node          // who made it, as its root block says
	chunks []artifact.Chunk // the distinct chunks of the content, in the order of the manifest; of a single file its entry's
	others []artifact.Chunk // the parts and the root block
	bytes  int64            // of chunks

	sorting sync.Once
	sorted  []int32 // indices of chunks, by id; made when the first chunk is asked for by name
}

// newManifest lists the chunks of an artifact from its decoded parts. It keeps the entries' chunks, and changes none.
func newManifest(id artifact.Digest, rootBytes int, root artifact.Root, entries []artifact.Entry) *manifest {
	m := &manifest{root: id, maker: root.Origin.Node}
	m.others = slices.Concat(root.Parts, []artifact.Chunk{{ID: id, SizeBytes: uint32(rootBytes)}})
	if len(entries) == 1 {
		m.chunks = entries[0].Chunks
	} else {
		n := 0
		for _, e := range entries {
			n += len(e.Chunks)
		}
		m.chunks = make([]artifact.Chunk, 0, n)
		for _, e := range entries {
			m.chunks = append(m.chunks, e.Chunks...)
		}
	}
	m.chunks = distinct(m.chunks)
	for _, c := range m.chunks {
		m.bytes += int64(c.SizeBytes)
	}
	return m
}

// distinct returns chunks without those that were there before; chunks themselves if there are none.
func distinct(chunks []artifact.Chunk) []artifact.Chunk {
	if keys := keysOf(chunks); len(slices.Compact(keys)) == len(chunks) {
		return chunks // no two begin alike: nothing is kept in memory to find that out for sure
	}
	seen := make(map[artifact.Digest]struct{}, len(chunks))
	out := make([]artifact.Chunk, 0, len(chunks))
	for _, c := range chunks {
		if _, ok := seen[c.ID]; !ok {
			seen[c.ID] = struct{}{}
			out = append(out, c)
		}
	}
	return slices.Clip(out)
}

// keysOf returns eight bytes of each digest, sorted.
func keysOf(chunks []artifact.Chunk) []uint64 {
	keys := make([]uint64, len(chunks))
	for i, c := range chunks {
		keys[i] = binary.BigEndian.Uint64(c.ID[1:])
	}
	slices.Sort(keys)
	return keys
}

// find returns the chunk of an id, if it belongs to the artifact, and its index in chunks; -1 for a part or the root
// block.
func (m *manifest) find(id artifact.Digest) (c artifact.Chunk, index int, ok bool) {
	m.sorting.Do(func() {
		m.sorted = make([]int32, len(m.chunks))
		for i := range m.sorted {
			m.sorted[i] = int32(i)
		}
		slices.SortFunc(m.sorted, func(a, b int32) int { return m.chunks[a].ID.Compare(m.chunks[b].ID) })
	})
	at, ok := slices.BinarySearchFunc(m.sorted, id, func(i int32, id artifact.Digest) int {
		return m.chunks[i].ID.Compare(id)
	})
	if ok {
		return m.chunks[m.sorted[at]], int(m.sorted[at]), true
	}
	if at := slices.IndexFunc(m.others, func(c artifact.Chunk) bool { return c.ID == id }); at >= 0 {
		return m.others[at], -1, true
	}
	return artifact.Chunk{}, -1, false
}

// swarms says that what nodes have of it may be told chunk by chunk, and that it is worth a swarm.
func (m *manifest) swarms() bool { return m.bytes >= minSwarm && len(m.chunks) <= maxHave }

// missing returns which of m.chunks the store has not got.
func (m *manifest) missing(store Chunks) (bitset, error) {
	return missing(store, m.chunks)
}

// lookChunks is how many chunks are looked up at once: those that are not there are listed.
const lookChunks = 4096

// missing returns which of chunks the store has not got.
func missing(store Chunks, chunks []artifact.Chunk) (bitset, error) {
	out := newBitset(len(chunks))
	at := 0
	for some := range slices.Chunk(chunks, lookChunks) {
		lack, err := store.Missing(some)
		if err != nil {
			return nil, fmt.Errorf("look which chunks are here: %w", err)
		}
		for i, c := range some {
			if len(lack) > 0 && lack[0].ID == c.ID {
				out.set(at + i)
				lack = lack[1:]
			}
		}
		at += len(some)
	}
	return out, nil
}

// manifests keeps the most recently used chunk lists.
type manifests struct {
	mu  sync.Mutex
	all []*manifest // most recently used last
}

// get returns the chunk list of an artifact whose root block and parts are in the store.
func (k *manifests) get(store Chunks, id artifact.Digest) (*manifest, error) {
	k.mu.Lock()
	if i := slices.IndexFunc(k.all, func(m *manifest) bool { return m.root == id }); i >= 0 {
		m := k.all[i]
		k.all = append(slices.Delete(k.all, i, i+1), m)
		k.mu.Unlock()
		return m, nil
	}
	k.mu.Unlock()
	m, err := load(store, id)
	if err != nil {
		return nil, err
	}
	k.put(m)
	return m, nil
}

// put adds a list and forgets the oldest beyond the limits.
func (k *manifests) put(m *manifest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = slices.DeleteFunc(k.all, func(o *manifest) bool { return o.root == m.root })
	k.all = append(k.all, m)
	total := 0
	for i := len(k.all) - 1; i >= 0; i-- {
		total += len(k.all[i].chunks)
		if i < len(k.all)-1 && (total > maxCached || len(k.all)-i > maxManifests) {
			k.all = slices.Delete(k.all, 0, i+1)
			return
		}
	}
}

// load reads a manifest from the store.
func load(store Chunks, id artifact.Digest) (*manifest, error) {
	block, err := store.Read(id, nil)
	if err != nil {
		return nil, fmt.Errorf("read root block %s: %w", id.Short(), err)
	}
	root, err := artifact.DecodeRoot(block)
	if err != nil {
		return nil, fmt.Errorf("root block %s: %w", id.Short(), err)
	}
	n := 0
	for _, c := range root.Parts {
		n += int(c.SizeBytes)
	}
	parts := make([]byte, 0, n) // at most artifact.MaxManifestBytes: DecodeRoot looked
	for _, c := range root.Parts {
		b, err := store.Read(c.ID, nil)
		if err != nil {
			return nil, fmt.Errorf("read part %s of the manifest: %w", c.ID.Short(), err)
		}
		parts = append(parts, b...)
	}
	entries, err := artifact.DecodeEntries(parts, root)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", id.Short(), err)
	}
	return newManifest(id, len(block), root, entries), nil
}
