package swarm

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

const (
	maxCopies   = 2                      // requests under way for one chunk
	duplicateIn = 500 * time.Millisecond // before that no second source is asked for the same chunk
	requestTime = 60 * time.Second       // a request not answered by then is given up
)

// An ask is one request to one source: an extent, that is a run of missing chunks.
type ask struct {
	id     uint32
	to     *source
	chunks []int // indices into plan.chunks, ascending
	bytes  int64
	at     time.Time
	due    time.Time // from then on somebody else may be asked as well
}

// A plan decides what to ask whom. It is the pure core of a pull: events and the time go in, requests
// come out, and it has no goroutine, clock or connection. Not safe for concurrent use.
//
// Each source works its way through the missing chunks from a place of its own, in the order of the
// manifest, as far as its window reaches: the fast get further. When a source finds nothing left, it
// is asked for what another one is late with.
//
// First fetchers (SPEC 8: of the nodes that want an artifact, one asks the origin for an extent and
// passes it on) belong into cut: it is the one place that says which chunks a source is asked for.
type plan struct {
	seed    uint64
	chunks  []artifact.Chunk
	todo    bitset  // neither received nor asked of anybody
	got     bitset  // received and verified
	missing int     // chunks not in got
	copies  []uint8 // requests under way for each chunk
	flight  int64   // bytes of the requests under way
	sources []*source
	open    []*ask // oldest first
	nextID  uint32
}

func newPlan(seed uint64) *plan { return &plan{seed: seed} }

// begin sets what is fetched: of chunks, those in missing. Requests under way are forgotten; what the
// plan knows about the sources' rates stays.
func (p *plan) begin(chunks []artifact.Chunk, missing bitset) {
	p.chunks, p.todo = chunks, missing
	p.missing = missing.count()
	p.got = newBitset(len(chunks))
	for i := range chunks {
		if !missing.has(i) {
			p.got.set(i)
		}
	}
	p.copies = make([]uint8, len(chunks))
	p.open, p.flight = nil, 0
	for _, s := range p.sources {
		s.has, s.open, s.queued = nil, 0, 0
		s.cursor = p.start(s.node)
	}
}

// start is where a source begins: nodes that pull the same from one origin begin at different
// places, and soon have something for one another.
func (p *plan) start(n id.Node) int {
	if len(p.chunks) == 0 {
		return 0
	}
	h := fnv.New64a()
	h.Write(binary.BigEndian.AppendUint64(n[:], p.seed))
	return int(h.Sum64() % uint64(len(p.chunks)))
}

// join adds a source that is believed to have everything, until it says otherwise.
func (p *plan) join(n id.Node) {
	if p.source(n) != nil {
		return
	}
	p.sources = append(p.sources, &source{node: n, cursor: p.start(n)})
	slices.SortFunc(p.sources, func(a, b *source) int { return a.node.Compare(b.node) })
}

// leave removes a source; what it was asked for is open to the others again.
func (p *plan) leave(n id.Node) {
	p.sources = slices.DeleteFunc(p.sources, func(s *source) bool { return s.node == n })
	for _, a := range slices.Clone(p.open) {
		if a.to.node == n {
			p.close(a)
		}
	}
}

func (p *plan) source(n id.Node) *source {
	for _, s := range p.sources {
		if s.node == n {
			return s
		}
	}
	return nil
}

// learn sets which chunks a source has; nil means all.
func (p *plan) learn(n id.Node, has bitset) {
	if s := p.source(n); s != nil {
		s.has = has
	}
}

// isOpen reports whether a is still under way as far as the plan knows.
func (p *plan) isOpen(a *ask) bool { return slices.Contains(p.open, a) }

// arrived notes that the i-th chunk of a has come and is what it should be. It is false for a chunk
// that another source was faster with.
func (p *plan) arrived(a *ask, i int) bool {
	c := a.chunks[i]
	if p.got.has(c) {
		return false
	}
	p.got.set(c)
	p.todo.clear(c)
	p.missing--
	return true
}

// lacks notes that the source of a has not got the i-th chunk of a.
func (p *plan) lacks(a *ask, i int) {
	if a.to.has == nil {
		a.to.has = newBitset(len(p.chunks))
		a.to.has.fill(len(p.chunks))
	}
	a.to.has.clear(a.chunks[i])
}

// answered ends a, of which so many bytes came. Chunks of it that neither came nor are under way
// elsewhere are to do again.
func (p *plan) answered(a *ask, now time.Time, bytes int64) {
	a.to.measure(now, a.at, bytes)
	p.close(a)
}

