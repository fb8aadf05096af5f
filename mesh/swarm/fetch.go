package swarm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

const (
	maxSources  = 16 // peers that one pull asks at once
	batch       = 8 << 20
	batchTime   = 200 * time.Millisecond // that verified chunks wait to become a batch
	maxHeld     = 20 << 20               // bytes asked, received and not yet durable: 8 gather, 8 are written
	holdersTime = time.Second            // between two calls of holders
	haveTime    = 500 * time.Millisecond // between two questions what a partial holder has by now
	firstRetry  = 100 * time.Millisecond // after a source failed; doubled each time
	lastRetry   = 5 * time.Second
	absentRetry = time.Second      // the longest after a source said that it has nothing yet
	accessRetry = 30 * time.Second // after a source refused
	maxRounds   = 3                // looks whether all is here
)

// A fetch is the state of a pull's loop. Nothing else reads or writes it.
type fetch struct {
	plan     *plan
	peers    map[id.Node]*peer
	requests map[*ask]uint32 // their numbers in the sessions
	lookAt   time.Time       // when to call holders again
	phase    int             // grows with each set of chunks; answers of an earlier one are dropped
	content  *manifest       // nil until what is fetched is the content
	small    map[int][]byte  // copies of the chunks of the manifest, while that is fetched

	ready      []verified // to be written
	readyBytes int64
	readyAt    time.Time // when the first of ready came
	writing    int64     // bytes of the batch being written; 0: none
	failed     error

	work sync.WaitGroup // goroutines of the loop: dials, and the write
}

// A peer is a holder as the loop sees it. Its session is nil while it is dialled or rests.
type peer struct {
	x       *session
	dialing bool
	failed  int       // times in a row
	restTo  time.Time // not dialled before
	haveAt  time.Time // not asked before what it has
	asking  bool      // what it has
}

// A verified chunk lies in a buffer that is released when all its chunks are durable.
type verified struct {
	b       []byte
	buf     *buffer
	content bool // counts as progress
}

func newFetch(seed uint64) fetch {
	return fetch{plan: newPlan(seed), peers: map[id.Node]*peer{}, requests: map[*ask]uint32{}}
}

// run fetches the root block, the parts of the manifest, the content.
func (p *pull) run(ctx context.Context) error {
	defer p.stop()
	rootBlock, err := p.block(ctx)
	if err != nil {
		return err
	}
	root, err := artifact.DecodeRoot(rootBlock)
	if err != nil {
		return fmt.Errorf("root block: %w", err)
	}
	if root.Tree != p.ref.Tree || root.SizeBytes != p.ref.SizeBytes {
		return fmt.Errorf("the artifact is %s of %d bytes, its advert said %s of %d bytes",
			root.Tree.Short(), root.SizeBytes, p.ref.Tree.Short(), p.ref.SizeBytes)
	}
	encoded, err := p.parts(ctx, root)
	if err != nil {
		return err
	}
	entries, err := artifact.DecodeEntries(encoded, root)
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	m := newManifest(p.ref.Root, len(rootBlock), root, entries)
	p.s.manifests.put(m)
	return p.all(ctx, m)
}

// stop ends what the loop began, and waits for it.
func (p *pull) stop() {
	p.cancel(errUnwanted)
	p.forget()
	p.work.Wait()
}

// forget cancels the requests under way.
func (p *pull) forget() {
	for a := range p.requests {
		p.drop(a)
	}
}

// drop cancels one request.
func (p *pull) drop(a *ask) {
	req, ok := p.requests[a]
	delete(p.requests, a)
	if peer := p.peers[a.to.node]; ok && peer != nil && peer.x != nil {
		peer.x.cancel(req)
	}
}

