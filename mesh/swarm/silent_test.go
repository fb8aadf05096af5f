package swarm

import (
	"net"
	"testing"
	"time"
)

// A holder whose stream leads nowhere any more is asked on a new one as soon as that is known.
func TestWhatWasAskedOnADroppedStreamIsAskedOnANewOne(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		holder, me := w.node(2), w.node(9)
		ref := holder.store.put(t, 1, 1, 1<<20)
		dials := 0
		holder.hook = func(c net.Conn) net.Conn {
			if dials++; dials == 1 {
				return staller(100_000)(c)
			}
			return c
		}
		start := time.Now()
		w.wg.Go(func() {
			time.Sleep(time.Second)
			me.swarm.DropSilent(holder.name, time.Now())
		})
		if err := me.pull(t, ref, time.Minute, holder); err != nil {
			t.Fatal(err)
		}
		me.mustHave(t, holder)
		if took := time.Since(start); took > 2*time.Second || dials != 2 {
			t.Errorf("took %v and %d dials, want less than 2s and 2", took, dials)
		}
	})
}
