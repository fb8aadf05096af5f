package swarm

import (
	"slices"
	"sync"
)

// Buffers come in three sizes, so that a small answer does not hold the memory of a large one. Smaller
// ones than smallBuffer are not worth keeping.
const (
	smallBuffer  = 64 << 10
	middleBuffer = headRoom + 256<<10
	halfBuffer   = headRoom + maxExtent/2
	largeBuffer  = headRoom + maxExtent
)

// maxLent is how many bytes of buffers a pull and what else is lent then keep in memory, lent and spare; more are
// lent, but not kept. maxRest is the same when nothing is pulled: then each stream that serves needs one.
const (
	maxLent = maxHeld + 2*largeBuffer
	maxRest = 4 << 20
)

// buffers lends byte slices for whole extents, so that a transfer of any size allocates a window. They lie outside of
// the collector's memory where the system allows: it would keep as much again free, and let go of spare ones each time
// that it runs. So each is released once, by whoever holds it last.
type buffers struct {
	mu         sync.Mutex
	spare      []*buffer // given back, the last one last
	spareBytes int
	lentBytes  int
	pulls      int // that are under way
}

// A buffer is a borrowed slice. refs counts the chunks in it that are still needed; it belongs to
// whoever holds the buffer.
type buffer struct {
	b    []byte
	refs int
	all  []byte   // what b is a part of, unless it was outgrown
	home *buffers // nil: not worth keeping
}

// get lends a buffer of so many bytes, at most largeBuffer.
func (p *buffers) get(size int) *buffer {
	if size <= smallBuffer {
		return &buffer{b: make([]byte, size)}
	}
	most := largeBuffer
	if size <= middleBuffer {
		most = middleBuffer
	} else if size <= halfBuffer {
		most = halfBuffer
	}
	x := p.take(most)
	if x == nil {
		all, err := allocate(most)
		if err != nil {
			return &buffer{b: make([]byte, size)}
		}
		x = &buffer{all: all, home: p}
	}
	x.b, x.refs = x.all[:size], 0
	p.count(most)
	return x
}

func (p *buffers) count(lent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lentBytes += lent
}

// take returns the last spare buffer of exactly so many bytes: what was used last is in the processor's cache. If there
// is none it is nil, and spare ones of other sizes make room for a new one.
func (p *buffers) take(size int) *buffer {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.spare) - 1; i >= 0; i-- {
		if x := p.spare[i]; len(x.all) == size {
			p.forget(i)
			return x
		}
	}
	for made := 0; made < size && len(p.spare) > 0; {
		made += p.drop()
	}
	return nil
}

// forget takes one off the spare buffers. mu is held.
func (p *buffers) forget(i int) {
	p.spareBytes -= len(p.spare[i].all)
	p.spare = slices.Delete(p.spare, i, i+1)
}

// drop lets go of the buffer given back longest ago, and returns its size. mu is held.
func (p *buffers) drop() int {
	x := p.spare[0]
	p.forget(0)
	n := len(x.all)
	free(x.all)
	x.all = nil
	return n
}

// release gives the buffer back. Nobody may use its bytes any more.
func (x *buffer) release() {
	if x == nil || x.home == nil {
		return
	}
	p := x.home
	p.mu.Lock()
	defer p.mu.Unlock()
	x.b = nil
	p.lentBytes -= len(x.all)
	p.spare = append(p.spare, x)
	p.spareBytes += len(x.all)
	p.trim()
}

// pulling is told when a pull begins (1) and has ended (-1).
func (p *buffers) pulling(by int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pulls += by
	p.trim()
}

// trim lets go of spare buffers that are too many. mu is held.
func (p *buffers) trim() {
	most := maxLent
	if p.pulls == 0 {
		most = maxRest
	}
	for p.spareBytes+p.lentBytes > most && len(p.spare) > 0 {
		p.drop()
	}
}
