package promise

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"strings"
)

// modeBits are those of a mode that a score may promise.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// parseMode reads an octal mode as chmod does.
func parseMode(s string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(s, 8, 16)
	if err != nil || n > 0o7777 {
		return 0, fmt.Errorf("mode %q is no octal number up to 7777", s)
	}
	mode := fs.FileMode(n & 0o777)
	for bit, m := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n&bit != 0 {
			mode |= m
		}
	}
	return mode, nil
}

// octal is a mode as people write it.
func octal(m fs.FileMode) uint32 {
	n := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		n |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		n |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		n |= 0o1000
	}
	return n
}

// lookupOwner finds the numbers of a user and a group, given by name or number; -1 for what is "".
func lookupOwner(owner, group string) (uid, gid int, err error) {
	uid, gid = -1, -1
	if owner != "" {
		if uid, err = strconv.Atoi(owner); err != nil {
			u, err := user.Lookup(owner)
			if err != nil {
				return -1, -1, fmt.Errorf("owner %q is not known on this machine", owner)
			}
			if uid, err = strconv.Atoi(u.Uid); err != nil {
				return -1, -1, fmt.Errorf("owner %q has no number on %s: not yet supported there", owner, runtime.GOOS)
			}
		}
	}
	if group != "" {
		if gid, err = strconv.Atoi(group); err != nil {
			g, err := user.LookupGroup(group)
			if err != nil {
				return -1, -1, fmt.Errorf("group %q is not known on this machine", group)
			}
			if gid, err = strconv.Atoi(g.Gid); err != nil {
				return -1, -1, fmt.Errorf("group %q has no number on %s: not yet supported there", group, runtime.GOOS)
			}
		}
	}
	return uid, gid, nil
}

func orElse(id, other int) int {
	if id < 0 {
		return other
	}
	return id
}

// chownFile gives f to uid and gid, -1 meaning as it is; it asks the system only when that differs.
func chownFile(f *os.File, uid, gid int) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	u, g, ok := ownerOf(info)
	if !ok || (uid < 0 || u == uid) && (gid < 0 || g == gid) {
		return nil
	}
	return f.Chown(uid, gid)
}

// ctxReader ends a long copy when its context does.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// digest hashes r, a file of about so many bytes, to its end. Small files need small buffers: that is
// most of what a first pass over many of them costs.
func digest(ctx context.Context, r io.Reader, about int64) (sum [sha256.Size]byte, size int64, err error) {
	h := sha256.New()
	buf := make([]byte, min(max(about, 0)+1, 64<<10))
	size, err = io.CopyBuffer(h, &ctxReader{ctx, r}, buf)
	h.Sum(sum[:0])
	return sum, size, err
}

// readAll reads a file whose lines are edited, up to the limit for that.
func readAll(ctx context.Context, r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(&ctxReader{ctx, r}, maxEditBytes+1))
	if err == nil && len(b) > maxEditBytes {
		err = fmt.Errorf("%s is larger than %d bytes, the limit for editing lines", name, maxEditBytes)
	}
	return b, err
}

// environ is the environment of what a promise runs: PATH, HOME and LANG of this program, and extra.
func environ(extra map[string]string) []string {
	all := map[string]string{"PATH": defaultPath, "LANG": "C.UTF-8"}
	for _, name := range []string{"PATH", "HOME", "LANG"} {
		if v, ok := os.LookupEnv(name); ok {
			all[name] = v
		}
	}
	for name, v := range extra {
		all[name] = v
	}
	env := make([]string, 0, len(all))
	for _, name := range sortedKeys(all) {
		env = append(env, name+"="+all[name])
	}
	return env
}

// defaultPath is used where this program was started with no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// oneLine is the end of what a program printed, fit for a reason: its last lines joined.
func oneLine(tail []byte) string {
	s := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(string(tail), "?"), func(r rune) bool { return r == '\n' || r == '\r' }), " | ")
	if s == "" {
		return "it printed nothing"
	}
	return s
}

// isGone reports that nothing lies at a path, nor a folder that it could lie in.
func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) }
