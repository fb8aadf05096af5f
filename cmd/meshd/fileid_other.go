//go:build !unix

package main

import "os"

// fileID knows no journal here.
func fileID(*os.File) (device, inode uint64, ok bool) { return 0, 0, false }
