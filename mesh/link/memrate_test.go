package link

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

func TestSimulatedLineHasItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(1)
		const slow, fast = "10.0.0.1:1", "10.0.0.2:1"
		m.Rate(slow, 100_000)
		l, packets, err := m.Host(slow).Listen(slow)
		if err != nil {
			t.Fatal(err)
		}
		defer packets.Close()
		defer l.Close()
		m.Host(fast)
		const bytes = 1_000_000
		go func() {
			c, err := m.Host(fast).Dial(context.Background(), slow)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if _, err := c.Write(make([]byte, bytes)); err != nil {
				t.Error(err)
			}
		}()
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		began := time.Now()
		if n, err := io.Copy(io.Discard, c); err != nil || n != bytes {
			t.Fatalf("read %d bytes, %v", n, err)
		}
		if took := time.Since(began); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("%d bytes at 100 kB/s took %v", bytes, took)
		}
		if _, received := m.Passed(slow); received != bytes {
			t.Errorf("the line counts %d bytes", received)
		}
	})
}
