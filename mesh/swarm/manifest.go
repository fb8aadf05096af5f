package swarm

import (
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
	chunks []artifact.Chunk // the distinct chunks of the content, in the order of the manifest
	sorted []artifact.Chunk // those, the parts and the root block, by id
	place  []int32          // of each of sorted, its index in chunks; -1 for a part or the root block
	bytes  int64            // of chunks
}

// newManifest lists the chunks of an artifact from its decoded parts.
func newManifest(id artifact.Digest, rootBytes int, root artifact.Root, entries []artifact.Entry) *manifest {
	m := &manifest{root: id, maker: root.Origin.Node}
	seen := map[artifact.Digest]bool{}
	for _, e := range entries {
		for _, c := range e.Chunks {
			if !seen[c.ID] {
				seen[c.ID] = true
				m.chunks = append(m.chunks, c)
			}
		}
	}
	m.sorted = slices.Concat(m.chunks, root.Parts, []artifact.Chunk{{ID: id, SizeBytes: uint32(rootBytes)}})
	slices.SortFunc(m.sorted, func(a, b artifact.Chunk) int { return a.ID.Compare(b.ID) })
	m.place = make([]int32, len(m.sorted))
	for i := range m.place {
		m.place[i] = -1
	}
	for i, c := range m.chunks {
		m.bytes += int64(c.SizeBytes)
		if at, ok := m.position(c.ID); ok {
			m.place[at] = int32(i)
		}
	}
	return m
}

// position returns where in sorted a chunk is, if it belongs to the artifact.
func (m *manifest) position(id artifact.Digest) (at int, ok bool) {
	return slices.BinarySearchFunc(m.sorted, id, func(c artifact.Chunk, id artifact.Digest) int {
		return c.ID.Compare(id)
	})
}

// swarms says that what nodes have of it may be told chunk by chunk, and that it is worth a swarm.
func (m *manifest) swarms() bool { return m.bytes >= minSwarm && len(m.chunks) <= maxHave }

// missing returns which of m.chunks the store has not got.
func (m *manifest) missing(store Chunks) (bitset, error) {
	return missing(store, m.chunks)
}

// missing returns which of the distinct chunks the store has not got.
func missing(store Chunks, chunks []artifact.Chunk) (bitset, error) {
	out := newBitset(len(chunks))
	lack, err := store.Missing(chunks)
	if err != nil {
		return nil, fmt.Errorf("look which chunks are here: %w", err)
	}
	if len(lack) == 0 {
		return out, nil
	}
	want := make(map[artifact.Digest]bool, len(lack))
	for _, c := range lack {
		want[c.ID] = true
	}
	for i, c := range chunks {
		if want[c.ID] {
			out.set(i)
		}
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
		total += len(k.all[i].sorted)
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
	var parts []byte
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
