package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// syncData makes the bytes of f durable, and its size, but not its times.
func syncData(f *os.File) error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// maxVector is how many slices one pwritev takes (IOV_MAX).
const maxVector = 1024

// writeChunks writes chunks to f, one after the other from off on, out of the memory they are in.
func writeChunks(f *os.File, chunks [][]byte, off int64) error {
	for len(chunks) > 0 {
		some := chunks[:min(len(chunks), maxVector)]
		n, err := unix.Pwritev(int(f.Fd()), some, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrShortWrite
		}
		if err != nil {
			return os.NewSyscallError("pwritev", err)
		}
		off += int64(n)
		for len(chunks) > 0 && n >= len(chunks[0]) {
			n -= len(chunks[0])
			chunks = chunks[1:]
		}
		if n > 0 {
			if _, err := f.WriteAt(chunks[0][n:], off); err != nil {
				return err
			}
			off += int64(len(chunks[0]) - n)
			chunks = chunks[1:]
		}
	}
	return nil
}

// beginSync has the disk begin to write what is in memory of f. It waits for nothing and promises nothing.
func beginSync(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}

// uncache has the system let go of its copy in memory of what is durable in f from one offset to another.
// It is advice: an error changes nothing.
func uncache(f *os.File, from, to int64) {
	_ = unix.Fadvise(int(f.Fd()), from, to-from, unix.FADV_DONTNEED)
}

// clone makes to, which is empty, hold what from holds, in the same blocks of the disk: each is copied when either is
// written to. It reports false, and changes nothing, where the file system cannot.
func clone(to, from *os.File) bool {
	return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil
}

// unmap has the system take the pages of a mapped file out of the memory of this process. They stay in the system's
// memory, and come back when they are looked at. It is advice: an error changes nothing.
func unmap(at uintptr, size int64) {
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, at, uintptr(size), unix.MADV_DONTNEED)
}

// syncFolder makes the names in an open folder durable.
func syncFolder(f *os.File) error { return f.Sync() }

// syncsFileSystem says that syncAll makes everything durable, file by file is not needed.
const syncsFileSystem = true

// syncAll makes the whole file system of f durable.
func syncAll(f *os.File) error {
	return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd())))
}

// statOf returns what tells whether a file may have changed, or false where that cannot be told.
func statOf(info fs.FileInfo) (fileStat, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileStat{}, false
	}
	return fileStat{inode: st.Ino, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano()}, true
}

// lockHolder returns " (process N)" for whoever holds a lock on the file, or nothing.
func lockHolder(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || !ok {
		return ""
	}
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK  ADVISORY  WRITE 4711 fe:00:123456 0 EOF
		if f := strings.Fields(line); len(f) > 5 && f[1] == "FLOCK" && f[5] == want {
			return " (process " + f[4] + ")"
		}
	}
	return ""
}
