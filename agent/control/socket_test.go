//go:build unix

package control

import (
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestSocketIsForItsOwnerAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.sock")
	for group, want := range map[string]fs.FileMode{"": 0o600, groupOfThisProcess(t): 0o660} {
		l, err := Listen(path, group)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("group %q: mode %v, want %v (%v)", group, info.Mode(), want, err)
		}
		l.Close()
		if _, err := os.Lstat(path); err == nil {
			t.Error("the closed door left its socket behind")
		}
	}
	if _, err := Listen(path, "no-such-group"); err == nil || !strings.Contains(err.Error(), `no group "no-such-group"`) {
		t.Errorf("unknown group: %v", err)
	}
}

func groupOfThisProcess(t *testing.T) string {
	t.Helper()
	info, err := os.Stat(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(int(info.Sys().(*syscall.Stat_t).Gid))
}

func TestSocketOfTheDeadIsReplacedAndOfTheLivingNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.sock")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	living, err := Listen(path, "")
	if err != nil {
		t.Fatalf("over a dead socket: %v", err)
	}
	defer living.Close()
	if _, err := Listen(path, ""); err == nil || !strings.Contains(err.Error(), "another meshd answers") {
		t.Errorf("over a living socket: %v", err)
	}
	file := filepath.Join(t.TempDir(), "m.sock")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file, ""); err == nil {
		t.Error("a file was taken for a socket")
	}
	if b, err := os.ReadFile(file); string(b) != "precious" {
		t.Errorf("the file was touched: %q %v", b, err)
	}
}

func TestLongPathMovesToAShortOneThatBothSidesFind(t *testing.T) {
	short := t.TempDir()
	if got := SocketPath(short); got != filepath.Join(short, "meshd.sock") {
		t.Errorf("short folder: %s", got)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("a", 60), strings.Repeat("b", 60))
	if err := os.MkdirAll(long, 0o700); err != nil {
		t.Fatal(err)
	}
	alias := filepath.Join(t.TempDir(), strings.Repeat("c", 90))
	if err := os.Symlink(long, alias); err != nil {
		t.Fatal(err)
	}
	path := SocketPath(long)
	if len(path) > 100 || path != SocketPath(long+"/.") || path != SocketPath(alias) {
		t.Fatalf("paths %q, %q", path, SocketPath(alias))
	}
	if other := SocketPath(filepath.Dir(long) + strings.Repeat("b", 60)); other == path {
		t.Error("two folders share a socket")
	}
	_, existed := os.Lstat(filepath.Dir(path))
	l, err := Listen(path, "")
	if err != nil {
		t.Fatal(err)
	}
	stop := serveOn(t, l, &fake{}, Options{})
	c, err := NewClient("", long)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Members(t.Context()); err != nil {
		t.Error(err)
	}
	stop()
	if err := os.WriteFile(path, nil, 0o600); err != nil { // as if it had been killed
		t.Fatal(err)
	}
	if err := RemoveSocket(long); err != nil {
		t.Error(err)
	}
	for _, left := range []string{path, filepath.Dir(path)} {
		if _, err := os.Lstat(left); err == nil && (left == path || existed != nil) {
			t.Errorf("%s is left", left) // the folder may be another daemon's
		}
	}
	if _, err := Listen(filepath.Join(long, "meshd.sock"), ""); err == nil || !strings.Contains(err.Error(), "systems take 100") {
		t.Errorf("a path too long: %v", err)
	}
}

func TestSocketFolderOfSomebodyElseIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sockets")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := ownFolder(dir); err == nil {
		t.Error("a folder that all may write was taken")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if err := ownFolder(link); err == nil {
		t.Error("a link was taken for a folder")
	}
}

// The kernel says who is at the other end, whatever the modes of the files let through.
func TestForeignUserIsRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become somebody else")
	}
	tmp, err := filepath.Abs(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for dir := tmp; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&1 == 0 {
			t.Skipf("skip: needs a TMPDIR that other users can enter, which %s is not", dir)
		}
	}
	exe := copyOfThisTest(t)
	const nobody, nogroup = 65534, 65534
	for _, tt := range []struct {
		name, group, want string
	}{
		{"a stranger", "", "user 65534 may not use this meshd"},
		{"a member of the group", strconv.Itoa(nogroup), "1 members"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(openDir(t), "m.sock")
			l, err := Listen(path, tt.group)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, 0o666); err != nil { // as if the file's mode had been lost
				t.Fatal(err)
			}
			serveOn(t, l, &fake{}, Options{Group: tt.group})
			cmd := exec.Command(exe, "-test.run", "^TestAskAsSomebodyElse$", "-test.v")
			cmd.Env = []string{"CONTROL_TEST_SOCKET=" + path}
			cmd.Dir = "/"
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nogroup, NoSetGroups: false}}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("%v: got\n%s\nwant %q in it", err, out, tt.want)
			}
		})
	}
}

// TestAskAsSomebodyElse is the other process of the test above.
func TestAskAsSomebodyElse(t *testing.T) {
	path := os.Getenv("CONTROL_TEST_SOCKET")
	if path == "" {
		t.Skip("is run by TestForeignUserIsRefused")
	}
	c, err := NewClient(path, "")
	if err != nil {
		t.Fatal(err)
	}
	members, err := c.Members(t.Context())
	t.Logf("%d members, error %v", len(members), err)
}

// openDir is a temporary folder that other users may enter.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyOfThisTest(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(openDir(t), "ask")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
