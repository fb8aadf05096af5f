//go:build !linux

package link

import (
	"net"
	"time"
)

// LimitUnsent does nothing here.
func (c *Conn) LimitUnsent(int) error { return nil }

// LimitHeld does nothing here.
func (c *Conn) LimitHeld(int) error { return nil }

// Carried is not known here.
func (c *Conn) Carried() (w Way, ok bool) { return Way{}, false }

// giveUp does nothing here: the system's own pace decides.
func giveUp(net.Conn, time.Duration) error { return nil }
