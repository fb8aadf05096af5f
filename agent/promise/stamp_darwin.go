package promise

import (
	"io/fs"
	"os"
	"syscall"
)

// nonblock keeps an open from waiting for the writer of a fifo.
const nonblock = syscall.O_NONBLOCK

// stampOf takes the stamp of a file. ok is false where the system tells too little to trust it.
func stampOf(info fs.FileInfo) (s stamp, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{}, false
	}
	return stamp{
		dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mode: uint32(st.Mode), uid: st.Uid, gid: st.Gid,
		mtime: st.Mtimespec.Nano(), ctime: st.Ctimespec.Nano(),
	}, true
}

// ownerOf tells who owns a file. ok is false where files have no such owner.
func ownerOf(info fs.FileInfo) (uid, gid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(st.Uid), int(st.Gid), true
}

func syncFolder(d *os.File) error { return d.Sync() }
