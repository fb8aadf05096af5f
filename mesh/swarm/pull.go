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

// pullKey tells artifacts apart. An advert that names a true root and a false size or tree gets a
// pull, and an error, of its own.
type pullKey struct {
	root, tree artifact.Digest
	sizeBytes  int64
}

// A waiter is one call of Pull. Those that want the same artifact share one pull.
type waiter struct {
	holders func() []id.Node
	moved   chan struct{} // capacity 1: there is progress to tell
}

// A pull fetches one artifact. Its loop owns what is in fetch; the rest is under mu.
type pull struct {
	s      *Swarm
	ref    artifact.Ref
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when err is set and nothing of the pull runs any more
	err    error

	mu       sync.Mutex
	waiters  []*waiter
	inbox    []event // what happened; run by the loop, in order
	over     bool    // the loop looks at nothing more
	progress progress
	trouble  string // what last stood in the way

	wake chan struct{} // capacity 1: look at the inbox

	fetch
}

// Pull fetches what is not here of the artifact, verifies it to the last byte, and returns when all
// of it is durable. Only what is missing is fetched, so an interrupted pull is resumed by calling
// again. While no holder can be reached it waits, until ctx ends; the error then says what stood in
// the way.
//
// holders names the nodes that may have all or some of it; it is called now and then, and after
// Kick, from another goroutine, and must be quick. progress, if not nil, is told the bytes that are
// durable and all, from the goroutine of the caller: a slow one delays nobody else, and misses steps.
//
// Any number of calls for one artifact share one transfer.
func (s *Swarm) Pull(
	ctx context.Context, ref artifact.Ref, holders func() []id.Node, progress func(done, total int64),
) error {
	w := &waiter{holders: holders, moved: make(chan struct{}, 1)}
	p, err := s.attach(ctx, ref, w)
	if err != nil {
		return fmt.Errorf("pull %s: %w", ref.Name, err)
	}
	defer s.detach(p, w)
	tell := func() {
		p.mu.Lock()
		now := p.progress
		p.mu.Unlock()
		if progress != nil && now.total > 0 {
			progress(now.done, now.total)
		}
	}
	for {
		select {
		case <-p.done:
			tell()
			if p.err != nil {
				return fmt.Errorf("pull %s: %w", ref.Name, p.err)
			}
			return nil
		case <-ctx.Done():
			return fmt.Errorf("pull %s: %w", ref.Name, p.interrupted(context.Cause(ctx)))
		case <-w.moved:
			tell()
		}
	}
}

// interrupted adds to the end of a context how far the pull had come and what it waited for.
func (p *pull) interrupted(cause error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	trouble := p.trouble
	if trouble == "" {
		trouble = "its holders were still sending"
	}
	if p.progress.total == 0 {
		return fmt.Errorf("%w before its manifest came: %s", cause, trouble)
	}
	return fmt.Errorf("%w after %d of %d bytes: %s", cause, p.progress.done, p.progress.total, trouble)
}

// attach joins the pull of the artifact, or begins it.
func (s *Swarm) attach(ctx context.Context, ref artifact.Ref, w *waiter) (*pull, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	key := pullKey{ref.Root, ref.Tree, ref.SizeBytes}
	if p := s.pulls[key]; p != nil {
		p.mu.Lock()
		p.waiters = append(p.waiters, w)
		p.mu.Unlock()
		return p, nil
	}
	// The transfer outlives the call that began it, while others wait for it.
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	p := &pull{
		s: s, ref: ref, cancel: cancel, done: make(chan struct{}), waiters: []*waiter{w},
		wake: make(chan struct{}, 1), fetch: newFetch(s.cfg.Seed, s.cfg.Self),
	}
	s.pulls[key] = p
	s.wg.Go(func() {
		s.buffers.pulling(1)
		err := p.run(own)
		s.buffers.pulling(-1)
		s.mu.Lock()
		if s.pulls[key] == p {
			delete(s.pulls, key)
		}
		s.mu.Unlock()
		p.err = err
		close(p.done)
	})
	return p, nil
}

// errUnwanted ends a pull that nobody waits for.
var errUnwanted = errors.New("nobody waits for it")

// detach leaves the pull; the last one ends it, and waits until it has.
func (s *Swarm) detach(p *pull, w *waiter) {
	s.mu.Lock()
	p.mu.Lock()
	p.waiters = slices.DeleteFunc(p.waiters, func(o *waiter) bool { return o == w })
	last := len(p.waiters) == 0
	p.mu.Unlock()
	key := pullKey{p.ref.Root, p.ref.Tree, p.ref.SizeBytes}
	if last && s.pulls[key] == p {
		delete(s.pulls, key) // who comes now begins anew
	}
	s.mu.Unlock()
	if last {
		p.cancel(errUnwanted)
		<-p.done
	}
}

// An event is something that happened, for the loop to run, and the buffer that it brings; nil for none.
type event struct {
	run  func()
	body *buffer
}

// post has the loop run f soon. It never blocks. What is posted after the end of the pull is dropped.
func (p *pull) post(f func()) { p.bring(event{run: f}) }

// bring is post of an event.
func (p *pull) bring(e event) {
	p.mu.Lock()
	if p.over {
		p.mu.Unlock()
		e.body.release()
		return
	}
	p.inbox = append(p.inbox, e)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// end drops what was not looked at, and all that comes later.
func (p *pull) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = true
	for _, e := range p.inbox {
		e.body.release()
	}
	p.inbox = nil
}

// advance notes what is durable, and tells the waiters.
func (p *pull) advance(doneBytes, totalBytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.progress.move(doneBytes, totalBytes, len(p.plan.sources), time.Now())
	for _, w := range p.waiters {
		select {
		case w.moved <- struct{}{}:
		default:
		}
	}
}

// blame notes what stands in the way.
func (p *pull) blame(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = fmt.Sprintf(format, args...)
}

// named returns all that the waiters name as holders.
func (p *pull) named() []id.Node {
	p.mu.Lock()
	waiters := slices.Clone(p.waiters)
	p.mu.Unlock()
	var out []id.Node
	for _, w := range waiters {
		for _, n := range w.holders() {
			if n != p.s.cfg.Self && !n.IsZero() && !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out
}
