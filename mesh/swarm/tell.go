package swarm

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
	"meshd/store/artifact"
)

const (
	maxPeers  = 512 // nodes that one pull keeps in mind
	maxVain   = 16  // extents that a source may choose although they are here
	maxAbsent = 16  // chunks that a source may tell of although it has not got them: its disk may have lost some
)

// pullOf is the pull of an artifact that is under way here; nil for none.
func (s *Swarm) pullOf(root artifact.Digest) *pull {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, p := range s.pulls {
		if key.root == root {
			return p
		}
	}
	return nil
}

// onTell hands what a peer has to the pull of that artifact, or else to whoever serves it.
func (x *session) onTell(body []byte) error {
	t := new(tell)
	if err := decode(body, t); err != nil {
		return err
	}
	if len(t.Bits) > maxHave/8 {
		return &wire.LimitError{What: "bytes of marks", Limit: maxHave / 8, Got: len(t.Bits)}
	}
	others, err := nodes(t.Others)
	if err != nil {
		return err
	}
	if p := x.s.pullOf(t.Root); p != nil {
		return x.post(p, func() { p.heard(x, t, others) })
	}
	if !t.Answer {
		return nil
	}
	return x.onJob(job{kind: kindTell, root: t.Root, tell: t})
}

func (x *session) onMore(body []byte) error {
	var f more
	if err := decode(body, &f); err != nil {
		return err
	}
	if p := x.s.pullOf(f.Root); p != nil {
		return x.post(p, func() { p.more(x, f.Runs) })
	}
	return x.s.desks.more(x.peer, f.Root, f.Runs, time.Now())
}

func (x *session) onBye(body []byte) error {
	var f bye
	if err := decode(body, &f); err != nil {
		return err
	}
	if p := x.s.pullOf(f.Root); p != nil {
		return x.post(p, func() {
			if peer := p.peers[x.peer]; peer != nil && peer.x == x {
				p.refused(x.peer, max(refusal(f.Why), 1))
			}
		})
	}
	x.s.desks.bye(x.peer, f.Root)
	return nil
}

// post has the loop of a pull run f, unless the peer sends faster than that looks.
func (x *session) post(p *pull, f func()) error {
	if n := x.news.Add(1); n > maxNews {
		return &wire.LimitError{What: "announcements that were not looked at yet", Limit: maxNews, Got: int(n)}
	}
	p.post(func() {
		x.news.Add(-1)
		f()
	})
	return nil
}

// tell says to the far end of a peer's stream what is durable here, and has it answer in kind.
func (p *pull) tell(n id.Node, answer bool) {
	peer := p.peers[n]
	t := tell{Root: p.ref.Root, All: p.durable.count() == len(p.content.chunks), Answer: answer}
	if !t.All {
		t.Bits = p.durable.bytes(len(p.content.chunks))
	}
	if err := peer.x.reply(kindTell, &t); err != nil {
		p.fail(n, err)
		return
	}
	peer.listens = true
}

// heard takes what a peer has.
func (p *pull) heard(x *session, t *tell, others []id.Node) {
	n := x.peer
	if p.peers[n] == nil {
		if len(p.peers) >= maxPeers {
			return
		}
		p.peers[n] = &peer{}
	}
	peer := p.peers[n]
	if _, banned := p.s.banned(n); banned {
		return
	}
	peer.near = true
	if peer.x == nil {
		peer.x, peer.failed = x, 0
		p.join(n)
	}
	if p.content == nil || !p.plan.told {
		if p.content != nil && t.All {
			peer.haveAt = time.Time{}
			p.plan.learn(n, nil, false)
		}
		return // what part it has is told when that is known
	}
	has, err := t.bits(len(p.content.chunks))
	if err != nil {
		p.accuse(n, fmt.Errorf("what it says to have does not fit the artifact: %w", err))
		return
	}
	p.plan.learn(n, has, t.Shy)
	for _, o := range others {
		p.meet(o)
	}
	if t.Answer {
		p.tell(n, false)
	}
}

// meet makes a node one of those that are dialled first.
func (p *pull) meet(n id.Node) {
	if n.IsZero() || n == p.s.cfg.Self || p.peers[n] == nil && len(p.peers) >= maxPeers {
		return
	}
	if p.peers[n] == nil {
		p.peers[n] = &peer{}
	}
	p.peers[n].near = true
}