// block returns the root block, from the store or from a holder.
func (p *pull) block(ctx context.Context) ([]byte, error) {
	if b, err := p.s.cfg.Chunks.Read(p.ref.Root, nil); err == nil && artifact.Sum(b) == p.ref.Root {
		return b, nil
	}
	lack := newBitset(1)
	lack.fill(1)
	got, err := p.collect(ctx, []artifact.Chunk{{ID: p.ref.Root}}, lack)
	return got[0], err
}

// parts returns the encoded entries of the manifest.
func (p *pull) parts(ctx context.Context, root artifact.Root) ([]byte, error) {
	lack, err := missing(p.s.cfg.Chunks, root.Parts)
	if err != nil {
		return nil, err
	}
	here := make([][]byte, len(root.Parts))
	for i, c := range root.Parts {
		if lack.has(i) {
			continue
		}
		if here[i], err = p.s.cfg.Chunks.Read(c.ID, nil); err != nil || artifact.Sum(here[i]) != c.ID {
			lack.set(i) // wrong on this disk: fetched again
		}
	}
	got, err := p.collect(ctx, root.Parts, lack)
	if err != nil {
		return nil, err
	}
	for i, b := range got {
		here[i] = b
	}
	return slices.Concat(here...), nil
}

// collect fetches chunks of the manifest and returns them by index. They become durable with the
// content, in the same batch where that is small.
func (p *pull) collect(ctx context.Context, chunks []artifact.Chunk, lack bitset) (map[int][]byte, error) {
	p.small = map[int][]byte{}
	defer func() { p.small = nil }()
	err := p.loop(ctx, chunks, lack, func() bool { return p.plan.missing == 0 })
	return p.small, err
}

// all fetches the content, and looks in the end whether the store has it.
func (p *pull) all(ctx context.Context, m *manifest) error {
	p.content = m
	var total int64
	for _, c := range m.chunks {
		total += int64(c.SizeBytes)
	}
	for range maxRounds {
		lack, err := m.missing(p.s.cfg.Chunks)
		if err != nil {
			return err
		}
		if lack.count() == 0 && len(p.ready) == 0 && p.writing == 0 {
			p.mu.Lock()
			here := p.progress.done
			p.mu.Unlock()
			p.advance(total-here, total)
			return nil
		}
		var here int64
		for i, c := range m.chunks {
			if !lack.has(i) {
				here += int64(c.SizeBytes)
			}
		}
		p.mu.Lock()
		p.progress = progress{}
		p.mu.Unlock()
		p.advance(here, total)
		err = p.loop(ctx, m.chunks, lack, func() bool {
			return p.plan.missing == 0 && len(p.ready) == 0 && p.writing == 0
		})
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("the store lost chunks that it had taken, %d times", maxRounds)
}

// loop fetches the chunks of lack, until done.
func (p *pull) loop(ctx context.Context, chunks []artifact.Chunk, lack bitset, done func() bool) error {
	p.forget()
	p.phase++
	p.plan.begin(chunks, lack)
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		p.mu.Lock()
		events := p.inbox
		p.inbox = nil
		p.mu.Unlock()
		for _, f := range events {
			f()
		}
		p.flush()
		if p.failed != nil {
			return p.failed
		}
		if done() {
			return nil
		}
		now := time.Now()
		if p.plan.missing > 0 {
			p.recruit(ctx, now)
			p.askMore(now)
		}
		tick.Reset(p.until(now))
		select {
		case <-p.wake:
		case <-tick.C:
		case <-ctx.Done():
			return p.interrupted(context.Cause(ctx))
		}
	}
}

// until is how long the loop may sleep when nothing happens.
func (p *pull) until(now time.Time) time.Duration {
	next := now.Add(holdersTime)
	sooner := func(t time.Time) {
		if t.After(now) && t.Before(next) {
			next = t
		}
	}
	if p.plan.missing > 0 {
		sooner(p.lookAt)
	}
	sooner(p.plan.wake())
	if len(p.ready) > 0 {
		sooner(p.readyAt.Add(batchTime))
	}
	for _, peer := range p.peers {
		sooner(peer.restTo)
		sooner(peer.haveAt)
	}
	return max(next.Sub(now), time.Millisecond)
}

