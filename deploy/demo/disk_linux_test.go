//go:build linux

package demo

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	diskBytes = 4 << 30 // sparse: it takes what is written
	// ext4 forgets what it has not written, its journal as well, and answers every call with an error from then on.
	ioctlShutdown = 0x8004587d // _IOR('X', 125, __u32)
	noLogFlush    = 2
)

// A disk is a file with an ext4 file system in it, mounted through a loop device, whose power can be cut.
type disk struct {
	t           *testing.T
	device, dir string
}

// attachDisk makes a disk and mounts it at dir; all is gone when the test ends.
func attachDisk(t *testing.T, dir string) *disk {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skip: needs root: mounts a file system through a loop device")
	}
	image := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(diskBytes); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.ext4", "-q", "-F", image)
	device, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device can be had here: %v: %s", err, device)
	}
	d := &disk{t: t, dir: dir, device: strings.TrimSpace(string(device))}
	t.Cleanup(func() { command(t, "losetup", "--detach", d.device) })
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d.mount()
	t.Cleanup(func() { // before the fleet's end: detached, it goes when its last user has ended
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.Remove(filepath.Join(dir, "lost+found")); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disk) mount() {
	d.t.Helper()
	if err := unix.Mount(d.device, d.dir, "ext4", 0, ""); err != nil {
		d.t.Fatalf("mount %s: %v", d.device, err)
	}
}

// cutPower leaves on the disk what was synced, and perhaps more: what the kernel holds for it in memory is lost.
func (d *disk) cutPower() {
	d.t.Helper()
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ioctlShutdown, noLogFlush); err != nil {
		d.t.Fatalf("shut %s down: %v", d.dir, err)
	}
}

// remount mounts the disk again, as a machine does that starts: the file system replays its journal. Nobody may use it.
// Somebody else's mount namespace may hold it for a moment longer.
func (d *disk) remount() {
	d.t.Helper()
	if err := unix.Unmount(d.dir, 0); err != nil {
		d.t.Fatalf("unmount %s: %v", d.dir, err)
	}
	known := filepath.Join("/sys/fs/ext4", filepath.Base(d.device))
	eventually(d.t, d.device+" is let go", func() (bool, string) {
		_, err := os.Stat(known)
		return errors.Is(err, fs.ErrNotExist), known + " is there"
	})
	d.mount()
}

// command runs a program of the machine to its end and returns what it printed, without the last newline.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}
