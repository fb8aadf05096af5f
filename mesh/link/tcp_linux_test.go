package link

import (
	"io"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A bound is the system's own from when it is set until it is taken back.
func TestWhatTheSystemHoldsIsBoundedAndFreeAgain(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far := make(chan net.Conn, 1)
	go func() {
		c, _ := l.Accept()
		far <- c
	}()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	peer := <-far
	defer peer.Close()
	c := &Conn{raw: near}
	if err := c.LimitHeld(64 << 10); err != nil {
		t.Fatal(err)
	}
	if got := option(t, near, unix.SO_SNDBUF); got != 64<<10 || option(t, near, unix.SO_BUF_LOCK)&1 == 0 {
		t.Errorf("%d bytes may be held, locks %b; want a locked %d", got, option(t, near, unix.SO_BUF_LOCK), 64<<10)
	}
	if err := c.LimitHeld(0); err != nil {
		t.Fatal(err)
	}
	if locks := option(t, near, unix.SO_BUF_LOCK); locks != 0 {
		t.Errorf("locks %b after the bound was taken back", locks)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := near.Write(make([]byte, 1<<20))
		sent <- err
	}()
	if _, err := io.ReadFull(peer, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	w, ok := c.Carried()
	if !ok || w.Bytes < 1<<19 || w.RoundTrip <= 0 || w.Least > w.RoundTrip*8 {
		t.Errorf("carried %+v, %v", w, ok)
	}
	if _, ok := (&Conn{raw: memoryEnd{}}).Carried(); ok {
		t.Error("a stream that is not the system's told what it carries")
	}
}

type memoryEnd struct{ net.Conn }

func option(t *testing.T, c net.Conn, name int) (value int) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, name) }); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return value
}
