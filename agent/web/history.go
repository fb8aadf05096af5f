package web

import (
	"time"

	"meshd/agent/control"
)

// A state is what one cell of a strip shows: the worst that was seen of a node in one step of time.
// The letters are what the page draws; their order here is how bad they are.
const states = " krwd?f"

// The letters of states.
const (
	unseen   = ' ' // nobody looked: the page was not yet running
	kept     = 'k'
	repaired = 'r' // something was repaired in this step, nothing is worse
	waiting  = 'w'
	drifted  = 'd'
	noWord   = '?' // not heard from
	failed   = 'f'
)

// cells is the length of every strip.
const cells = 120

// steps are how long one cell of each strip lasts: ten minutes, two hours, a day.
var steps = [...]time.Duration{5 * time.Second, time.Minute, 12 * time.Minute}

// A history is what was seen of each node, by id: a ring of cells for each of steps. It is bounded by the nodes that
// are there: whoever leaves the lists is forgotten.
type history map[string]*past

type past struct {
	rings    [len(steps)]ring
	repaired int // how many promises stood as repaired when last looked
	known    bool
}

// A ring holds the cells up to the one numbered last; cell n is at n % cells. The zero ring is all unseen.
type ring struct {
	cell [cells]byte
	last int64
}

func newHistory() history { return history{} }

// mark notes that a node was in a state at a time. A cell keeps the worst.
func (h history) mark(node string, at time.Time, state byte) {
	p := h[node]
	if p == nil {
		p = &past{}
		h[node] = p
	}
	for i, step := range steps {
		p.rings[i].mark(number(at, step), state)
	}
}

// number is the number of the cell that at is in.
func number(at time.Time, step time.Duration) int64 { return at.UnixNano() / int64(step) }

func (r *ring) mark(n int64, state byte) {
	if n <= r.last-cells || n < 0 {
		return
	}
	if n-r.last >= cells {
		r.cell, r.last = [cells]byte{}, n
	}
	for r.last < n {
		r.last++
		r.cell[r.last%cells] = 0
	}
	if c := &r.cell[n%cells]; worse(state, *c) {
		*c = state
	}
}

func worse(a, b byte) bool { return rank(a) > rank(b) }

func rank(state byte) int {
	for i := range states {
		if states[i] == state {
			return i
		}
	}
	return 0
}

// at returns cell n, unseen where it is older than the ring or yet to come.
func (r *ring) at(n int64) byte {
	if n > r.last || n <= r.last-cells || n < 0 || r.cell[n%cells] == 0 {
		return unseen
	}
	return r.cell[n%cells]
}

// strip returns the cells up to number last, oldest first, of one node.
func (h history) strip(node string, step int, last int64) string {
	p := h[node]
	b := make([]byte, cells)
	for i := range b {
		b[i] = unseen
		if p != nil {
			b[i] = p.rings[step].at(last - int64(cells-1-i))
		}
	}
	return string(b)
}

// look notes how the members stand at a time, and forgets who is no member.
func (h history) look(members []control.Member, at time.Time) {
	there := make(map[string]bool, len(members))
	for _, m := range members {
		there[m.ID] = true
		h.mark(m.ID, at, h.state(m))
	}
	for id := range h {
		if !there[id] {
			delete(h, id)
		}
	}
}

// state says how a member stands. "Repaired" stays the last outcome of a promise until it is looked at again; what a
// strip shows is that something was repaired just then.
func (h history) state(m control.Member) byte {
	p := h[m.ID]
	if p == nil {
		p = &past{}
		h[m.ID] = p
	}
	fresh := p.known && m.Promises.Repaired > p.repaired
	p.repaired, p.known = m.Promises.Repaired, true
	switch {
	case m.Status != "alive" && m.Status != "suspect" && m.Status != "asleep":
		return noWord
	case m.Promises.Failed > 0:
		return failed
	case m.Promises.Drifted > 0:
		return drifted
	case m.Promises.Waiting > 0:
		return waiting
	case fresh:
		return repaired
	}
	return kept
}