// recruit dials holders, as many as one pull may ask.
func (p *pull) recruit(ctx context.Context, now time.Time) {
	if !now.Before(p.lookAt) {
		p.lookAt = now.Add(holdersTime)
		named := p.named()
		for _, n := range named {
			if p.peers[n] == nil {
				p.peers[n] = &peer{}
			}
		}
		for n, peer := range p.peers {
			if peer.x == nil && !peer.dialing && !slices.Contains(named, n) {
				delete(p.peers, n)
			}
		}
		if len(named) == 0 {
			p.blame("no node is known to hold it")
		}
	}
	busy := 0
	names := make([]id.Node, 0, len(p.peers))
	for n, peer := range p.peers {
		names = append(names, n)
		if peer.x != nil || peer.dialing {
			busy++
		}
	}
	// Another order on each node and for each artifact, so that not all ask the same sixteen.
	key := slices.Concat(p.s.cfg.Self[:], p.ref.Root[:])
	for _, n := range id.Rank(key, names) {
		peer := p.peers[n]
		if busy >= maxSources {
			return
		}
		if peer.x != nil || peer.dialing || now.Before(peer.restTo) || p.s.banned(n) {
			continue
		}
		busy++
		peer.dialing = true
		p.work.Go(func() {
			x, err := p.s.session(ctx, n)
			p.post(func() { p.connected(n, peer, x, err) })
		})
	}
}

func (p *pull) connected(n id.Node, peer *peer, x *session, err error) {
	peer.dialing = false
	if err != nil {
		p.fail(n, err)
		return
	}
	peer.x = x
	p.plan.join(n)
}

// fail gives up a source for a while: longer the more often it failed.
func (p *pull) fail(n id.Node, why error) { p.rest(n, why, firstRetry, lastRetry) }

// rest gives up a source for least, doubled each time it failed, up to most.
func (p *pull) rest(n id.Node, why error, least, most time.Duration) {
	p.blame("%s: %v", n.Short(), why)
	for _, a := range slices.Clone(p.plan.open) {
		if a.to.node == n {
			p.drop(a)
		}
	}
	p.plan.leave(n)
	peer := p.peers[n]
	if peer == nil {
		return
	}
	peer.x, peer.asking = nil, false
	peer.restTo = time.Now().Add(min(least<<min(peer.failed, 10), most))
	peer.failed++
}

// askMore makes the requests that the plan has for now.
func (p *pull) askMore(now time.Time) {
	obsolete, late := p.plan.giveUp(now)
	for _, a := range slices.Concat(obsolete, late) {
		p.drop(a)
	}
	for _, a := range late {
		p.fail(a.to.node, fmt.Errorf("no answer to a request for %v", requestTime))
	}
	for _, a := range p.plan.next(now, maxHeld-p.readyBytes-p.writing-p.plan.flight) {
		p.ask(a)
	}
	if p.content == nil {
		return
	}
	for _, s := range slices.Clone(p.plan.sources) {
		if p.plan.starved(s) {
			p.askHave(s.node, now)
		}
	}
}

func (p *pull) ask(a *ask) {
	if !p.plan.isOpen(a) {
		return // its source failed a moment ago
	}
	chunks := make([]artifact.Chunk, len(a.chunks))
	for i, c := range a.chunks {
		chunks[i] = p.plan.chunks[c]
	}
	peer := p.peers[a.to.node]
	req, err := peer.x.ask(&request{root: p.ref.Root, chunks: chunks, done: func(ans answer) {
		p.post(func() { p.answer(a, ans) })
	}})
	if err != nil {
		p.fail(a.to.node, err)
		return
	}
	p.requests[a] = req
}

