package link

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// giveUp has the system end a stream whose far end has confirmed nothing of what was sent for so long.
func giveUp(c *net.TCPConn, after time.Duration) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		// Where it can't be set the system's own pace stays: slower, and as right.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
	})
}
