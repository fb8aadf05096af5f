package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

// TestMemoryStreamIsANetConn holds the simulated stream to what real ones do.
func TestMemoryStreamIsANetConn(t *testing.T) {
	nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
		a, b, l := memPair(t, NewMemory(1))
		return a, b, func() {
			for _, c := range []io.Closer{a, b, l} {
				_ = c.Close()
			}
		}, nil
	})
}

func memPair(t *testing.T, m *Memory) (dialled, accepted net.Conn, l net.Listener) {
	t.Helper()
	if _, _, err := m.Host(addr(2)).Listen(""); err == nil {
		t.Fatal("Listen took an address without a port")
	}
	l, p, err := m.Host(addr(2)).Listen(":0")
	must(t, err)
	must(t, p.Close())
	dialled, err = m.Host(addr(1)).Dial(context.Background(), addr(2))
	must(t, err)
	accepted, err = l.Accept()
	must(t, err)
	return dialled, accepted, l
}

func TestMemoryDelaysInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(7)
		a, b, l := memPair(t, m)
		m.Delay(10*time.Millisecond, 90*time.Millisecond)
		start := time.Now()
		var want []byte
		for i := range 200 {
			_, err := a.Write([]byte{byte(i)})
			must(t, err)
			want = append(want, byte(i))
		}
		must(t, a.Close())
		got, err := io.ReadAll(b)
		must(t, err)
		if string(got) != string(want) {
			t.Error("a delayed stream changed its order")
		}
		if d := time.Since(start); d < 80*time.Millisecond || d > 90*time.Millisecond {
			t.Errorf("200 writes took %v, want the longest of their delays", d)
		}
		must(t, b.Close())
		must(t, l.Close())
		if len(m.streams) != 0 {
			t.Errorf("%d closed streams are kept", len(m.streams))
		}
	})
}

func TestMemoryWriterWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, l := memPair(t, NewMemory(1))
		must(t, a.SetWriteDeadline(time.Now().Add(time.Second)))
		n, err := a.Write(make([]byte, 2*memBufferBytes))
		if n != memBufferBytes || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d, %v into nothing, want %d and a timeout", n, err, memBufferBytes)
		}
		must(t, a.SetWriteDeadline(time.Time{}))
		done := make(chan error, 1)
		go func() {
			_, err := a.Write([]byte("more"))
			done <- err
		}()
		_, err = io.CopyN(io.Discard, b, memBufferBytes+4)
		must(t, err)
		must(t, <-done)
		must(t, errors.Join(a.Close(), b.Close(), l.Close()))
	})
}

func TestMemoryPacketsAreLostReorderedAndCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(3)
		la, a, err := m.Host(addr(1)).Listen(addr(1))
		must(t, err)
		lb, b, err := m.Host(addr(2)).Listen("0.0.0.0:6374")
		must(t, err)
		receive := func() []string {
			var got []string
			buf := make([]byte, 100)
			must(t, b.SetReadDeadline(time.Now().Add(time.Second)))
			for {
				n, from, err := b.ReadFrom(buf)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					return got
				}
				must(t, err)
				if from.String() != addr(1) {
					t.Errorf("packet from %s", from)
				}
				got = append(got, string(buf[:n]))
			}
		}
		send := func(n int) {
			for i := range n {
				_, err := a.WriteTo(fmt.Appendf(nil, "%03d", i), b.LocalAddr())
				must(t, err)
			}
		}
		send(100)
		got := receive()
		for i := range got {
			if got[i] != fmt.Sprintf("%03d", i) {
				t.Fatalf("without delay packet %d is %q", i, got[i])
			}
		}
		m.Delay(0, 50*time.Millisecond)
		m.Loss(0.3)
		send(1000)
		got = receive()
		late := 0
		for i := 1; i < len(got); i++ {
			if got[i] < got[i-1] {
				late++
			}
		}
		if len(got) < 600 || len(got) > 800 || late < 100 {
			t.Errorf("%d of 1000 packets at 30 %% loss, %d out of order", len(got), late)
		}
		m.Cut(addr(1), addr(2))
		send(10)
		m.Heal(addr(2), addr(1))
		if got := receive(); len(got) != 0 {
			t.Errorf("%d packets over a cut link", len(got))
		}
		must(t, errors.Join(la.Close(), lb.Close(), a.Close(), b.Close()))
		if _, _, err := b.ReadFrom(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("read of a closed socket: %v", err)
		}
	})
}

func TestMemoryCrashResetsAndFreesTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(1)
		a, b, l := memPair(t, m)
		m.Crash(addr(2))
		m.Crash(addr(99)) // nobody
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read from a crashed host: %v", err)
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("write on a crashed host: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("accept on a crashed host: %v", err)
		}
		if _, err := m.Host(addr(1)).Dial(t.Context(), addr(2)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial of a crashed host: %v", err)
		}
		must(t, a.Close())
		a, b, l = memPair(t, m)
		must(t, errors.Join(a.Close(), b.Close(), l.Close()))
	})
}

func TestMemoryDialOverACutLinkEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(1)
		l, p, err := m.Host(addr(2)).Listen(":6374")
		must(t, err)
		_, _, err = m.Host(addr(2)).Listen(":6374")
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("second listener: %v", err)
		}
		_, _, err = m.Host(addr(3)).Listen(addr(2))
		if !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("listener at another host's address: %v", err)
		}
		m.Cut(addr(1), addr(2))
		before := time.Now()
		_, err = m.Host(addr(1)).Dial(t.Context(), addr(2))
		if d := time.Since(before); err == nil || d != memDialLimit {
			t.Errorf("dial over a cut link: %v after %v", err, d)
		}
		must(t, errors.Join(l.Close(), p.Close()))
	})
}
