package promise

import (
	"io/fs"
	"os"
	"time"
)

// A stamp is what changes whenever a file does: any write, chmod, chown or rename over it moves ctime.
// Two equal stamps mean equal bytes, mode and owner (SPEC 9), but for a write in the very tick of the
// clock in which the stamp was taken; trust says how that is met.
type stamp struct {
	dev, ino     uint64
	size         int64
	mode         uint32
	uid, gid     uint32
	mtime, ctime int64 // nanoseconds
}

// racyWindow is longer than the tick of any kernel's file clock (10 ms at 100 Hz). Of two writes in one
// tick the second may leave ctime as it was.
const racyWindow = 20 * time.Millisecond

// isRacy reports whether a write to come may leave the stamp as it is.
func (s stamp) isRacy() bool {
	now := time.Now().UnixNano()
	return max(s.mtime, s.ctime) > now-int64(racyWindow) && min(s.mtime, s.ctime) < now+int64(racyWindow)
}

// trust remembers the stamp under which a file was last found right.
//
// It lives in memory alone. A stamp that was found where there was none is trusted at once, if it is older than a
// racyWindow; one that differs from the last belongs to a file somebody is just writing, and is trusted only when the
// same stamp is found again a racyWindow later and the bytes were read once more.
type trust struct {
	stamp stamp
	known bool // stamp was taken
	firm  bool // stamp is old enough
	since time.Time
}

// holds reports whether the file at path is unchanged since it was found right. One system call.
func (t *trust) holds(path string, follow bool) bool {
	if !t.firm {
		return false
	}
	look := os.Lstat
	if follow {
		look = os.Stat
	}
	info, err := look(path)
	if err != nil {
		return false
	}
	s, ok := stampOf(info)
	return ok && s == t.stamp
}

// found notes that the bytes under info, taken before they were read, are right.
func (t *trust) found(info fs.FileInfo) {
	s, ok := stampOf(info)
	switch {
	case !ok:
		*t = trust{}
	case !t.known:
		*t = trust{stamp: s, known: true, firm: !s.isRacy(), since: time.Now()}
	case s != t.stamp:
		*t = trust{stamp: s, known: true, since: time.Now()}
	case !t.firm:
		t.firm = time.Since(t.since) > racyWindow
	}
}

// doubt forgets that the stamp was firm, not that there was one: what comes next is fresh.
func (t *trust) doubt() { t.firm, t.known, t.stamp = false, true, stamp{} }
