package swarm

import (
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

// next returns the requests to make now, of about room bytes at most. The caller makes each of them,
// or calls leave for its source.
func (p *plan) next(now time.Time, room int64) []*ask {
	var asks []*ask
	if p.missing == 0 {
		return nil
	}
	for _, a := range p.shares(now) {
		asks = append(asks, a)
		room -= a.bytes
	}
	p.forcing = p.forcing || p.stalled(now)
	company := p.company()
	for room > 0 {
		var a *ask
		free := p.withRoom(company)
		if len(free) > 0 {
			if a = p.rarest(free, company, now); a == nil {
				a = p.late(free, now)
			}
		}
		if a == nil {
			return asks
		}
		asks = append(asks, a)
		room -= a.bytes
	}
	return asks
}

// shares keeps each shy source supplied with requests to choose.
func (p *plan) shares(now time.Time) (asks []*ask) {
	parts := 0
	for _, s := range p.sources {
		if s.shy {
			parts++
		}
	}
	part := 0
	for _, s := range p.sources {
		if !s.shy {
			continue
		}
		for s.shares+s.open < s.sharesWanted() {
			a := p.file(&ask{to: s, share: true, bytes: p.aim, part: part, parts: parts}, now)
			s.shares++
			asks = append(asks, a)
		}
		part++
	}
	return asks
}

// stalled says that nothing came for a time, nothing is under way, and nobody but shy sources has what is
// missing: the one it was given to cannot be reached from here. Not all nodes lose patience at once.
func (p *plan) stalled(now time.Time) bool {
	return now.Sub(p.gained) >= p.endurance() && p.quiet()
}

func (p *plan) endurance() time.Duration {
	return patience + time.Duration(mix(uint64(seatOf(nil, p.self)))%uint64(patience))
}

func (p *plan) quiet() bool {
	for _, a := range p.open {
		if a.chunks != nil {
			return false
		}
	}
	return true
}

// withRoom lists the sources that may be asked for more.
func (p *plan) withRoom(company bool) []*source {
	var out []*source
	for _, s := range p.sources {
		if s.shy && !p.forcing || p.told && !s.known {
			continue
		}
		window := s.window()
		if company {
			window = s.swarmWindow()
		}
		if s.open == 0 || s.queued < window {
			out = append(out, s)
		}
	}
	return out
}

// rarest issues the request for the rarest extent that one of the sources has.
func (p *plan) rarest(from []*source, company bool, now time.Time) *ask {
	best, bestRare, scanned := -1, 0, 0
	any := from[0].has == nil
	for _, s := range from {
		any = any || s.has == nil
	}
	for _, e := range p.order {
		c := p.todo.next(p.cut[e], nil)
		if c < 0 || c >= p.cut[e+1] || best >= 0 && int(p.rare[c]) >= bestRare {
			continue
		}
		if scanned++; scanned > scanExtents && best >= 0 {
			break
		}
		if !any && !offered(from, c) {
			continue
		}
		best, bestRare = c, int(p.rare[c])
		if bestRare == 0 || !company {
			break
		}
	}
	if best < 0 {
		return p.straggler(from, now)
	}
	return p.request(from, best, now)
}

// straggler issues a request for any chunk that one of the sources has: rarest looks at the first missing
// chunk of each extent alone.
func (p *plan) straggler(from []*source, now time.Time) *ask {
	for _, s := range from {
		if c := p.todo.next(0, s.has); c >= 0 {
			return p.request([]*source{s}, c, now)
		}
	}
	return nil
}

func offered(from []*source, chunk int) bool {
	for _, s := range from {
		if s.has == nil || s.has.has(chunk) {
			return true
		}
	}
	return false
}

// request asks the source that is expected to be through with it soonest for a chunk, and what else is
// missing of its extent.
func (p *plan) request(from []*source, first int, now time.Time) *ask {
	e := p.cut.of(first)
	var best *source
	var bestWait time.Duration
	for _, s := range from {
		if s.has != nil && !s.has.has(first) {
			continue
		}
		wait := s.expected(minExtent)
		if s.shy {
			wait += time.Hour // last of all
		}
		if best == nil || wait < bestWait || wait == bestWait && s.likelier(best) {
			best, bestWait = s, wait
		}
	}
	most := best.extent()
	a := &ask{to: best, force: best.shy}
	for c := first; c >= 0 && c < p.cut[e+1] && a.bytes < most; c = p.todo.next(c+1, best.has) {
		if size := sizeOf(p.chunks[c]); a.bytes+size <= maxExtent && len(a.chunks) < maxWant {
			a.chunks = append(a.chunks, c)
			a.bytes += size
		} else {
			break
		}
	}
	return p.issue(a, now)
}

// late issues a request for what is under way already: the rest of the oldest request that a free source is
// expected to be through with in a third of the time, or that another source is late with; while there is
// something else to ask for, only where that is a long time, or the source seems to have stalled.
func (p *plan) late(free []*source, now time.Time) *ask {
	last := p.todo.next(0, nil) < 0
	for _, a := range p.open {
		if a.chunks == nil {
			continue
		}
		left := a.hope.Sub(now)
		overdue := !now.Before(a.due) && (last || now.Sub(a.at) >= stallTime+4*a.hope.Sub(a.at))
		if !overdue && (left < hurryLeast || left < hurryEarly && !last) {
			continue
		}
		for _, s := range free {
			if a.to == s || !overdue && (s.shy || s.rate == 0 || 3*s.expected(a.bytes) > left) {
				continue
			}
			b := &ask{to: s, force: s.shy}
			for _, c := range a.chunks {
				if !p.got.has(c) && p.copies[c] < maxCopies && (s.has == nil || s.has.has(c)) {
					b.chunks = append(b.chunks, c)
					b.bytes += sizeOf(p.chunks[c])
				}
			}
			if b.chunks != nil {
				return p.issue(b, now)
			}
		}
	}
	return nil
}

func (p *plan) issue(a *ask, now time.Time) *ask {
	for _, c := range a.chunks {
		p.copies[c]++
		p.todo.clear(c)
	}
	a.to.open++
	a.to.queued += a.bytes
	p.file(a, now)
	p.hope(a, now)
	return a
}

func (p *plan) file(a *ask, now time.Time) *ask {
	p.nextID++
	a.id, a.at = p.nextID, now
	p.flight += a.bytes
	p.open = append(p.open, a)
	return a
}

// wake is when next may have something new although nothing happened; zero if never.
func (p *plan) wake() time.Time {
	var first time.Time
	for _, a := range p.open {
		if a.chunks != nil && len(p.sources) > 1 && (first.IsZero() || a.due.Before(first)) {
			first = a.due
		}
	}
	if first.IsZero() && p.missing > 0 && p.company() && !p.forcing {
		first = p.gained.Add(p.endurance())
	}
	return first
}

// starved reports whether s is idle for want of chunks that it has while some are to do.
func (p *plan) starved(s *source) bool {
	return s.has != nil && s.open == 0 && p.missing > 0 && p.todo.next(0, s.has) < 0
}

// whole says whether n is known to have the whole artifact, and wants nothing itself.
func (p *plan) whole(n id.Node) bool {
	s := p.source(n)
	return s != nil && s.known && s.has == nil
}

// sizeOf is the size of a chunk, or what is reckoned for one that nobody announced.
func sizeOf(c artifact.Chunk) int64 {
	if c.SizeBytes == 0 {
		return artifact.MaxChunk
	}
	return int64(c.SizeBytes)
}