// askHave asks a partial holder what it has by now.
func (p *pull) askHave(n id.Node, now time.Time) {
	peer, phase := p.peers[n], p.phase
	if peer.asking || now.Before(peer.haveAt) {
		return
	}
	x := peer.x
	_, err := x.ask(&request{root: p.ref.Root, done: func(ans answer) {
		p.post(func() {
			if peer.x != x {
				return
			}
			peer.asking = false
			if phase == p.phase {
				p.learn(n, ans)
			}
		})
	}})
	if err != nil {
		p.fail(n, err)
		return
	}
	peer.asking, peer.haveAt = true, now.Add(haveTime)
}

func (p *pull) learn(n id.Node, ans answer) {
	switch {
	case ans.err != nil:
		p.fail(n, ans.err)
	case ans.refused != 0:
		p.refused(n, ans.refused)
	case ans.all:
		p.plan.learn(n, nil)
	default:
		has := parseBits(ans.bits, len(p.content.chunks))
		if has == nil {
			p.accuse(n, errors.New("what it says to have does not fit the artifact"))
			return
		}
		p.plan.learn(n, has)
	}
}

func (p *pull) refused(n id.Node, why refusal) {
	err := errors.New(why.String())
	switch why {
	case refusedAccess:
		p.rest(n, err, accessRetry, accessRetry)
	case refusedAbsent:
		p.rest(n, err, firstRetry, absentRetry)
	default:
		p.fail(n, err)
	}
}

// accuse bans a peer that sent what is not true.
func (p *pull) accuse(n id.Node, why error) {
	p.s.stats.lies.Add(1)
	p.s.ban(n, fmt.Errorf("artifact %s (%s): %w", p.ref.Name, p.ref.Root.Short(), why))
	p.rest(n, why, banTime, banTime)
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
	case ans.refused != 0:
		p.refused(n, ans.refused)
	default:
		p.take(a, ans)
	}
}

// take verifies the chunks of an answer, each before anything else sees it, and queues them to be
// written.
func (p *pull) take(a *ask, ans answer) {
	now, rest := time.Now(), ans.body.b
	size := int64(len(rest))
	var lie error
	for i, c := range a.chunks {
		if ans.absent != nil && ans.absent.has(i) {
			p.plan.lacks(a, i)
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
		p.plan.arrived(a, i)
		p.hold(c, b, ans.body, now)
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
	if p.content == nil && ans.absent != nil {
		p.refused(a.to.node, refusedAbsent) // it is still fetching the manifest itself
	}
}

// hold queues a verified chunk to be written.
func (p *pull) hold(index int, b []byte, buf *buffer, now time.Time) {
	p.s.stats.pulled.Add(int64(len(b)))
	if p.small != nil {
		p.small[index] = slices.Clone(b)
	}
	if len(p.ready) == 0 {
		p.readyAt = now
	}
	buf.refs++
	p.ready = append(p.ready, verified{b: b, buf: buf, content: p.content != nil})
	p.readyBytes += int64(len(b))
}

// flush writes a batch, when there is a full one, or no more to come, or it has waited long enough;
// one at a time.
func (p *pull) flush() {
	full := p.readyBytes >= batch || p.content != nil && p.plan.missing == 0 || time.Since(p.readyAt) >= batchTime
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
		chunks := make([][]byte, len(written))
		for i, v := range written {
			chunks[i] = v.b
		}
		err := p.s.cfg.Chunks.Write(chunks)
		p.post(func() { p.wrote(written, err) })
	})
}

func (p *pull) wrote(written []verified, err error) {
	p.writing = 0
	var content int64
	for _, v := range written {
		if v.buf.refs--; v.buf.refs == 0 {
			v.buf.release()
		}
		if v.content {
			content += int64(len(v.b))
		}
	}
	if err != nil {
		p.failed = fmt.Errorf("keep %d chunks: %w", len(written), err)
		return
	}
	if content > 0 {
		p.advance(content, p.progress.total)
	}
}
