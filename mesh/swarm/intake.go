package swarm

import (
	"fmt"
	"slices"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

const (
	batch     = 8 << 20               // bytes that become durable at once
	batchTime = 50 * time.Millisecond // that what was written waits to become durable: lost to a crash
	newsTime  = 30 * time.Millisecond // between two batches while others wait to hear of them
	maxWrite  = 2 << 20               // bytes of one write: what verifying left in the processor's cache
	maxHeld   = 8 << 20               // bytes asked, received and not yet written
)

// A verified chunk lies in a buffer that is released when all its chunks are durable.
type verified struct {
	artifact.Summed
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
		got := artifact.SumUp(b)
		if got.ID != want.ID {
			lie = fmt.Errorf("sent a chunk that is %s, want %s", got.ID, want.ID)
			p.s.stats.wasted.Add(int64(n + len(rest)))
			break
		}
		p.plan.arrived(a, i, now)
		p.hold(c, got, ans.body)
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
func (p *pull) hold(index int, c artifact.Summed, buf *buffer) {
	p.s.stats.pulled.Add(int64(len(c.Bytes)))
	if p.keep != nil {
		p.keep(index, c.Bytes)
	}
	buf.refs++
	p.held[buf] = struct{}{}
	p.ready = append(p.ready, verified{Summed: c, buf: buf, index: index, content: p.content != nil})
	p.readyBytes += int64(len(c.Bytes))
}

// flush hands on what came: chunks are written as soon as the disk takes them, which frees their memory, and
// become durable a batch at a time. One write and one commit are under way at most.
func (p *pull) flush() {
	if p.failed == nil {
		p.write()
		p.commit()
	}
}

// write writes what is ready, as far as it fits the batch. The last write of all makes it durable too.
func (p *pull) write() {
	if len(p.ready) == 0 || p.writing > 0 {
		return
	}
	n := 0
	for n < len(p.ready) && p.writing+int64(len(p.ready[n].Bytes)) <= min(maxWrite, batch-p.fresh.bytes) {
		p.writing += int64(len(p.ready[n].Bytes))
		n++
	}
	if n == 0 {
		return // the batch is full
	}
	written := p.ready[:n:n]
	p.ready = slices.Clone(p.ready[n:])
	p.readyBytes -= p.writing
	if p.fresh.to == nil {
		p.fresh = unsynced{to: p.s.begin(), from: time.Now()}
	}
	to, last := p.fresh.to, p.complete() && !p.committing
	p.committing = p.committing || last
	p.work.Go(func() {
		err := writeTo(to, written)
		if last {
			if err == nil {
				err = to.Commit()
			}
			to.Close()
		}
		p.post(func() { p.wrote(written, last, err) })
	})
}

func writeTo(to artifact.Batch, written []verified) error {
	chunks := make([]artifact.Summed, len(written))
	for i, v := range written {
		chunks[i] = v.Summed
	}
	return to.Write(chunks)
}

// complete reports whether nothing more is to come.
func (p *pull) complete() bool { return p.content != nil && p.plan.missing == 0 && len(p.ready) == 0 }

func (p *pull) wrote(written []verified, durable bool, err error) {
	p.writing = 0
	for _, v := range written {
		if v.buf.refs--; v.buf.refs == 0 {
			delete(p.held, v.buf)
			v.buf.release()
		}
		p.fresh.bytes += int64(len(v.Bytes))
		if v.content {
			p.fresh.content += int64(len(v.Bytes))
			p.fresh.chunks = append(p.fresh.chunks, v.index)
		}
	}
	switch {
	case durable:
		done := p.fresh
		p.fresh = unsynced{}
		p.committed(done, err)
	case err != nil:
		p.failed = fmt.Errorf("keep %d chunks: %w", len(written), err)
	}
}

// commitAt is when the batch becomes durable although it is not full. Others do not wait longer for news of the first
// chunks than for those of later ones.
func (p *pull) commitAt() time.Time {
	if p.plan.company() {
		return p.synced.Add(newsTime)
	}
	return p.fresh.from.Add(batchTime)
}

// commit makes the batch durable when it is full, or no more is to come, or it has waited long enough.
func (p *pull) commit() {
	if p.fresh.bytes == 0 || p.writing > 0 || p.committing {
		return
	}
	full := len(p.ready) > 0 && p.fresh.bytes+int64(len(p.ready[0].Bytes)) > batch
	if !full && !p.complete() && time.Now().Before(p.commitAt()) {
		return
	}
	p.synced = time.Now()
	done := p.fresh
	p.fresh, p.committing = unsynced{}, true
	p.work.Go(func() {
		err := done.to.Commit()
		done.to.Close()
		p.post(func() { p.committed(done, err) })
	})
	p.write()
}

// committed tells of what is durable now.
func (p *pull) committed(done unsynced, err error) {
	p.committing = false
	if err != nil {
		p.failed = fmt.Errorf("keep %d bytes: %w", done.bytes, err)
		return
	}
	for _, c := range done.chunks {
		p.durable.set(c)
	}
	p.announce(done.chunks)
	if done.content > 0 {
		p.advance(done.content, p.progress.total)
	}
}

// settled reports whether all that came is durable.
func (p *pull) settled() bool {
	return len(p.ready) == 0 && p.writing == 0 && p.fresh.bytes == 0 && !p.committing
}

// salvage makes durable what an interrupted pull has written, so that it goes on from there.
func (p *pull) salvage() {
	if p.fresh.to == nil {
		return
	}
	if p.failed == nil && p.fresh.bytes > 0 {
		if err := p.fresh.to.Commit(); err != nil {
			p.s.log.Debug("what an interrupted pull wrote is lost", "root", p.ref.Root.Short(), "err", err)
		}
	}
	p.fresh.to.Close()
}

// unsynced is what was written to a batch and is not durable yet.
type unsynced struct {
	to             artifact.Batch // nil: none
	from           time.Time      // when it was begun
	bytes, content int64
	chunks         []int // of the content
}

// begin opens a batch of the store, or of a Chunks that knows none.
func (s *Swarm) begin() artifact.Batch {
	if store, ok := s.cfg.Chunks.(BatchChunks); ok {
		return store.Begin()
	}
	return &gathered{to: s.cfg.Chunks}
}

// gathered is a batch of a Chunks that knows none: copies, written together.
type gathered struct {
	to     Chunks
	chunks [][]byte
}

func (g *gathered) Write(chunks []artifact.Summed) error {
	for _, c := range chunks {
		g.chunks = append(g.chunks, slices.Clone(c.Bytes))
	}
	return nil
}

func (g *gathered) Commit() error { return g.to.Write(g.chunks) }

func (g *gathered) Close() {}
