//go:build !linux

package store

import (
	"io/fs"
	"os"
	"runtime"
)

// syncData makes the bytes of f durable.
func syncData(f *os.File) error { return f.Sync() }

// writeChunks writes chunks to f, one after the other from off on.
func writeChunks(f *os.File, chunks [][]byte, off int64) error {
	for _, c := range chunks {
		if _, err := f.WriteAt(c, off); err != nil {
			return err
		}
		off += int64(len(c))
	}
	return nil
}

// uncache does nothing here: the system alone decides what it keeps in memory.
func uncache(*os.File, int64, int64) {}

// beginSync does nothing here: the system alone decides when it writes.
func beginSync(*os.File) {}

func clone(*os.File, *os.File) bool { return false }

func unmap(uintptr, int64) {}

// syncFolder makes the names in an open folder durable. Windows cannot, and needs no such call.
func syncFolder(f *os.File) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	return f.Sync()
}

// syncsFileSystem says that each file must be synced by itself.
const syncsFileSystem = false

func syncAll(*os.File) error { return nil }

// statOf tells nothing here: without inode and change time a file is hashed at every check.
func statOf(fs.FileInfo) (fileStat, bool) { return fileStat{}, false }

// lockHolder tells nothing here.
func lockHolder(string) string { return "" }
