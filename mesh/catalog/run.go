package catalog

import (
	"slices"
	"sort"
)

// blockMax is how many entries lie in one block of a run. Small ones cost pointers, large ones moves.
const (
	blockMax  = 256
	loadBlock = blockMax * 3 / 4 // where many are put in order at once: those that follow find room
)

// run is entries in an order, in blocks, so that one that comes or goes among a million moves a few
// hundred pointers. The order is its user's: it seeks where an entry belongs.
type run struct {
	blocks [][]*entry // none is empty
	n      int
}

// runOf returns a run of entries in order.
func runOf(list []*entry) run {
	r := run{n: len(list)}
	for block := range slices.Chunk(list, loadBlock) {
		r.blocks = append(r.blocks, slices.Clone(block))
	}
	return r
}

// place is where an entry is, or belongs, in a run; it holds until the run changes.
type place struct{ block, i int }

// seek returns the place of the first entry for which at is not negative: at compares an entry with what
// is sought.
func (r *run) seek(at func(*entry) int) place {
	b := sort.Search(len(r.blocks), func(b int) bool { return at(r.blocks[b][len(r.blocks[b])-1]) >= 0 })
	if b == len(r.blocks) {
		return place{b, 0}
	}
	list := r.blocks[b]
	return place{b, sort.Search(len(list), func(i int) bool { return at(list[i]) >= 0 })}
}

// at returns the entry at p, nil at the end.
func (r *run) at(p place) *entry {
	if p.block >= len(r.blocks) {
		return nil
	}
	return r.blocks[p.block][p.i]
}

// last returns the last entry, nil of an empty run.
func (r *run) last() *entry {
	if r.n == 0 {
		return nil
	}
	list := r.blocks[len(r.blocks)-1]
	return list[len(list)-1]
}

// before returns the entry before p, nil at the begin.
func (r *run) before(p place) *entry {
	switch {
	case p.i > 0:
		return r.blocks[p.block][p.i-1]
	case p.block > 0:
		list := r.blocks[p.block-1]
		return list[len(list)-1]
	}
	return nil
}

// insert puts e before what is at p.
func (r *run) insert(p place, e *entry) {
	r.n++
	if p.block == len(r.blocks) { // at the end: blocks that only grow there stay full
		if p.block == 0 || len(r.blocks[p.block-1]) == blockMax {
			r.blocks = append(r.blocks, []*entry{e})
		} else {
			r.blocks[p.block-1] = append(r.blocks[p.block-1], e)
		}
		return
	}
	list := r.blocks[p.block]
	if len(list) == blockMax {
		half := blockMax / 2
		r.blocks = slices.Insert(r.blocks, p.block+1, slices.Clone(list[half:]))
		clear(list[half:])
		list = list[:half]
		r.blocks[p.block] = list
		if p.i > half {
			p = place{p.block + 1, p.i - half}
			list = r.blocks[p.block]
		}
	}
	r.blocks[p.block] = slices.Insert(list, p.i, e)
}

// remove takes out what is at p.
func (r *run) remove(p place) {
	r.n--
	list := slices.Delete(r.blocks[p.block], p.i, p.i+1)
	if len(list) == 0 {
		r.blocks = slices.Delete(r.blocks, p.block, p.block+1)
		return
	}
	r.blocks[p.block] = list
}

// each calls f for the entries from p on, until f returns false. The run must not change meanwhile.
func (r *run) each(p place, f func(*entry) bool) {
	for ; p.block < len(r.blocks); p = (place{p.block + 1, 0}) {
		for _, e := range r.blocks[p.block][p.i:] {
			if !f(e) {
				return
			}
		}
	}
}

// list returns all entries.
func (r *run) list() []*entry { return slices.Concat(r.blocks...) }
