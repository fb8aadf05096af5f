//go:build !linux

package link

// LimitUnsent does nothing here.
func (c *Conn) LimitUnsent(int) error { return nil }
