package store

import (
	"errors"
	"path/filepath"
	"slices"
	"sync"

	"meshd/store/artifact"
)

// A stage makes an artifact beside its place while a pull brings it. It is a help alone: whatever goes wrong
// with it ends it, and Place reads what it needs from packs.
type stage struct {
	s    *Store
	root artifact.Digest
	sp   spot

	mu      sync.Mutex // guards what follows; taken after nothing, held while the disk works
	ended   bool
	head    *artifact.Root // nil = not here yet
	parts   [][]byte       // of its manifest, nil = not here yet
	sibling *sibling       // nil before the manifest is whole
}

// Below so many bytes nothing is gained: what was just written is read from memory.
const minStaged = 1 << 20

// Stage prepares for Place: from now on what peers send of root is also written beside the path, out of the memory it
// came in, so that Place need not read it again. cancel, called after Place, removes what Place did not use. The path
// itself is not touched, and no error is told: Place tells them all.
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
		if block, err := s.Read(root, nil); err == nil { // of a pull before this one
			st.mu.Lock()
			st.gather(root, block)
			st.mu.Unlock()
		}
	}
	return func() {
		if !busy {
			s.unstage(st)
		}
		_ = sp.folder.Close() // a folder opened for its name
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
func (s *Store) stageChunks(ids []artifact.Digest, chunks [][]byte) (wait func()) {
	list := s.stages()
	if len(list) == 0 {
		return func() {}
	}
	var work sync.WaitGroup
	work.Go(func() {
		for _, st := range list {
			st.take(ids, chunks)
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
	st.ended, st.sibling, st.head, st.parts = true, nil, nil, nil
}

func (st *stage) take(ids []artifact.Digest, chunks [][]byte) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for i := 0; i < len(ids) && st.sibling == nil && !st.ended; i++ {
		st.gather(ids[i], chunks[i])
	}
	if st.sibling == nil {
		return
	}
	if err := st.sibling.take(ids, chunks); err != nil {
		st.s.log.Debug("placing reads all from packs", "path", st.sp.path, "err", err)
		st.end()
	}
}

// gather looks whether a chunk is of the manifest, and begins when that is whole. mu is held.
func (st *stage) gather(id artifact.Digest, b []byte) {
	if id == st.root && st.head == nil {
		head, err := artifact.DecodeRoot(b)
		if err != nil || head.SizeBytes < minStaged {
			st.end()
			return
		}
		st.head, st.parts = &head, make([][]byte, len(head.Parts))
		for i, c := range head.Parts {
			if part, err := st.s.Read(c.ID, nil); err == nil {
				st.parts[i] = part
			}
		}
	} else if st.head == nil {
		return
	}
	lacks := false
	for i, c := range st.head.Parts {
		if c.ID == id {
			st.parts[i] = slices.Clone(b)
		}
		lacks = lacks || st.parts[i] == nil
	}
	if lacks {
		return
	}
	entries, err := artifact.DecodeEntries(slices.Concat(st.parts...), *st.head)
	st.parts = nil
	if err == nil && !isFile(entries) && syncsEach(entries, st.head.SizeBytes) {
		err = errors.New("a small tree is made at once")
	}
	if err == nil {
		st.sibling, err = st.s.newSibling(st.sp.folder, hidden(st.sp.name, hiddenTemp), entries)
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
		return s.newSibling(sp.folder, name, entries)
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

// manifestFor is manifest, out of memory where root is staged for the place.
func (s *Store) manifestFor(root artifact.Digest, o PlaceOptions) (artifact.Root, []artifact.Entry, error) {
	s.mu.Lock()
	st := s.staged[filepath.Join(o.Base, o.Path)]
	s.mu.Unlock()
	if st != nil && st.root == root {
		st.mu.Lock()
		defer st.mu.Unlock()
		if st.sibling != nil {
			return *st.head, st.sibling.entries, nil
		}
	}
	return s.manifest(root)
}
