package swarm

import (
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

const (
	softCredit = 2                      // extents that a wanter was given and nobody has from it yet, while others may take them
	hardCredit = 16                     // the most, however idle this node is
	firstHard  = 4                      // the same, before it is known how long spreading takes
	idleSends  = 2                      // given extents on their way, fewer than which this node counts as idle
	maxSends   = 16                     // given extents on their way at once: enough to fill any link,
	sendTime   = 2 * time.Second        // not counting those that take longer
	graceLeast = 500 * time.Millisecond // an extent is overdue so long after it was given,
	graceTimes = 2                      // and so many times what one usually takes to spread
	slowTimes  = 2                      // a wanter is slow when what it owes takes so many times as long as the others',
	slowLeast  = 100 * time.Millisecond // and this
	partTime   = time.Second            // without a gift, until a holder gives what other holders should
	deadTime   = 3 * time.Second        // a wanter that was given something and announced nothing for so long counts as gone
)

// A desk hands out an artifact that this node has whole to those who want it, so that each byte leaves
// about once: every extent goes to one first fetcher, from whom the others take it. It is the holder's
// half of the swarm's pure core: what wanters announce and the time go in, who is given what comes out.
// Not safe for concurrent use.
//
// First fetcher is the best rendezvous rank among the live wanters that still have credit. Credit is what
// makes the share of each follow its rate: who was given extents that nobody has from it yet waits until
// they have spread, so the slow get few. An extent whose first fetcher went away, or is overdue when there
// is nothing else to give, is given once more.
type desk struct {
	key     []byte // of the rendezvous: the root
	chunks  []artifact.Chunk
	cut     extents
	wanters map[id.Node]*wanter
	given   []gift // by extent
	have    []int  // wanters that have the whole of each extent
	first   []*wanter
	ranked  bool // first is up to date
	short   int  // wanters that lack something
	freed   bool // something spread since the last look
	sends   []send
	fresh   int // extents below this one are known not to be fresh
	gave    time.Time
	pace    time.Duration // between two gifts, smoothed
	spread  time.Duration // from giving an extent until a second wanter has it, smoothed
}

// A send is a given extent whose bytes are not all written.
type send struct {
	extent int
	to     *wanter
	at     time.Time
}

// A gift says who fetches an extent first.
type gift struct {
	to *wanter // nil: nobody yet
	at time.Time
}

// A wanter is a node that asked for the artifact over a stream that is open.
type wanter struct {
	node    id.Node
	seat    seat
	has     bitset        // chunks
	lacks   []int32       // chunks of each extent that it has not got
	lacking int           // extents of which it lacks a chunk
	owes    []int         // extents it was given and that did not spread yet
	spread  time.Duration // what its last one took to spread
	heard   time.Time
	waits   time.Time // when a share of it was last told to wait; zero if none waits
	gone    bool
}

func newDesk(root artifact.Digest, chunks []artifact.Chunk) *desk {
	cut := cutExtents(chunks)
	return &desk{
		key: root[:], chunks: chunks, cut: cut, wanters: map[id.Node]*wanter{},
		given: make([]gift, cut.count()), have: make([]int, cut.count()), first: make([]*wanter, cut.count()),
	}
}

// tell notes what a wanter has: the chunks of has, nil for all. It replaces what was known.
func (d *desk) tell(n id.Node, has bitset, now time.Time) {
	w := d.wanters[n]
	if w == nil {
		w = &wanter{node: n, seat: seatOf(d.key, n)}
		d.wanters[n] = w
		d.ranked = false
	} else {
		d.forget(w)
	}
	w.heard = now
	w.has = newBitset(len(d.chunks))
	w.lacks = make([]int32, d.cut.count())
	for e := range w.lacks {
		w.lacks[e] = int32(d.cut[e+1] - d.cut[e])
	}
	w.lacking = len(w.lacks)
	if w.lacking > 0 {
		d.short++
	}
	for c := range d.chunks {
		if has == nil || has.has(c) {
			d.gain(w, c, now)
		}
	}
}

// forget takes what w has out of the counts.
func (d *desk) forget(w *wanter) {
	for e, lacks := range w.lacks {
		if lacks == 0 {
			d.have[e]--
		}
	}
	if w.lacking > 0 {
		d.short--
	}
	d.fresh = 0
}

// more notes chunks that a wanter has got since. freed says that give may say yes where it said no before.
func (d *desk) more(n id.Node, chunks runs, now time.Time) (freed bool) {
	w := d.wanters[n]
	if w == nil {
		return false
	}
	d.freed = false
	w.heard = now
	for _, r := range chunks {
		for c := r.from; c < r.to; c++ {
			d.gain(w, c, now)
		}
	}
	return d.freed || w.lacking == 0
}

func (d *desk) gain(w *wanter, c int, now time.Time) {
	if w.has.has(c) {
		return
	}
	w.has.set(c)
	e := d.cut.of(c)
	if w.lacks[e]--; w.lacks[e] > 0 {
		return
	}
	if w.lacking--; w.lacking == 0 {
		d.short--
	}
	d.have[e]++
	if g := &d.given[e]; g.to != nil && d.have[e] == min(2, len(d.wanters)) {
		d.freed = true
		took := now.Sub(g.at)
		g.to.spread = took
		if d.spread == 0 {
			d.spread = took
		} else {
			d.spread += (took - d.spread) / 8
		}
	}
}

// leave notes that a wanter can no longer be reached.
func (d *desk) leave(n id.Node) {
	w := d.wanters[n]
	if w == nil {
		return
	}
	d.forget(w)
	w.gone = true
	delete(d.wanters, n)
	d.ranked = false
}

// others is how many live wanters there are besides n that lack something.
func (d *desk) others(n id.Node) int {
	if w := d.wanters[n]; w != nil && w.lacking > 0 {
		return d.short - 1
	}
	return d.short
}

// give chooses the extent that n fetches next, of those it lacks; ok is false if it has to wait, or to take
// what others have. Of several holders n prefers to take from this one those of its part. The caller sends
// the extent and calls sent.
func (d *desk) give(n id.Node, part, parts int, now time.Time) (extent int, ok bool) {
	w := d.wanters[n]
	if w == nil || w.lacking == 0 {
		return 0, false
	}
	alone := d.others(n) == 0
	if !alone && (d.busy(now) || !d.trusts(w, now) || d.better(w, now)) {
		w.waits = now
		return 0, false
	}
	best, bestScore := -1, -1
	d.rank()
	skip := true
	for e := d.fresh; e < len(d.given); e++ {
		if !d.isFresh(e, now) {
			if skip && d.have[e] > 0 {
				d.fresh = e + 1
			}
			continue
		}
		skip = false
		if w.lacks[e] == 0 {
			continue
		}
		if parts > 1 && e%parts != part && now.Sub(d.gave) < partTime {
			continue // another holder's to give
		}
		score := 0
		if d.first[e] == w {
			score = 1
		}
		if score > bestScore {
			best, bestScore = e, score
			if score == 1 {
				break
			}
		}
	}
	if best < 0 {
		best = d.overdue(w, now)
	}
	if best < 0 {
		return 0, false
	}
	w.waits = time.Time{}
	d.grant(w, best, now)
	if !d.gave.IsZero() {
		d.pace += (now.Sub(d.gave) - d.pace) / 8
	}
	d.gave = now
	d.sends = append(d.sends, send{best, w, now})
	return best, true
}

// sent notes that the bytes of what a wanter was given are written, or never will be.
func (d *desk) sent(n id.Node) {
	for i, s := range d.sends {
		if s.to.node == n {
			d.sends = append(d.sends[:i], d.sends[i+1:]...)
			return
		}
	}
}

// busy says that enough is on its way.
func (d *desk) busy(now time.Time) bool {
	n := 0
	for _, s := range d.sends {
		if now.Sub(s.at) < sendTime {
			n++
		}
	}
	return n >= maxSends
}

func (d *desk) grant(w *wanter, e int, now time.Time) {
	d.given[e] = gift{to: w, at: now}
	w.owes = append(w.owes, e)
	if len(w.owes) == 1 {
		w.heard = now
	}
}

// trusts says whether w has credit for one more: not while what it was given takes longer to spread than
// the others' does.
func (d *desk) trusts(w *wanter, now time.Time) bool {
	owes := w.owes[:0]
	for _, e := range w.owes {
		if d.given[e].to == w && d.have[e] < 2 {
			owes = append(owes, e)
		}
	}
	w.owes = owes
	hard := hardCredit
	if d.spread == 0 {
		hard = firstHard
	} else if w.spread > slowTimes*d.spread+slowLeast && time.Duration(d.left(now))*d.pace < w.spread {
		return false // the others would have all before that spreads
	} else if len(owes) > 0 && now.Sub(d.given[owes[0]].at) > slowTimes*d.spread+slowLeast {
		return false
	}
	return len(owes) < softCredit || len(d.sends) < idleSends && len(owes) < hard
}

// better says that another wanter waits that owes less: the work of passing on is to be even, above all in the end.
func (d *desk) better(w *wanter, now time.Time) bool {
	for _, o := range d.wanters {
		if o != w && o.lacking > 0 && now.Sub(o.waits) < 2*shareTime && len(o.owes) < len(w.owes) && d.trusts(o, now) {
			return true
		}
	}
	return false
}

// left is how many extents are fresh.
func (d *desk) left(now time.Time) int {
	n := 0
	for e := d.fresh; e < len(d.given); e++ {
		if d.isFresh(e, now) {
			n++
		}
	}
	return n
}

// isFresh says whether nobody has the extent and nobody is fetching it.
func (d *desk) isFresh(e int, now time.Time) bool {
	g := d.given[e]
	return d.have[e] == 0 && (g.to == nil || g.to.gone || now.Sub(g.at) > deadTime && now.Sub(g.to.heard) > deadTime)
}

// overdue is the extent that was given longest ago to somebody from whom nobody has it yet, although it
// should have spread; -1 for none.
func (d *desk) overdue(w *wanter, now time.Time) int {
	if len(d.sends) > 0 {
		return -1 // one at a time
	}
	grace := max(graceLeast, graceTimes*d.spread)
	best := -1
	for e, g := range d.given {
		if w.lacks[e] == 0 || g.to == nil || now.Sub(g.at) < grace || d.have[e] > 1 {
			continue
		}
		if g.to == w && d.have[e] == 0 {
			continue // it is on its way
		}
		if best < 0 || g.at.Before(d.given[best].at) {
			best = e
		}
	}
	return best
}

// rank finds the first fetcher of each extent.
func (d *desk) rank() {
	if d.ranked {
		return
	}
	d.ranked = true
	for e := range d.first {
		var best uint64
		d.first[e] = nil
		for _, w := range d.wanters {
			if x := w.seat.weight(e); d.first[e] == nil || x > best {
				d.first[e], best = w, x
			}
		}
	}
}

// elsewhere is the wanter from which n should take a chunk that it asks this node for by name; ok is false
// if this node is to send it itself, and counts as given then.
func (d *desk) elsewhere(n id.Node, c int, now time.Time) (at id.Node, ok bool) {
	e := d.cut.of(c)
	w, g := d.wanters[n], d.given[e]
	if w == nil {
		return at, false
	}
	if g.to != nil && g.to != w && !g.to.gone && !d.isFresh(e, now) {
		return g.to.node, true
	}
	if d.have[e] > 0 && w.lacks[e] > 0 {
		for _, o := range d.wanters {
			if o != w && o.lacks[e] == 0 && (!ok || o.node.Compare(at) < 0) {
				at, ok = o.node, true
			}
		}
		if ok {
			return at, true
		}
	}
	if g.to != w {
		d.grant(w, e, now)
	}
	return at, false
}
