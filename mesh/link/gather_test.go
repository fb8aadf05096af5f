package link

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// countWrites is a network that counts the writes to streams it opened.
type countWrites struct {
	Network
	n *atomic.Int64
}

type countedConn struct {
	net.Conn
	n *atomic.Int64
}

func (w countWrites) Dial(ctx context.Context, addr string) (net.Conn, error) {
	c, err := w.Network.Dial(ctx, addr)
	return countedConn{c, w.n}, err
}

func (c countedConn) Write(b []byte) (int, error) {
	c.n.Add(1)
	return c.Conn.Write(b)
}

func TestLargeWritesGoOutTogether(t *testing.T) {
	w := newWorld(t)
	var writes atomic.Int64
	cfg := w.config(1)
	cfg.Network, cfg.Listen = countWrites{Real, &writes}, "127.0.0.1:0"
	a := w.startWith(1, cfg)
	cfg = w.config(2)
	cfg.Network, cfg.Listen = Real, "127.0.0.1:0"
	b := w.startWith(2, cfg)
	c, _, err := a.DialAddr(t.Context(), b.Addr(), protoEcho)
	must(t, err)
	defer c.Close()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 8<<10) // 128 KiB, 8 records
	const times = 16
	before := writes.Load()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range times {
			if _, err := c.Write(sent); err != nil {
				t.Errorf("write %d: %v", i, err)
			}
			if _, err := c.Write(sent[:16]); err != nil { // a small one is not held back
				t.Errorf("small write %d: %v", i, err)
			}
		}
	})
	got := make([]byte, times*(len(sent)+16))
	_, err = io.ReadFull(c, got)
	must(t, err)
	wg.Wait()
	if want := bytes.Repeat(sent, times+1)[:len(got)]; !bytes.Equal(got, want) {
		t.Error("what came back is not what was sent")
	}
	if n := writes.Load() - before; n > 3*times {
		t.Errorf("%d writes to the network for %d large and %d small ones", n, times, times)
	}
}

// A write that waits for the network ends with the stream, and so does who waits behind it.
func TestGatheredWriteEndsWithTheStream(t *testing.T) {
	w := newWorld(t)
	var nodes [2]*node
	for i := range nodes {
		cfg := w.config(i + 1)
		cfg.Network, cfg.Listen = Real, "127.0.0.1:0"
		nodes[i] = w.startWith(i+1, cfg)
	}
	c, _, err := nodes[0].DialAddr(t.Context(), nodes[1].Addr(), protoEcho)
	must(t, err)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			b := make([]byte, 1<<20)
			for { // nobody reads what is echoed: in the end all buffers are full
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		})
	}
	nodes[0].SetOffline(true)
	wg.Wait()
}
