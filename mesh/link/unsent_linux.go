package link

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// LimitUnsent bounds the bytes that the system takes of a Write before it sends them, so that what is written later
// waits behind no more than these. A network that is not the system's has no such bytes: nothing happens.
func (c *Conn) LimitUnsent(bytes int) error {
	s, ok := c.raw.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return fmt.Errorf("limit what is not sent: %w", err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, bytes)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return fmt.Errorf("limit what is not sent: %w", err)
	}
	return nil
}
