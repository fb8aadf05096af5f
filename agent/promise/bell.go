//go:build !nocontainers

package promise

import (
	"context"
	"sync"
	"time"
)

// bellPause is between two tries to hear from an engine that went away.
const bellPause = time.Second

// A bell tells those who watch containers of changes, from one stream of events. The stream runs while
// somebody watches.
type bell struct {
	// follow reads the stream to its end: begun says that nothing is missed from now on, heard tells of a
	// change of one container by its labels, of any when nil.
	follow func(ctx context.Context, begun func(), heard func(labels map[string]string))

	mu       sync.Mutex
	watchers map[*bellWatcher]bool
	cancel   context.CancelFunc // of the stream; nil while none runs
	running  sync.WaitGroup
	closed   bool
}

type bellWatcher struct {
	labels  map[string]string
	changed func()
}

func (b *bell) watch(labels map[string]string, changed func()) (stop func()) {
	w := &bellWatcher{labels: labels, changed: changed}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return func() {}
	}
	if b.watchers == nil {
		b.watchers = map[*bellWatcher]bool{}
	}
	b.watchers[w] = true
	if b.cancel == nil {
		ctx, cancel := context.WithCancel(context.Background())
		b.cancel = cancel
		b.running.Go(func() { b.run(ctx) })
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.watchers, w)
		if len(b.watchers) == 0 && b.cancel != nil {
			b.cancel()
			b.cancel = nil
		}
	}
}

// run follows until ctx ends, again and again.
func (b *bell) run(ctx context.Context) {
	for ctx.Err() == nil {
		b.follow(ctx, func() { b.ring(nil) }, b.ring)
		pause := time.NewTimer(bellPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// ring tells those whose labels are all among these; all when nil.
func (b *bell) ring(labels map[string]string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for w := range b.watchers {
		if labels == nil || hasLabels(labels, w.labels) {
			w.changed()
		}
	}
}

func hasLabels(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

// close ends the stream and waits for it.
func (b *bell) close() {
	b.mu.Lock()
	b.closed = true
	if b.cancel != nil {
		b.cancel()
		b.cancel = nil
	}
	b.mu.Unlock()
	b.running.Wait()
}
