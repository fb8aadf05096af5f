//go:build !unix

package promise

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

type realChild struct{}

func (*realChild) release() {}

func unsupported(what string) error {
	return fmt.Errorf("%s is not yet supported on %s (%w)", what, runtime.GOOS, errors.ErrUnsupported)
}

// Exec is not yet supported here: a timeout could not end the program's children.
func (r *Real) Exec(context.Context, Cmd, time.Duration) (code int, tail []byte, err error) {
	return 0, nil, unsupported("running commands")
}

// Spawn is not yet supported here.
func (r *Real) Spawn(Cmd) (Child, error) { return nil, unsupported("keeping processes") }

// Adopt is not yet supported here.
func (r *Real) Adopt(int, uint64) (Child, error) { return nil, unsupported("keeping processes") }

// Find is not yet supported here.
func (r *Real) Find(string) (pid int, start uint64, err error) {
	return 0, 0, unsupported("keeping processes")
}
