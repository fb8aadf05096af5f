package link

import (
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// LimitUnsent bounds the bytes that the system takes of a Write before it sends them, so that what is written later
// waits behind no more than these. A network that is not the system's has no such bytes: nothing happens.
func (c *Conn) LimitUnsent(bytes int) error {
	if err := setTCP(c.raw, unix.TCP_NOTSENT_LOWAT, bytes); err != nil {
		return fmt.Errorf("limit what is not sent: %w", err)
	}
	return nil
}

// LimitHeld bounds the bytes of a stream that the system holds because they are not sent or not confirmed, so that no
// more of them wait in the queues on the way; 0 lets the system decide, as it does at first. Less than the way carries
// in a round trip slows the stream down. The error is of systems that could not take back a bound (Linux before 5.14),
// where none is set.
func (c *Conn) LimitHeld(bytes int) error {
	err := setSocket(c.raw, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0)
	if err == nil && bytes > 0 {
		err = setSocket(c.raw, unix.SOL_SOCKET, unix.SO_SNDBUF, bytes/2) // the system doubles it
	}
	if err != nil {
		return fmt.Errorf("limit what is not confirmed: %w", err)
	}
	return nil
}

// Carried tells what the way carries, as the system sees it; ok is false where it does not tell.
func (c *Conn) Carried() (w Way, ok bool) {
	s, isSocket := c.raw.(syscall.Conn)
	if !isSocket {
		return Way{}, false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return Way{}, false
	}
	var info *unix.TCPInfo
	var failed error
	err = raw.Control(func(fd uintptr) { info, failed = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err != nil || failed != nil {
		return Way{}, false
	}
	return Way{
		Bytes: int64(info.Bytes_acked), Busy: time.Duration(info.Busy_time) * time.Microsecond,
		RoundTrip: time.Duration(info.Rtt) * time.Microsecond, Least: time.Duration(info.Min_rtt) * time.Microsecond,
	}, true
}

// giveUp has the system end a stream whose far end has confirmed nothing of what was sent for so long.
func giveUp(c net.Conn, after time.Duration) error {
	return setTCP(c, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
}

// setTCP is setSocket for options of TCP.
func setTCP(c net.Conn, option, value int) error {
	return setSocket(c, unix.IPPROTO_TCP, option, value)
}

// setSocket sets an option of a stream that is the system's; of another it does nothing.
func setSocket(c net.Conn, level, option, value int) error {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) }); err != nil {
		return err
	}
	return failed
}
