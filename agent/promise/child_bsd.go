//go:build unix && !linux

package promise

import (
	"errors"
	"fmt"
	"runtime"
)

func watchExit(int) (exitWatch, error) { return nil, errors.ErrUnsupported }

func processStat(int) (start uint64, ended bool, err error) {
	return 0, false, fmt.Errorf("the start time of a process is not yet supported on %s (%w)", runtime.GOOS, errors.ErrUnsupported)
}

// Find is not yet supported: without it a process could be started twice, so that none is started.
func (r *Real) Find(string) (pid int, start uint64, err error) {
	return 0, 0, fmt.Errorf("finding processes again after a restart is not yet supported on %s, and so no process promise is (%w)", runtime.GOOS, errors.ErrUnsupported)
}
