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
		one, two := joinSlowly(all[2], all[0]), joinSlowly(all[2], all[1])
		time.Sleep(time.Minute)
		alike(t, all...)
		if x, y := one.bytes(), two.bytes(); min(x, y) > max(x, y)/4 {
			t.Errorf("%d and %d bytes: both streams carried all of it", x, y)
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

// slow is a stream on which each write takes a while, so that two sessions run beside each other.
type slow struct{ net.Conn }

func (s slow) Write(b []byte) (int, error) {
	time.Sleep(10 * time.Millisecond)
	return s.Conn.Write(b)
}

func joinSlowly(a, b *Catalog) *joined {
	x, y := net.Pipe()
	return joinOver(a, b, slow{x}, slow{y})
}
