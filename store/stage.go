package store

import (
	"errors"
	"sync"
	"sync/atomic"

	"meshd/store/artifact"
)

// A stage makes an artifact beside its place while a pull brings it. It is a help alone: whatever goes wrong
// with it ends it, and Place reads what it needs from packs.
type stage struct {
	s    *Store
	root artifact.Digest
	sp   spot

	known atomic.Pointer[known] // nil before the manifest is, or when what is staged is small

	mu      sync.Mutex // guards what follows; taken after nothing, held while the disk works
	ended   bool
	sibling *sibling // nil before the manifest is known
}

// Below so many bytes nothing is gained: what was just written is read from memory.
const minStaged = 1 << 20

// Stage prepares for Place: once its manifest is known (Known), what peers send of root is also written beside the
// path, out of the memory it came in, so that Place need not read it again. cancel, called after Place, removes what
// Place did not use. The path itself is not touched, and no error is told: Place tells them all.
func (s *Store) Stage(root artifact.Digest, o PlaceOptions) (cancel func()) {
	sp, err := spotOf(o, true)
	if err != nil {
		return func() {}
	}
	st := &stage{s: s, root: root, sp: sp}
	s.mu.Lock()
	_, busy := s.staged[sp.path]
	if !busy {
		s.staged[sp.path] = st
	}
	s.mu.Unlock()
	if !busy {
		if head, entries, err := s.manifest(root); err == nil { // of a pull before this one
			st.begin(head, entries)
		}
	}
	return func() {
		if !busy {
			s.unstage(st)
		}
		_ = sp.folder.Close() // a folder opened for its name
	}
}

// Known is told what root is made of, before its content comes. The entries are kept while root is staged, and none
// is changed: the caller may keep them too.
func (s *Store) Known(root artifact.Digest, head artifact.Root, entries []artifact.Entry) {
	for _, st := range s.stages() {
		if st.root == root {
			st.begin(head, entries)
		}
	}
}

// unstage ends a stage and removes what it made. Its path may be staged again.
func (s *Store) unstage(st *stage) {
	s.mu.Lock()
	if s.staged[st.sp.path] == st {
		delete(s.staged, st.sp.path)
	}
	s.mu.Unlock()
	st.mu.Lock()
	defer st.mu.Unlock()
	st.end()
}

// stages lists what is staged now.
func (s *Store) stages() []*stage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.staged) == 0 {
		return nil
	}
	out := make([]*stage, 0, len(s.staged))
	for _, st := range s.staged {
		out = append(out, st)
	}
	return out
}

// stageChunks lets stages take what came from a peer, beside the caller, who calls wait before the memory of the chunks
// is used again.
func (s *Store) stageChunks(chunks []artifact.Summed) (wait func()) {
	list := s.stages()
	if len(list) == 0 {
		return func() {}
	}
	var work sync.WaitGroup
	work.Go(func() {
		for _, st := range list {
			st.take(chunks)
		}
	})
	return work.Wait
}

// unstageAll gives the room that stages take to who needs it more. It reports whether there was any.
func (s *Store) unstageAll() (any bool) {
	for _, st := range s.stages() {
		st.mu.Lock()
		any = any || st.sibling != nil
		st.end()
		st.mu.Unlock()
	}
	return any
}

// end drops all that it holds. mu is held.
func (st *stage) end() {
	if st.sibling != nil {
		if err := st.sibling.discard(); err != nil {
			st.s.log.Debug("what was prepared stays until the next is placed there", "path", st.sp.path, "err", err)
		}
	}
	st.ended, st.sibling = true, nil
}

func (st *stage) take(chunks []artifact.Summed) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.sibling == nil {
		return
	}
	if err := st.sibling.take(chunks); err != nil {
		st.s.log.Debug("placing reads all from packs", "path", st.sp.path, "err", err)
		st.end()
	}
}

// begin makes what is to be filled, unless that is not worth it.
func (st *stage) begin(head artifact.Root, entries []artifact.Entry) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended || st.sibling != nil {
		return
	}
	err := errors.New("what is small is read from memory")
	if head.SizeBytes >= minStaged && (isFile(entries) || !syncsEach(entries, head.SizeBytes)) {
		st.known.Store(&known{head, entries})
		st.sibling, err = st.s.newSibling(st.sp, hidden(st.sp.name, hiddenTemp), entries)
	}
	if err != nil {
		st.end()
	}
}

// soon lets the disk begin with what is staged.
func (s *Store) stagesSoon() {
	for _, st := range s.stages() {
		st.mu.Lock()
		if st.sibling != nil {
			st.sibling.soon()
		}
		st.mu.Unlock()
	}
}

// siblingFor hands over what was staged for the place, or makes a new one of that name. The caller closes it.
func (s *Store) siblingFor(sp spot, root artifact.Digest, name string, entries []artifact.Entry) (*sibling, error) {
	temp := hidden(sp.name, hiddenTemp)
	s.mu.Lock()
	st := s.staged[sp.path]
	s.mu.Unlock()
	var b *sibling
	if st != nil && st.root == root {
		st.mu.Lock()
		b, st.sibling, st.ended = st.sibling, nil, true
		st.mu.Unlock()
	}
	if b != nil && !b.isAt(sp.folder) {
		b.close() // the folder was replaced, or somebody cleaned up
		b = nil
	}
	if b == nil {
		return s.newSibling(sp, name, entries)
	}
	b.in = sp.folder
	if name == temp {
		return b, nil
	}
	err := removeTree(sp.folder, name)
	if err == nil {
		err = sp.folder.Rename(temp, name)
	}
	if err != nil {
		return nil, errors.Join(err, b.discard())
	}
	b.name = name
	return b, nil
}

// A known manifest is one that came just now, and is decoded.
type known struct {
	head    artifact.Root
	entries []artifact.Entry
}

// knownManifest returns the manifest of root if it is staged anywhere: a large one is not read again and again while
// its bytes come; nil if not.
func (s *Store) knownManifest(root artifact.Digest) *known {
	for _, st := range s.stages() {
		if k := st.known.Load(); k != nil && st.root == root {
			return k
		}
	}
	return nil
}
