//go:build unix

package main

import (
	"os"
	"syscall"
)

// fileID is the device and inode of an open file.
func fileID(f *os.File) (device, inode uint64, ok bool) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return uint64(st.Dev), st.Ino, true
}
