//go:build linux

package promise

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// The same score in a container on this machine gives processes there the same marks.
func TestFindLeavesProcessesOfContainersAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skip: needs root, to make a pid namespace")
	}
	h := realHost(t)
	mark := t.TempDir() + ":part.process.x"
	for _, tt := range []struct {
		flags uintptr
		found bool
	}{{syscall.CLONE_NEWPID, false}, {0, true}} {
		cmd := exec.Command("sleep", "1000")
		cmd.Env = []string{markVariable + "=" + mark}
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: tt.flags}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The kernel ends Start's wait for the new program a moment before it shows the environment.
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
			if env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid)); err != nil || len(env) > 0 {
				break
			}
		}
		pid, _, err := h.Find(mark)
		if tt.found && (err != nil || pid != cmd.Process.Pid) || !tt.found && !errors.Is(err, ErrNotFound) {
			t.Errorf("flags %x: found %d, %v", tt.flags, pid, err)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // killed
	}
}
