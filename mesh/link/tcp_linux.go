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

// giveUp has the system end a stream whose far end has confirmed nothing of what was sent for so long.
func giveUp(c net.Conn, after time.Duration) error {
	return setTCP(c, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
}

// setTCP sets an option of a stream that is the system's; of another it does nothing.
func setTCP(c net.Conn, option, value int) error {
	s, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value) }); err != nil {
		return err
	}
	return failed
}
