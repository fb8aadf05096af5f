package catalog

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever was away and meets two peers at once hears each record about once.
func TestTwoPeersDoNotBothSendAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		all := w.openAll(t)
		const records = 500
		for i := range records {
			publish(t, all[0], fmt.Sprintf("app/%d", i), 1, 1)
		}
		give(t, all[1], all[0])
		one, two := join(all[2], all[0]), join(all[2], all[1])
		synctest.Wait()
		alike(t, all...)
		if s := all[2].Stats(); s.Merged < records || s.Repeated > records/10 {
			t.Errorf("%d records merged, %d heard again", s.Merged, s.Repeated)
		}
		if err := one.end(); err != nil {
			t.Error(err)
		}
		if err := two.end(); err != nil {
			t.Error(err)
		}
	})
}

// A peer that takes the turn and then says nothing holds nobody up for long.
func TestASilentPeerLosesItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		all := w.openAll(t)
		for i := range 20 {
			publish(t, all[0], fmt.Sprintf("app/%d", i), 1, 1)
		}
		c := all[2]
		ctx, cancel := context.WithCancel(t.Context())
		near, far := net.Pipe()
		ended := make(chan error, 2)
		go func() { ended <- c.Session(ctx, near, all[1].self) }()
		go func() { _, err := io.Copy(io.Discard, far); ended <- err }() // it reads, and never answers
		synctest.Wait()
		c.Kick(all[1].self)
		synctest.Wait()
		if c.turn.of == nil {
			t.Fatal("the silent peer was not asked: the test shows nothing")
		}
		began := time.Now()
		j := join(c, all[0])
		for c.Root() != all[0].Root() && time.Since(began) < time.Minute {
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(began); took > 2*turnStall {
			t.Errorf("equal only after %v", took)
		}
		if err := j.end(); err != nil {
			t.Error(err)
		}
		cancel()
		<-ended
		<-ended
	})
}
