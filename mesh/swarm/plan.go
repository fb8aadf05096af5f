package swarm

import (
	"slices"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

const (
	maxCopies   = 2                      // requests under way for one chunk
	duplicateIn = 500 * time.Millisecond // before that no second source is asked for the same chunk
	requestTime = 60 * time.Second       // a request not answered by then is given up
	hurryLeast  = 200 * time.Millisecond // a request expected to be answered sooner is not made twice
	hurryEarly  = time.Second            // the same while there is something else to ask for
	stallTime   = 2 * time.Second        // besides four times what was expected: the source seems to have stalled
	patience    = 2 * time.Second        // without a byte, until a holder is asked for what it keeps for others
	scanExtents = 4096                   // extents that are compared for one request
)

// An ask is one request to one source: for an extent, or to choose one.
type ask struct {
	id     uint32
	to     *source
	share  bool  // the source chooses; chunks is nil until it has
	force  bool  // the source is to send even what it gave to others
	chunks []int // indices into plan.chunks, ascending
	bytes  int64
	at     time.Time
	hope   time.Time // when the answer is expected; at once from a source whose rate is not known
	due    time.Time // from then on somebody else may be asked as well
	part   int       // of parts, as this node divides the work of choosing among those that choose
	parts  int
}

// A plan decides what to ask whom. It is the puller's half of the swarm's pure core: events and the time go
// in, requests come out, and it has no goroutine, clock or connection. Not safe for concurrent use.
//
// A source that has all and has other wanters too is shy: it is asked to choose (see desk), so that it sends
// each byte about once. Everybody else is asked for extents by name: the rarest first, from the source that
// is expected to be through with it soonest, as far as its window reaches: the fast get asked for more. When
// a source finds nothing left, it is asked for what another one is late with.
type plan struct {
	seed    uint64
	self    id.Node
	chunks  []artifact.Chunk
	cut     extents
	aim     int64   // bytes of an extent, about
	order   []int   // the extents, in the order in which equally rare ones are taken
	todo    bitset  // neither received nor asked of anybody
	got     bitset  // received and verified
	missing int     // chunks not in got
	copies  []uint8 // requests under way for each chunk
	rare    []uint16
	flight  int64 // bytes of the requests under way
	sources []*source
	open    []*ask // oldest first
	nextID  uint32
	gained  time.Time // when the last chunk came, or the plan began
	forcing bool      // shy sources are asked by name for what nobody else has
	told    bool      // sources say what they have before they are asked for it
}

func newPlan(seed uint64, self id.Node) *plan { return &plan{seed: seed, self: self} }

// begin sets what is fetched: of chunks, those in missing. Requests under way are forgotten; what the
// plan knows about the sources' rates stays. told means that sources say first what they have; else each is
// believed to have all until it says otherwise.
func (p *plan) begin(chunks []artifact.Chunk, missing bitset, told bool, now time.Time) {
	p.told = told
	p.chunks, p.todo, p.cut = chunks, missing, cutExtents(chunks)
	p.aim = extentAim(chunks)
	p.missing = missing.count()
	p.got = newBitset(len(chunks))
	for i := range chunks {
		if !missing.has(i) {
			p.got.set(i)
		}
	}
	p.copies, p.rare = make([]uint8, len(chunks)), make([]uint16, len(chunks))
	p.open, p.flight, p.gained, p.forcing = nil, 0, now, false
	p.arrange(false)
	for _, s := range p.sources {
		s.has, s.known, s.shy, s.open, s.shares, s.queued = nil, false, false, 0, 0, 0
	}
}

// arrange sets the order of the extents: from a place of this node's own to the end and round, which disks
// like; in company at random, so that nodes soon have something for one another.
func (p *plan) arrange(random bool) {
	n := p.cut.count()
	if n < 1 {
		p.order = nil
		return
	}
	own := seedOf(p.seed, p.self)
	if random {
		p.order = shuffled(own, n)
		return
	}
	p.order = make([]int, n)
	for i := range p.order {
		p.order[i] = (int(own%uint64(n)) + i) % n
	}
}

// join adds a source that is believed to have everything, until it says otherwise.
func (p *plan) join(n id.Node) {
	if p.source(n) != nil {
		return
	}
	p.sources = append(p.sources, &source{node: n})
	slices.SortFunc(p.sources, func(a, b *source) int { return a.node.Compare(b.node) })
}

// leave removes a source; what it was asked for is open to the others again.
func (p *plan) leave(n id.Node) {
	s := p.source(n)
	if s == nil {
		return
	}
	p.count(s.has, -1)
	p.sources = slices.DeleteFunc(p.sources, func(o *source) bool { return o == s })
	for _, a := range slices.Clone(p.open) {
		if a.to == s {
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

// count adds to how many sources each chunk of a partial holder has.
func (p *plan) count(has bitset, by int) {
	if has == nil {
		return
	}
	for c := has.next(0, nil); c >= 0; c = has.next(c+1, nil) {
		p.rare[c] = uint16(int(p.rare[c]) + by)
	}
}

// learn sets which chunks a source has; nil means all. shy says that it has other wanters, among whom it
// chooses who fetches what.
func (p *plan) learn(n id.Node, has bitset, shy bool) {
	s := p.source(n)
	if s == nil {
		return
	}
	p.count(s.has, -1)
	p.count(has, 1)
	if company := p.company(); (shy || has != nil) && !company && p.order != nil {
		p.arrange(true)
	}
	if has != nil {
		s.lacking = len(p.chunks) - has.count()
	}
	s.has, s.known, s.shy = has, true, shy || s.shy && has == nil
}

// more notes chunks that a source has got since.
func (p *plan) more(n id.Node, chunks runs) {
	s := p.source(n)
	if s == nil || s.has == nil {
		return
	}
	for _, r := range chunks {
		for c := r.from; c < r.to; c++ {
			if !s.has.has(c) {
				s.has.set(c)
				s.lacking--
				p.rare[c]++
				p.forcing = p.forcing && !p.todo.has(c)
			}
		}
	}
	if s.lacking <= 0 {
		p.count(s.has, -1)
		s.has = nil
	}
}

// company says whether others fetch the same at the same time.
func (p *plan) company() bool {
	return slices.ContainsFunc(p.sources, func(s *source) bool { return s.shy || s.has != nil })
}

// isOpen reports whether a is still under way as far as the plan knows.
func (p *plan) isOpen(a *ask) bool { return slices.Contains(p.open, a) }

// granted notes which chunks the source of a chose to send.
func (p *plan) granted(a *ask, chunks []int, now time.Time) {
	a.to.shares--
	a.chunks = chunks
	p.flight -= a.bytes
	a.bytes = 0
	for _, c := range chunks {
		a.bytes += sizeOf(p.chunks[c])
		p.copies[c]++
		p.todo.clear(c)
	}
	p.flight += a.bytes
	a.to.open++
	a.to.queued += a.bytes
	a.at = now
	p.hope(a, now)
}

// hope sets when a is expected to be answered, and from when on it is late. a counts as queued already.
func (p *plan) hope(a *ask, now time.Time) {
	wait := a.to.expected(0)
	a.hope, a.due = now.Add(wait), now.Add(duplicateIn+2*wait)
}

// arrived notes that the i-th chunk of a has come and is what it should be. It is false for a chunk
// that another source was faster with.
func (p *plan) arrived(a *ask, i int, now time.Time) bool {
	c := a.chunks[i]
	if p.got.has(c) {
		return false
	}
	p.got.set(c)
	p.todo.clear(c)
	p.missing--
	p.gained = now
	return true
}

// lacks notes that the source of a has not got the i-th chunk of a.
func (p *plan) lacks(a *ask, i int) {
	s, c := a.to, a.chunks[i]
	if s.has == nil {
		s.has = newBitset(len(p.chunks))
		s.has.fill(len(p.chunks))
		s.lacking = 0
		p.count(s.has, 1)
	}
	if s.has.has(c) {
		s.has.clear(c)
		s.lacking++
		p.rare[c]--
	}
}

// redirected notes that the source of a keeps what it was asked for for others.
func (p *plan) redirected(a *ask) {
	if !p.company() {
		p.arrange(true)
	}
	a.to.shy = true
	p.close(a)
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
	if a.chunks == nil {
		a.to.shares--
		return
	}
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
		case a.chunks == nil:
			if p.missing == 0 {
				obsolete = append(obsolete, a)
			}
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
