package swarm

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

// maxRounds is how often a pull looks whether all is here, and fetches what is not.
const maxRounds = 3

// A fetch is the state of a pull's loop. Nothing else reads or writes it.
type fetch struct {
	plan     *plan
	peers    map[id.Node]*peer
	requests map[*ask]uint32 // their numbers in the sessions
	lookAt   time.Time       // when to call holders again
	began    time.Time
	likely   []id.Node                 // holders named first
	durable  bitset                    // of the content, what others may be told of
	content  *manifest                 // nil until what is fetched is the content
	asked    map[*session]bool         // wanted of this node what is on its way here
	keep     func(index int, b []byte) // copies a chunk of the manifest, while that is fetched

	ready      []verified // to be written
	readyBytes int64
	held       map[*buffer]struct{} // that chunks which are ready or being written lie in
	writing    int64                // bytes being written; 0: none
	fresh      unsynced
	committing bool
	synced     time.Time // when a batch was last made durable
	failed     error

	work sync.WaitGroup // goroutines of the loop: dials, and the write
}

func newFetch(seed uint64, self id.Node) fetch {
	return fetch{plan: newPlan(seed, self), began: time.Now(), peers: map[id.Node]*peer{}, requests: map[*ask]uint32{}, asked: map[*session]bool{}, held: map[*buffer]struct{}{}}
}

// run fetches the root block, the parts of the manifest, the content.
func (p *pull) run(ctx context.Context) (err error) {
	defer func() { p.stop(err) }()
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
	if store, ok := p.s.cfg.Chunks.(ManifestChunks); ok {
		store.Known(p.ref.Root, root, entries)
	}
	m := newManifest(p.ref.Root, len(rootBlock), root, entries)
	p.s.manifests.put(m)
	return p.all(ctx, m)
}

// stop ends what the loop began, and waits for it.
func (p *pull) stop(err error) {
	p.cancel(errUnwanted)
	p.forget()
	if err != nil {
		p.farewell()
	} else {
		p.here()
	}
	p.work.Wait()
	p.salvage()
	p.end()
	for buf := range p.held {
		buf.release()
	}
	p.held = nil
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
	var block []byte
	err := p.collect(ctx, []artifact.Chunk{{ID: p.ref.Root}}, lack, func(_ int, b []byte) { block = slices.Clone(b) })
	return block, err
}

// parts returns the encoded entries of the manifest.
func (p *pull) parts(ctx context.Context, root artifact.Root) ([]byte, error) {
	lack, err := missing(p.s.cfg.Chunks, root.Parts)
	if err != nil {
		return nil, err
	}
	at := make([]int, len(root.Parts)+1) // where each begins in what is returned
	for i, c := range root.Parts {
		at[i+1] = at[i] + int(c.SizeBytes)
	}
	encoded := make([]byte, at[len(root.Parts)]) // at most artifact.MaxManifestBytes: DecodeRoot looked
	put := func(i int, b []byte) { copy(encoded[at[i]:at[i+1]], b) }
	var buf []byte
	for i, c := range root.Parts {
		if lack.has(i) {
			continue
		}
		b, err := p.s.cfg.Chunks.Read(c.ID, buf[:0])
		if err != nil || len(b) != int(c.SizeBytes) || artifact.Sum(b) != c.ID {
			lack.set(i) // wrong on this disk: fetched again
			continue
		}
		put(i, b)
		buf = b
	}
	return encoded, p.collect(ctx, root.Parts, lack, put)
}

// collect fetches chunks of the manifest and has each copied. They become durable with the content, in the same batch
// where that is small.
func (p *pull) collect(ctx context.Context, chunks []artifact.Chunk, lack bitset, keep func(index int, b []byte)) error {
	p.keep = keep
	defer func() { p.keep = nil }()
	return p.loop(ctx, chunks, lack, false, func() bool { return p.plan.missing == 0 })
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
		if lack.count() == 0 && p.settled() {
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
		p.durable = lack.complement(len(m.chunks))
		if lack.count() > 0 {
			p.s.desks.fetch(m.root)
		}
		err = p.loop(ctx, m.chunks, lack, m.swarms(), func() bool {
			return p.plan.missing == 0 && p.settled()
		})
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("the store lost chunks that it had taken, %d times", maxRounds)
}

// loop fetches the chunks of lack, until done. told means that what nodes have is announced.
func (p *pull) loop(ctx context.Context, chunks []artifact.Chunk, lack bitset, told bool, done func() bool) error {
	p.forget()
	p.plan.begin(chunks, lack, told, time.Now())
	for n, peer := range p.peers {
		if told && peer.x != nil {
			p.tell(n, true)
		}
	}
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		p.mu.Lock()
		events := p.inbox
		p.inbox = nil
		p.mu.Unlock()
		for _, e := range events {
			e.run()
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
		sooner(p.began.Add(firstTime))
		sooner(p.began.Add((now.Sub(p.began)/duplicateIn + 1) * duplicateIn))
	}
	sooner(p.plan.wake())
	if p.fresh.bytes > 0 {
		sooner(p.commitAt())
	}
	for _, peer := range p.peers {
		sooner(peer.restTo)
		sooner(peer.haveAt)
	}
	return max(next.Sub(now), time.Millisecond)
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
		if !p.plan.told && p.plan.starved(s) {
			p.believe(s.node, now)
		}
	}
}

func (p *pull) ask(a *ask) {
	if !p.plan.isOpen(a) {
		return // its source failed a moment ago
	}
	r := &request{root: p.ref.Root, force: a.force, done: func(ans answer) {
		p.bring(event{func() { p.answer(a, ans) }, ans.body})
	}}
	if a.share {
		content := p.content
		r.part, r.parts = uint8(a.part), uint8(min(a.parts, maxParts))
		r.share = func(runs []byte) ([]artifact.Chunk, error) { return p.choice(a, content, runs) }
	} else {
		r.chunks = make([]artifact.Chunk, len(a.chunks))
		for i, c := range a.chunks {
			r.chunks[i] = p.plan.chunks[c]
		}
	}
	req, err := p.peers[a.to.node].x.ask(r)
	if err != nil {
		p.fail(a.to.node, err)
		return
	}
	p.requests[a] = req
}
