package control

import (
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// allowed reports whether the process at the other end of c may use the door: root, the daemon's own user, and when
// gid is not negative the members of that group. A connection that is no unix socket is for its listener to judge.
func allowed(c net.Conn, gid int) (ok bool, who string) {
	uc, isUnix := c.(*net.UnixConn)
	if !isUnix {
		return true, ""
	}
	cred, err := peerOf(uc)
	if err != nil {
		return false, "a user that the system does not name"
	}
	who = "user " + strconv.Itoa(int(cred.Uid))
	if cred.Uid == 0 || int(cred.Uid) == os.Geteuid() {
		return true, who
	}
	return gid >= 0 && inGroup(cred, gid), who
}

func peerOf(c *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	ctlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if ctlErr != nil {
		return nil, ctlErr
	}
	return cred, err
}

func inGroup(cred *unix.Ucred, gid int) bool {
	if int(cred.Gid) == gid {
		return true
	}
	u, err := user.LookupId(strconv.Itoa(int(cred.Uid)))
	if err != nil {
		return false
	}
	groups, err := u.GroupIds()
	return err == nil && slices.Contains(groups, strconv.Itoa(gid))
}

// ownerOf returns the user that owns path, or this process' own where it cannot be seen.
func ownerOf(path string) int {
	info, err := os.Lstat(path)
	if err != nil {
		return os.Geteuid()
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return os.Geteuid()
	}
	return int(st.Uid)
}