func (p *plan) close(a *ask) {
	i := slices.Index(p.open, a)
	if i < 0 {
		return
	}
	p.open = slices.Delete(p.open, i, i+1)
	p.flight -= a.bytes
	a.to.open--
	a.to.queued -= a.bytes
	for _, c := range a.chunks {
		if p.copies[c]--; p.copies[c] == 0 && !p.got.has(c) {
			p.todo.set(c)
		}
	}
}

// giveUp closes and returns the requests that nobody needs any more, because all they ask for came
// from elsewhere, and those without an answer for too long.
func (p *plan) giveUp(now time.Time) (obsolete, late []*ask) {
	for _, a := range p.open {
		switch {
		case !slices.ContainsFunc(a.chunks, func(c int) bool { return !p.got.has(c) }):
			obsolete = append(obsolete, a)
		case now.Sub(a.at) >= requestTime:
			late = append(late, a)
		}
	}
	for _, a := range slices.Concat(obsolete, late) {
		p.close(a)
	}
	return obsolete, late
}

// next returns the requests to make now, of about room bytes at most. The caller makes each of them,
// or calls leave for its source.
func (p *plan) next(now time.Time, room int64) []*ask {
	var asks []*ask
	for more := true; more && room > 0; {
		more = false
		for _, s := range p.sources {
			if room <= 0 || s.open > 0 && s.queued >= s.window() {
				continue
			}
			chunks := p.cut(s)
			if chunks == nil {
				chunks = p.late(s, now)
			}
			if chunks == nil {
				continue
			}
			a := p.issue(s, chunks, now)
			asks = append(asks, a)
			room -= a.bytes
			more = true
		}
	}
	return asks
}

// cut returns the chunks of the next request to s: in manifest order from its cursor, round the end.
func (p *plan) cut(s *source) []int {
	most := s.extent()
	if share := p.left() / int64(2*len(p.sources)); len(p.sources) > 1 {
		most = min(most, max(share, minExtent)) // the last ones finish together
	}
	i := p.todo.next(s.cursor, s.has)
	if i < 0 {
		i = p.todo.next(0, s.has)
	}
	var out []int
	var bytes int64
	for ; i >= 0 && len(out) < maxWant && bytes < most; i = p.todo.next(i+1, s.has) {
		size := sizeOf(p.chunks[i])
		if bytes+size > maxExtent {
			break
		}
		out = append(out, i)
		bytes += size
	}
	return out
}

// left is about how many bytes are not received: enough to share them out.
func (p *plan) left() int64 {
	if len(p.chunks) == 0 {
		return 0
	}
	return int64(p.missing) * sizeOf(p.chunks[len(p.chunks)/2])
}

// late returns what s may be asked for although it is under way: the rest of the oldest request that
// another source is late with.
func (p *plan) late(s *source, now time.Time) []int {
	for _, a := range p.open {
		if a.to == s || now.Before(a.due) {
			continue
		}
		var out []int
		for _, c := range a.chunks {
			if !p.got.has(c) && p.copies[c] < maxCopies && (s.has == nil || s.has.has(c)) {
				out = append(out, c)
			}
		}
		if out != nil {
			return out
		}
	}
	return nil
}

func (p *plan) issue(s *source, chunks []int, now time.Time) *ask {
	p.nextID++
	a := &ask{id: p.nextID, to: s, chunks: chunks, at: now}
	for _, c := range chunks {
		a.bytes += sizeOf(p.chunks[c])
		p.copies[c]++
		p.todo.clear(c)
	}
	a.due = now.Add(max(duplicateIn, 4*s.expected(a.bytes)))
	s.cursor = chunks[len(chunks)-1] + 1
	s.open++
	s.queued += a.bytes
	p.flight += a.bytes
	p.open = append(p.open, a)
	return a
}

// wake is when next may have something new although nothing happened; zero if never.
func (p *plan) wake() time.Time {
	var first time.Time
	if len(p.sources) < 2 {
		return first
	}
	for _, a := range p.open {
		if first.IsZero() || a.due.Before(first) {
			first = a.due
		}
	}
	return first
}

// starved reports whether s is idle for want of chunks that it has while some are to do.
func (p *plan) starved(s *source) bool {
	return s.has != nil && s.open == 0 && p.missing > 0 && p.todo.next(0, s.has) < 0
}

// sizeOf is the size of a chunk, or what is reckoned for one that nobody announced.
func sizeOf(c artifact.Chunk) int64 {
	if c.SizeBytes == 0 {
		return artifact.MaxChunk
	}
	return int64(c.SizeBytes)
}
