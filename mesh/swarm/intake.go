package swarm

import (
	"fmt"
	"slices"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

const (
	batch     = 8 << 20               // bytes that are written at once
	batchTime = 50 * time.Millisecond // that verified chunks wait to become a batch: lost to a crash
	newsTime  = 30 * time.Millisecond // the same while others wait to hear of them
	maxHeld   = 20 << 20              // bytes asked, received and not yet durable: 8 gather, 8 are written
)

// A verified chunk lies in a buffer that is released when all its chunks are durable.
type verified struct {
	id      artifact.Digest
	b       []byte
	buf     *buffer
	index   int  // in the manifest
	content bool // counts as progress
}

// answer takes what came of a request.
func (p *pull) answer(a *ask, ans answer) {
	if !p.plan.isOpen(a) {
		if ans.body != nil {
			p.s.stats.wasted.Add(int64(len(ans.body.b)))
			ans.body.release()
		}
		return
	}
	delete(p.requests, a)
	n := a.to.node
	switch {
	case ans.err != nil:
		p.fail(n, ans.err)
	case ans.refused == refusedElsewhere && a.to.has == nil:
		p.plan.redirected(a)
		p.meet(ans.at)
	case ans.refused != 0:
		p.refused(n, ans.refused)
	default:
		p.take(a, ans)
	}
}

// take verifies the chunks of an answer, each before anything else sees it, and queues them to be
// written.
func (p *pull) take(a *ask, ans answer) {
	now, rest, absent := time.Now(), ans.body.b, 0
	size := int64(len(rest))
	var lie error
	for i, c := range a.chunks {
		if ans.absent != nil && ans.absent.has(i) {
			p.plan.lacks(a, i)
			absent++
			continue
		}
		want := p.plan.chunks[c]
		n := int(want.SizeBytes)
		if n == 0 {
			n = len(rest)
		}
		b := rest[:n:n]
		rest = rest[n:]
		if p.plan.got.has(c) {
			p.s.stats.wasted.Add(int64(n))
			continue
		}
		if got := artifact.Sum(b); got != want.ID {
			lie = fmt.Errorf("sent a chunk that is %s, want %s", got, want.ID)
			p.s.stats.wasted.Add(int64(n + len(rest)))
			break
		}
		p.plan.arrived(a, i, now)
		p.hold(c, want.ID, b, ans.body, now)
	}
	if ans.body.refs == 0 {
		ans.body.release()
	}
	if lie != nil {
		p.accuse(a.to.node, lie)
		return
	}
	if peer := p.peers[a.to.node]; peer != nil {
		peer.failed = 0
	}
	p.plan.answered(a, now, size)
	if p.plan.told && absent > 0 && p.boasts(a.to.node, absent) {
		return
	}
	if p.content == nil && ans.absent != nil {
		p.refused(a.to.node, refusedAbsent) // it is still fetching the manifest itself
	}
}

// boasts counts chunks that a peer said to have and has not got; more than its store may have lost are a lie.
func (p *pull) boasts(n id.Node, absent int) bool {
	peer := p.peers[n]
	if peer == nil {
		return false
	}
	if peer.absent += absent; peer.absent <= maxAbsent {
		return false
	}
	p.accuse(n, fmt.Errorf("said to have %d chunks that it has not got", peer.absent))
	return true
}

// hold queues a verified chunk to be written.
func (p *pull) hold(index int, id artifact.Digest, b []byte, buf *buffer, now time.Time) {
	p.s.stats.pulled.Add(int64(len(b)))
	if p.small != nil {
		p.small[index] = slices.Clone(b)
	}
	if len(p.ready) == 0 {
		p.readyAt = now
	}
	buf.refs++
	p.ready = append(p.ready, verified{id: id, b: b, buf: buf, index: index, content: p.content != nil})
	p.readyBytes += int64(len(b))
}

func (p *pull) batchTime() time.Duration {
	if p.plan.company() {
		return newsTime
	}
	return batchTime
}

// flush writes a batch, when there is a full one, or no more to come, or it has waited long enough;
// one at a time.
func (p *pull) flush() {
	full := p.readyBytes >= batch || p.content != nil && p.plan.missing == 0 || time.Since(p.readyAt) >= p.batchTime()
	if len(p.ready) == 0 || p.writing > 0 || p.failed != nil || !full {
		return
	}
	n := 0
	for n < len(p.ready) && p.writing+int64(len(p.ready[n].b)) <= batch {
		p.writing += int64(len(p.ready[n].b))
		n++
	}
	written := p.ready[:n:n]
	p.ready = slices.Clone(p.ready[n:])
	p.readyBytes -= p.writing
	p.readyAt = time.Now()
	p.work.Go(func() {
		err := p.s.keepChunks(written)
		p.post(func() { p.wrote(written, err) })
	})
}

func (p *pull) wrote(written []verified, err error) {
	p.writing = 0
	var content int64
	var chunks []int
	for _, v := range written {
		if v.buf.refs--; v.buf.refs == 0 {
			v.buf.release()
		}
		if v.content {
			content += int64(len(v.b))
			chunks = append(chunks, v.index)
		}
	}
	if err != nil {
		p.failed = fmt.Errorf("keep %d chunks: %w", len(written), err)
		return
	}
	for _, c := range chunks {
		p.durable.set(c)
	}
	p.announce(chunks)
	if content > 0 {
		p.advance(content, p.progress.total)
	}
}

// keepChunks writes verified chunks, with their names where the store takes them.
func (s *Swarm) keepChunks(written []verified) error {
	ids, chunks := make([]artifact.Digest, len(written)), make([][]byte, len(written))
	for i, v := range written {
		ids[i], chunks[i] = v.id, v.b
	}
	if store, ok := s.cfg.Chunks.(NamedChunks); ok {
		return store.WriteNamed(ids, chunks)
	}
	return s.cfg.Chunks.Write(chunks)
}
