//go:build !linux

package link

import (
	"net"
	"time"
)

// LimitUnsent does nothing here.
func (c *Conn) LimitUnsent(int) error { return nil }

// giveUp does nothing here: the system's own pace decides.
func giveUp(net.Conn, time.Duration) error { return nil }
