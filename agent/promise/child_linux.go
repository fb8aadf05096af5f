package promise

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A pidfd becomes readable when its process ends, also one that is another's child.
type pidfd struct{ f *os.File }

func watchExit(pid int) (exitWatch, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, err
	}
	return &pidfd{f: os.NewFile(uintptr(fd), "pidfd")}, nil
}

func (p *pidfd) wait() bool {
	conn, err := p.f.SyscallConn()
	if err != nil {
		return false
	}
	ended := false
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		ended = err == nil && n > 0
		return ended
	})
	return err == nil && ended
}

func (p *pidfd) close() { p.f.Close() }

// processStat reads when a process started, in clock ticks since boot, and whether it ended and only
// waits to be reaped. ErrNotFound if there is none.
func processStat(pid int) (start uint64, ended bool, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return 0, false, ErrNotFound
	} else if err != nil {
		return 0, false, err
	}
	// The name, in brackets, may hold anything: what counts is behind the last of them.
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 20 {
		return 0, false, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return start, fields[0] == "Z" || fields[0] == "X", err
}

// Find reads the environment of every process that this user may look into.
func (r *Real) Find(mark string) (pid int, start uint64, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, 0, err
	}
	here, hereErr := os.Readlink("/proc/self/ns/pid")
	want := []byte(markVariable + "=" + mark)
	prefix, isPrefix := bytes.CutSuffix(want, []byte("*"))
	leads := false
	for _, e := range entries {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		env, err := os.ReadFile("/proc/" + e.Name() + "/environ")
		if err != nil || !bytes.Contains(env, prefix) {
			continue
		}
		marked := false
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			marked = marked || bytes.Equal(kv, want) || isPrefix && bytes.HasPrefix(kv, prefix)
		}
		if !marked {
			continue
		}
		// What a meshd in a container keeps may bear the very same mark; it is not ours.
		if there, err := os.Readlink("/proc/" + e.Name() + "/ns/pid"); err == nil && hereErr == nil && there != here {
			continue
		}
		s, ended, err := processStat(p)
		if err != nil || ended {
			continue
		}
		sid, err := unix.Getsid(p)
		leader := err == nil && sid == p
		if pid == 0 || leader && !leads || leader == leads && s < start {
			pid, start, leads = p, s, leader
		}
	}
	if pid == 0 {
		return 0, 0, ErrNotFound
	}
	return pid, start, nil
}
