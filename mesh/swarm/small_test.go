package swarm

import (
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// Who asked in vain for what was still on its way is told when it is here, and does not wait for its next try.
func TestWhoAskedTooEarlyIsToldWhenItIsHere(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		publisher, between, me := w.node(1), w.node(2), w.node(3)
		ref := publisher.store.put(t, 1, 1, 10<<10)
		publisher.hook = func(c net.Conn) net.Conn { // root, manifest and content are answered after 150 ms each
			return &tap{Conn: c, write: func(b []byte) ([]byte, error) {
				<-time.After(150 * time.Millisecond)
				return b, nil
			}}
		}
		start := time.Now()
		w.wg.Go(func() {
			if err := between.pull(t, ref, time.Minute, publisher); err != nil {
				t.Error(err)
			}
		})
		if err := me.pull(t, ref, time.Minute, between); err != nil {
			t.Fatal(err)
		}
		me.mustHave(t, publisher)
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("took %v, want as long as the holder took itself, 450 ms: the next try would be after 700", took)
		}
	})
}

// A small artifact comes over the open stream with its publisher: nobody else is dialled, and others only when that
// one is silent: it is waited for once, not once for the root, the manifest and the content.
func TestSmallIsAskedOfItsPublisherAlone(t *testing.T) {
	for _, silent := range []bool{false, true} {
		bubble(t, func(t *testing.T, w *world) {
			all := []*node{w.node(9)}
			me, publisher := w.node(1), all[0]
			var mute atomic.Bool
			publisher.hook = func(c net.Conn) net.Conn {
				return &tap{Conn: c, write: func(b []byte) ([]byte, error) {
					if mute.Load() {
						return nil, nil
					}
					return b, nil
				}}
			}
			first, second := publisher.store.put(t, 1, 1, 10<<10), publisher.store.put(t, 2, 1, 10<<10)
			for i := range byte(7) { // ids that come before the publisher's
				n := w.node(2 + i)
				n.store.copyOf(publisher.store)
				all = append(all, n)
			}
			if err := me.pull(t, first, time.Minute, publisher); err != nil {
				t.Fatal(err)
			}
			mute.Store(silent)
			start := time.Now()
			if err := me.pull(t, second, time.Minute, all...); err != nil {
				t.Fatal(err)
			}
			dials := 0
			for _, n := range all[1:] {
				dials += n.dials
			}
			if took := time.Since(start); took > duplicateIn+100*time.Millisecond || (dials > 0) != silent {
				t.Errorf("silent %v: took %v, %d other nodes were dialled", silent, took, dials)
			}
		})
	}
}
