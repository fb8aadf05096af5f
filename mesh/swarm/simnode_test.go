package swarm

import (
	"slices"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

const (
	simRate    = 5e6 // bytes a second: 40 Mbit/s
	simSize    = 32 << 20
	simChunk   = 64 << 10
	simDelay   = time.Millisecond
	simDurable = 15 * time.Millisecond // what a batch takes to become durable
)

// A simNode is a node of the simulated mesh: the two halves of the core, and nothing else of a swarm.
type simNode struct {
	sim   *sim
	index int
	id    id.Node
	link  *simLink
	peers map[int]*simPeer
	desk  *desk // of those that have all from the beginning
	plan  *plan
	held  bitset // durable

	ready    []int // verified, not durable
	writing  bool
	synced   time.Duration // when a batch last began to become durable
	ticking  bool
	liar     bool
	finished time.Duration
	started  time.Duration
	wasted   int64
	last     time.Duration // when the last given extent was sent
}

// A simPeer is a node's side of one stream.
type simPeer struct {
	stream *simStream
	wants  []*simWant // of the peer, not served yet
	told   bool       // the peer wants what this node announces
	sent   bitset     // what the peer has, as it said
	banned bool
}

type simWant struct {
	from *simNode
	ask  *ask
	live func() bool
}

type sim struct {
	simnet
	chunks   []artifact.Chunk
	epoch    time.Time
	served   map[int]int64 // content bytes by node
	redirect int
}

type simSpec struct {
	peers, origins int
	size           int64
	rate           float64
	delay          time.Duration
	degree         int                     // streams that a peer opens; 0: to all
	slow           map[int]float64         // peer number to rate
	liars          []int                   // peers that answer with false bytes
	stagger        func(int) time.Duration // when a peer begins
}

func newSim(spec simSpec) *sim {
	s := &sim{epoch: time.Unix(1, 0), served: map[int]int64{}}
	for left := spec.size; left > 0; left -= simChunk {
		s.chunks = append(s.chunks, artifact.Chunk{SizeBytes: uint32(min(left, simChunk))})
	}
	for i := range spec.origins + spec.peers {
		rate := spec.rate
		if r, ok := spec.slow[i-spec.origins]; ok {
			rate = r
		}
		n := &simNode{sim: s, index: i, peers: map[int]*simPeer{}, link: &simLink{rateUp: rate, rateDown: rate, delay: spec.delay}}
		h := mix(uint64(i) + 77)
		for j := range n.id {
			n.id[j] = byte(h >> (8 * (j % 8)))
		}
		n.id[15] = byte(i)
		n.held = newBitset(len(s.chunks))
		if i < spec.origins {
			n.patrol()
			n.held.fill(len(s.chunks))
			n.desk = newDesk(artifact.Digest{1}, s.chunks)
		}
		n.liar = slices.Contains(spec.liars, i-spec.origins)
		s.nodes = append(s.nodes, n)
	}
	for i := spec.origins; i < len(s.nodes); i++ {
		n := s.nodes[i]
		start := time.Duration(0)
		if spec.stagger != nil {
			start = spec.stagger(i - spec.origins)
		}
		s.after(start, func() { n.begin(spec) })
	}
	return s
}

func (s *sim) at() time.Time { return s.epoch.Add(s.now) }

// begin starts a pull, and opens streams to the origins and others.
func (n *simNode) begin(spec simSpec) {
	n.started = n.sim.now
	lack := newBitset(len(n.sim.chunks))
	lack.fill(len(n.sim.chunks))
	n.plan = newPlan(7, n.id)
	n.plan.begin(n.sim.chunks, lack, true, n.sim.at())
	var others []id.Node
	byID := map[id.Node]*simNode{}
	for _, o := range n.sim.nodes[spec.origins:] {
		if o != n {
			others = append(others, o.id)
			byID[o.id] = o
		}
	}
	if spec.degree > 0 {
		others = id.Rank(n.id[:], others)
		others = others[:min(len(others), spec.degree)]
	}
	for _, o := range n.sim.nodes[:spec.origins] {
		n.open(o)
	}
	for _, o := range others {
		if o := byID[o]; o.plan != nil {
			n.open(o)
		}
	}
	n.look()
}

// open makes a stream between two nodes, over which each tells the other what it has.
func (n *simNode) open(o *simNode) {
	if n.peers[o.index] != nil || n.link.dead || o.link.dead {
		return
	}
	for _, pair := range [][2]*simNode{{n, o}, {o, n}} {
		from, to := pair[0], pair[1]
		p := &simPeer{sent: newBitset(len(n.sim.chunks))}
		p.stream = &simStream{net: &n.sim.simnet, from: from, to: to, jobs: func() (simFrame, bool) { return from.serve(to, p) }}
		from.peers[to.index] = p
		from.link.streams = append(from.link.streams, p.stream)
	}
	if n.plan != nil {
		n.plan.join(o.id)
		n.tell(o)
	}
	if o.plan != nil && o.finished == 0 {
		o.plan.join(n.id)
		o.tell(n)
	}
}

// tell sends all that a node has; the other one answers in kind, unless it did before.
func (n *simNode) tell(o *simNode) {
	p := n.peers[o.index]
	p.told = true
	has := slices.Clone(n.held)
	shy := n.desk != nil && n.desk.others(o.id) > 0
	whole := has.count() == len(n.sim.chunks)
	p.stream.send(simFrame{bytes: headerBytes + int64(len(n.sim.chunks)/8), deliver: func() {
		o.heard(n, has, whole, shy)
	}})
}

func (o *simNode) heard(n *simNode, has bitset, whole, shy bool) {
	back := o.peers[n.index]
	if back == nil || o.link.dead {
		return
	}
	copy(back.sent, has)
	if o.desk != nil {
		before := o.desk.others(id.Node{})
		o.desk.tell(n.id, has, o.sim.at())
		if before < 2 && o.desk.others(id.Node{}) > 1 {
			for _, w := range o.sim.nodes {
				if o.peers[w.index] != nil && o.peers[w.index].told {
					o.tell(w)
				}
			}
		}
		o.kick()
	}
	if o.plan != nil && o.finished == 0 {
		if whole {
			has = nil
		}
		o.plan.learn(n.id, has, shy)
		o.look()
	}
	if !back.told {
		o.tell(n)
	}
}

// patrol has a holder look again at shares that wait although nothing happens.
func (n *simNode) patrol() {
	n.sim.after(shareTime, func() {
		n.kick()
		n.patrol()
	})
}

// kick lets all streams of a node look for something to serve.
func (n *simNode) kick() {
	for _, x := range n.link.streams {
		x.fill()
	}
}

// look makes the requests that the plan has now.
func (n *simNode) look() {
	if n.plan == nil || n.finished > 0 || n.link.dead {
		return
	}
	now := n.sim.at()
	obsolete, late := n.plan.giveUp(now)
	for range obsolete {
	}
	for _, a := range late {
		n.plan.leave(a.to.node)
	}
	for _, a := range n.plan.next(now, maxHeld-n.plan.flight) {
		n.request(a)
	}
	if wake := n.plan.wake(); !wake.IsZero() && !n.ticking {
		n.ticking = true
		n.sim.after(max(wake.Sub(now), time.Millisecond), func() {
			n.ticking = false
			n.look()
		})
	}
}

func (n *simNode) byID(of id.Node) *simNode {
	for _, o := range n.sim.nodes {
		if o.id == of {
			return o
		}
	}
	return nil
}

func (n *simNode) request(a *ask) {
	o := n.byID(a.to.node)
	w := &simWant{from: n, ask: a, live: func() bool { return n.plan.isOpen(a) && !n.link.dead }}
	n.peers[o.index].stream.send(simFrame{bytes: headerBytes + 33*int64(len(a.chunks)), deliver: func() {
		if p := o.peers[n.index]; p != nil {
			p.wants = append(p.wants, w)
			p.stream.fill()
		}
	}})
}

// serve is the next answer on a stream: the oldest request that can be answered now.
func (n *simNode) serve(to *simNode, p *simPeer) (simFrame, bool) {
	if n.link.dead {
		return simFrame{}, false
	}
	now := n.sim.at()
	for i := 0; i < len(p.wants); i++ {
		w := p.wants[i]
		if !w.live() { // cancelled
			p.wants = slices.Delete(p.wants, i, i+1)
			i--
			continue
		}
		a := w.ask
		if a.share {
			e, ok := n.desk.give(to.id, a.part, a.parts, now)
			if !ok {
				continue
			}
			p.wants = slices.Delete(p.wants, i, i+1)
			var chunks []int
			for c := n.desk.cut[e]; c < n.desk.cut[e+1]; c++ {
				if !p.sent.has(c) {
					chunks = append(chunks, c)
				}
			}
			return n.answer(to, a, chunks, true), true
		}
		p.wants = slices.Delete(p.wants, i, i+1)
		if n.desk != nil && !a.force {
			if at, ok := n.desk.elsewhere(to.id, a.chunks[0], now); ok {
				n.sim.redirect++
				return simFrame{bytes: headerBytes, deliver: func() {
					if to.plan.isOpen(a) {
						to.plan.redirected(a)
						if o := n.byID(at); o != nil {
							to.open(o)
						}
						to.look()
					}
				}}, true
			}
		}
		return n.answer(to, a, a.chunks, false), true
	}
	return simFrame{}, false
}

func (n *simNode) answer(to *simNode, a *ask, chunks []int, given bool) simFrame {
	var bytes int64
	for _, c := range chunks {
		if !n.held.has(c) {
			panic("asked for what it has not got")
		}
		bytes += sizeOf(n.sim.chunks[c])
	}
	n.sim.served[n.index] += bytes
	return simFrame{bytes: headerBytes + bytes, sent: func() {
		if given {
			n.desk.sent(to.id)
			n.last = n.sim.now
			n.kick()
		}
	}, deliver: func() { to.take(n, a, chunks, given, bytes) }}
}

// take is what a puller does with an answer.
func (n *simNode) take(from *simNode, a *ask, chunks []int, given bool, bytes int64) {
	if n.link.dead || n.finished > 0 || !n.plan.isOpen(a) {
		n.wasted += bytes
		return
	}
	now := n.sim.at()
	if given {
		n.plan.granted(a, chunks, a.at)
	}
	if from.liar {
		n.wasted += bytes
		n.plan.leave(from.id)
		n.peers[from.index].banned = true
		n.look()
		return
	}
	for i, c := range chunks {
		if n.plan.arrived(a, i, now) {
			n.ready = append(n.ready, c)
		} else {
			n.wasted += sizeOf(n.sim.chunks[c])
		}
	}
	n.plan.answered(a, now, bytes)
	n.flush()
	n.look()
}

// flush makes what came durable, a batch at a time, and then tells the others.
func (n *simNode) flush() {
	if n.writing || len(n.ready) == 0 {
		return
	}
	n.writing = true
	n.sim.after(max(0, n.synced+newsTime-n.sim.now), func() {
		n.synced = n.sim.now
		batch := n.ready
		n.ready = nil
		n.sim.after(simDurable, func() {
			n.writing = false
			for _, c := range batch {
				n.held.set(c)
			}
			if n.plan.missing == 0 && len(n.ready) == 0 && n.finished == 0 {
				n.finished = n.sim.now
			}
			n.news(batch)
			n.flush()
		})
	})
}

func (n *simNode) news(chunks []int) {
	slices.Sort(chunks)
	list := runsOf(chunks)
	for _, o := range n.sim.nodes {
		p := n.peers[o.index]
		if p == nil || !p.told || p.stream.closed {
			continue
		}
		p.stream.send(simFrame{bytes: headerBytes + 4*int64(len(list)), deliver: func() {
			back := o.peers[n.index]
			for _, c := range chunks {
				back.sent.set(c)
			}
			if o.desk != nil {
				if o.desk.more(n.id, list, o.sim.at()) {
					o.kick()
				}
			}
			if o.plan != nil && o.finished == 0 && !back.banned {
				o.plan.more(n.id, list)
				o.look()
			}
		}})
	}
}

// kill ends a node and its streams.
func (n *simNode) kill() {
	n.link.dead = true
	for _, o := range n.sim.nodes {
		p := o.peers[n.index]
		if p == nil {
			continue
		}
		p.stream.closed = true
		n.peers[o.index].stream.closed = true
		p.told = false
		o.sim.after(simDelay, func() {
			if o.desk != nil {
				o.desk.leave(n.id)
				o.kick()
			}
			if o.plan != nil {
				o.plan.leave(n.id)
				o.look()
			}
		})
	}
}

// done says whether all that live have all.
func (s *sim) done() bool {
	for _, n := range s.nodes {
		if n.desk == nil && n.finished == 0 && !n.link.dead {
			return false
		}
	}
	return true
}