// more takes what a peer has got since.
func (p *pull) more(x *session, list []byte) {
	peer := p.peers[x.peer]
	if peer == nil || peer.x == nil || p.content == nil || !p.plan.told {
		return
	}
	chunks, err := parseRuns(list, len(p.content.chunks))
	if err != nil {
		p.accuse(x.peer, fmt.Errorf("what it says to have got does not fit the artifact: %w", err))
		return
	}
	p.plan.more(x.peer, chunks)
}

// promise has the far end told when the artifact is here, if it is on its way.
func (x *session) promise(root artifact.Digest) {
	p := x.s.pullOf(root)
	if p == nil {
		return
	}
	p.post(func() {
		if len(p.asked) < maxPeers {
			p.asked[x] = true
		}
	})
}

// here tells those who asked in vain that all is here now.
func (p *pull) here() {
	for x := range p.asked {
		if p.s.cfg.Allow(x.peer, p.ref.Root, p.content.maker) {
			_ = x.reply(kindTell, &tell{Root: p.ref.Root, All: true}) // a stream that takes no more frames ends by itself
		}
	}
}

// gone notes that a stream ended.
func (p *pull) gone(x *session, why error) {
	delete(p.asked, x)
	if peer := p.peers[x.peer]; peer != nil && peer.x == x {
		p.fail(x.peer, why)
	}
}

// announce tells those who want it what became durable, without what they have themselves.
func (p *pull) announce(written []int) {
	if p.content == nil || !p.plan.told || len(written) == 0 {
		return
	}
	slices.Sort(written)
	for _, s := range slices.Clone(p.plan.sources) {
		peer := p.peers[s.node]
		if peer == nil || peer.x == nil || !peer.listens || p.plan.whole(s.node) && !s.shy {
			continue
		}
		news := written
		if s.has != nil {
			news = slices.DeleteFunc(slices.Clone(written), s.has.has)
		}
		for list := runsOf(news); len(list) > 0; list = list[min(len(list), maxRuns):] {
			err := peer.x.reply(kindMore, &more{Root: p.ref.Root, Runs: list[:min(len(list), maxRuns)].bytes()})
			if err != nil {
				p.fail(s.node, err)
				break
			}
		}
	}
}

// farewell takes back what was told when the pull ends before its time.
func (p *pull) farewell() {
	for n, peer := range p.peers {
		if peer.x != nil && peer.listens {
			if err := peer.x.reply(kindBye, &bye{Root: p.ref.Root, Why: uint8(refusedAbsent)}); err != nil {
				p.s.log.Debug("end of a pull not told", "peer", n.Short(), "why", err)
			}
		}
	}
}

// choice checks what the source of a share chose, from the goroutine that reads the stream.
func (p *pull) choice(a *ask, content *manifest, list []byte) ([]artifact.Chunk, error) {
	chosen, err := parseRuns(list, len(content.chunks))
	if err != nil {
		return nil, err
	}
	count, bytes := 0, 0
	for _, r := range chosen {
		if count += r.to - r.from; count > maxWant {
			return nil, &wire.LimitError{What: "chunks chosen for a share", Limit: maxWant, Got: count}
		}
		for _, c := range content.chunks[r.from:r.to] {
			bytes += int(c.SizeBytes)
		}
	}
	switch {
	case count == 0:
		return nil, errors.New("no chunks chosen for a share")
	case bytes > maxExtent:
		return nil, &wire.LimitError{What: "bytes chosen for a share", Limit: maxExtent, Got: bytes}
	}
	indices := chosen.indices()
	chunks := make([]artifact.Chunk, count)
	for i, c := range indices {
		chunks[i] = content.chunks[c]
	}
	p.post(func() {
		if p.plan.isOpen(a) {
			p.granted(a, indices)
		}
	})
	return chunks, nil
}

// granted notes what a source chose; one that goes on choosing what is here already lies about what others lack.
func (p *pull) granted(a *ask, chunks []int) {
	p.plan.granted(a, chunks, time.Now())
	peer := p.peers[a.to.node]
	if slices.ContainsFunc(chunks, func(c int) bool { return !p.plan.got.has(c) }) {
		peer.vain = 0
		return
	}
	if peer.vain++; peer.vain > maxVain {
		p.accuse(a.to.node, fmt.Errorf("chose %d extents that were here", peer.vain))
	}
}
