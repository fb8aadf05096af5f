package control

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"
)

const (
	socketName     = "meshd.sock"
	maxSocketBytes = 100         // of a path: systems take 104 to 108 with the closing zero
	dialLimit      = time.Second // to see whether a socket that is there answers
)

// SocketPath returns where a daemon with this data folder listens unless told otherwise, and where its operator looks:
// DATA/meshd.sock, or for a path over 100 bytes a name made from it in /tmp/meshd-UID, UID being the folder's owner.
func SocketPath(dataDir string) string {
	dir := dataDir
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if p := filepath.Join(dir, socketName); len(p) <= maxSocketBytes {
		return p
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real // both sides may spell the folder in their own way
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(shortFolder(ownerOf(dir)), hex.EncodeToString(sum[:8])+".sock")
}

// shortFolder is the same for daemon and operator, whatever their environments say.
func shortFolder(uid int) string {
	if os.PathSeparator == '\\' {
		return filepath.Join(os.TempDir(), "meshd")
	}
	return "/tmp/meshd-" + strconv.Itoa(uid)
}

// RemoveSocket removes what the door of a daemon that has ended left outside its data folder, if its path is a long one:
// the socket, where the daemon was killed, and the folder of such sockets, where no other daemon has one in it.
func RemoveSocket(dataDir string) error {
	path := SocketPath(dataDir)
	dir := filepath.Dir(path)
	if dir != shortFolder(os.Geteuid()) {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket of %q: %w", dataDir, err)
	}
	_ = os.Remove(dir) // stays where another daemon lives there
	return nil
}

// DefaultDataDir returns the data folder of a daemon that was told none: $STATE_DIRECTORY, else /var/lib/meshd for
// root, else $XDG_STATE_HOME/meshd. It is "" where the user has no home.
func DefaultDataDir() string {
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" {
		return filepath.SplitList(dir)[0]
	}
	if os.Geteuid() == 0 {
		return "/var/lib/meshd"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "meshd")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".local", "state", "meshd")
}

// Listen binds the door at path, mode 0600, or 0660 and the group when group (name or number) is not "". A socket that
// nobody answers is replaced; one that is answered, and anything else of that name, is an error. Closing the listener
// removes the socket.
func Listen(path, group string) (net.Listener, error) {
	if len(path) > maxSocketBytes {
		return nil, fmt.Errorf("socket %q: the path has %d bytes, systems take %d: name a shorter one", path, len(path), maxSocketBytes)
	}
	if err := clearWay(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, fs.ErrNotExist) { // the folder went just now, with the last other door in it
		if err := clearWay(path); err != nil {
			return nil, err
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on socket %q: %w", path, err)
	}
	if err := giveTo(path, group); err != nil {
		l.Close()
		return nil, fmt.Errorf("socket %q: %w", path, err)
	}
	return l, nil
}

// clearWay makes the socket's folder and removes a socket that a dead daemon left.
func clearWay(path string) error {
	dir := filepath.Dir(path)
	if dir == shortFolder(os.Geteuid()) {
		if err := ownFolder(dir); err != nil {
			return err
		}
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("socket %q: %w", path, err)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("socket %q: %w", path, err)
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("socket %q: something that is no socket has that name: remove it, or name another socket", path)
	}
	if c, err := net.DialTimeout("unix", path, dialLimit); err == nil {
		c.Close()
		return fmt.Errorf("socket %q: another meshd answers there: stop it, or name another socket", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove the socket that a dead meshd left: %w", err)
	}
	return nil
}

// ownFolder makes dir in /tmp, or makes sure that the one there is ours: anybody may make names in /tmp.
func ownFolder(dir string) error {
	if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("socket folder: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("socket folder: %w", err)
	}
	if !info.IsDir() || ownerOf(dir) != os.Geteuid() || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("socket folder %q: belongs to somebody else or is writable by others: remove it, or name a socket", dir)
	}
	return nil
}

func giveTo(path, group string) error {
	if group == "" {
		return os.Chmod(path, 0o600)
	}
	gid, err := groupID(group)
	if err != nil {
		return err
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return fmt.Errorf("give it to group %q: %w", group, err)
	}
	return os.Chmod(path, 0o660)
}

func groupID(group string) (int, error) {
	if g, err := user.LookupGroup(group); err == nil {
		group = g.Gid
	}
	gid, err := strconv.Atoi(group)
	if err != nil || gid < 0 {
		return 0, fmt.Errorf("no group %q on this machine", group)
	}
	return gid, nil
}
