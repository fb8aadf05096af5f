package demo

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// mountSmall makes dir a file system of that many bytes, in memory; the test is skipped where it may not.
func mountSmall(t *testing.T, dir string, sizeBytes int) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system to fill")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", sizeBytes)); err != nil {
		t.Skipf("no small file system can be mounted here: %v", err)
	}
	// Registered after the fleet's own end, so it runs before: detached, it goes when its last user has ended.
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}
