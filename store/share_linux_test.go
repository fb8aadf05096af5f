package store

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sharingDisk mounts a file system that shares blocks, and returns what of it is free (bytes).
func sharingDisk(t *testing.T, mkfs ...string) (dir string, free func() int64) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("skip: needs root: mounts a file system through a loop device")
	}
	for _, tool := range []string{mkfs[0], "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("skip: needs %s", tool)
		}
	}
	kind := strings.TrimPrefix(mkfs[0], "mkfs.")
	known, err := os.ReadFile("/proc/filesystems")
	must(t, err)
	if !strings.Contains(string(known), "\t"+kind+"\n") {
		t.Skipf("skip: this kernel knows no %s", kind)
	}
	image, dir := filepath.Join(t.TempDir(), "image"), t.TempDir()
	must(t, os.WriteFile(image, nil, 0o600))
	must(t, os.Truncate(image, 512<<20))
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], image)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", mkfs, err, out)
	}
	out, err := exec.Command("losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device can be had here: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("detach %s: %v %s", device, err, out)
		}
	})
	must(t, unix.Mount(device, dir, kind, 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir, 0)) })
	return dir, func() int64 {
		f, err := os.Open(dir)
		must(t, err)
		defer f.Close()
		must(t, syncAll(f))
		var st unix.Statfs_t
		must(t, unix.Statfs(dir, &st))
		return int64(st.Bfree) * int64(st.Bsize)
	}
}

// Where the file system can, a new version takes the room of what it changed, in a file and in a tree.
func TestANewVersionSharesBlocksWithTheOneInPlace(t *testing.T) {
	for _, mkfs := range [][]string{{"mkfs.xfs", "-q", "-m", "reflink=1"}, {"mkfs.btrfs", "-q"}} {
		t.Run(mkfs[0], func(t *testing.T) {
			disk, free := sharingDisk(t, mkfs...)
			const size = 24 << 20
			file, tree := filepath.Join(t.TempDir(), "file"), t.TempDir()
			body := noise(size, 1)
			must(t, os.WriteFile(file, append(body, noise(100_000, 2)...), 0o640))
			files := map[string]string{"link": "short", "a/small": "x"}
			for i := range 6 {
				files[fmt.Sprintf("a/%d", i)] = string(noise(size/6, uint64(i+10)))
			}
			write(t, tree, files)
			change := func() {
				copy(body[size/2:], noise(200_000, 3))
				must(t, os.WriteFile(file, body, 0o600)) // shorter than before, too
				write(t, tree, map[string]string{"a/3": string(noise(size/6, 99)), "a/small": "y"})
				must(t, os.Remove(filepath.Join(tree, "a/5")))
			}
			from, to := open(t, t.TempDir()), open(t, t.TempDir())
			place := func() (took int64) {
				before := free()
				for name, source := range map[string]string{"file": file, "tree": tree} {
					root := added(t, from, source)
					o := PlaceOptions{Base: disk, Path: "to/" + name}
					cancel := to.Stage(root, o)
					must(t, pull(t, from, to, root, nil))
					must(t, to.Place(t.Context(), root, o))
					cancel()
					placedIs(t, filepath.Join(disk, "to", name), source)
					if ok, why, err := to.Placed(t.Context(), root, o); err != nil || !ok {
						t.Errorf("Placed says %q, %v", why, err)
					}
				}
				return before - free()
			}
			if first := place(); first < 2*size {
				t.Fatalf("the first version took %d bytes of the disk: nothing can be said of the second", first)
			}
			change()
			second := place()
			t.Logf("the second version took %d bytes of %d", second, 2*size)
			if second > size/2 {
				t.Errorf("%d bytes of the disk for a version that changed %d of %d", second, size/6+200_000, 2*size)
			}

			// What is damaged in place is not taken over.
			for _, name := range []string{"file", "tree/a/0"} {
				path := filepath.Join(disk, "to", name)
				f, err := os.OpenFile(path, os.O_WRONLY, 0)
				must(t, err)
				_, err = f.WriteAt([]byte("damage"), 1<<20)
				must(t, err)
				must(t, f.Close())
			}
			copy(body[100:], "a third version")
			must(t, os.WriteFile(file, body, 0o600))
			write(t, tree, map[string]string{"a/small": "z"})
			place()
		})
	}
}
