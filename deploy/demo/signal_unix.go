//go:build unix

package demo

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
)

// endings are the signals that would end this program with what it started still there; those that whoever
// started it had it ignore (nohup) stay ignored.
func endings() []os.Signal {
	list := []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE}
	return slices.DeleteFunc(list, signal.Ignored)
}

func terminate(pid int) error { return syscall.Kill(pid, syscall.SIGTERM) }

func kill(pid int) error { return syscall.Kill(pid, syscall.SIGKILL) }
