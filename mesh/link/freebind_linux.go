package link

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// freebind lets a socket be bound to an address that this machine has not yet: a node that starts before its
// network is there listens all the same, and is reached once the address comes.
func freebind(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
	})
	if err != nil {
		return err
	}
	return failed
}
