//go:build !linux

package link

import "syscall"

// freebind does nothing here: an address that this machine has not yet is an error when it starts.
func freebind(_, _ string, _ syscall.RawConn) error { return nil }
