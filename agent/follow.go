package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"meshd/agent/control"
	"meshd/agent/promise"
	"meshd/policies"
)

// followEvery is how often a log is looked at for more: it is written by programs that tell nobody.
const followEvery = 200 * time.Millisecond

// Logs writes the log before the present one too. Followed, it ends when the promise does.
func (d door) Logs(ctx context.Context, address string, follow bool, w io.Writer) error {
	known, err := d.plays(ctx, address)
	if err != nil {
		return err
	}
	t := &tail{path: promise.LogPath(d.a.cfg.Node.Dir, policies.Address(address)), out: w}
	defer t.close()
	before, err := t.earlier()
	if err == nil {
		err = t.more()
	}
	if err != nil {
		return err
	}
	if !known && !before && t.file == nil {
		return control.Errorf(control.NotFound, "no promise %q on this node; meshctl promises lists them", address)
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for follow && known {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.a.stopping:
			return errStopping
		case <-tick.C:
		}
		if known, err = d.plays(ctx, address); err != nil {
			return err
		}
		if err := t.more(); err != nil {
			return err
		}
	}
	return nil // kept quietly: it printed nothing
}

// plays reports whether this node has a promise of that very address now.
func (d door) plays(ctx context.Context, address string) (known bool, err error) {
	err = d.a.loop.do(ctx, func() { known = d.a.loop.instances[policies.Address(address)] != nil })
	return known, err
}

// A tail writes what is added to a log, across the renames and cuts that bound it.
type tail struct {
	path string
	out  io.Writer
	file *os.File // as far as it was read; nil while there is none
}

// earlier writes the log before the present one, and reports whether there is one.
func (t *tail) earlier() (bool, error) {
	f, err := os.Open(t.path + ".1")
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(t.out, f)
	return true, err
}

// more writes what was added since the last call.
func (t *tail) more() error {
	now, err := os.Stat(t.path)
	if errors.Is(err, os.ErrNotExist) {
		return t.rest()
	}
	if err != nil {
		return err
	}
	if t.file != nil {
		if err := t.rest(); err != nil {
			return err
		}
		if had, err := t.file.Stat(); err == nil && os.SameFile(had, now) {
			return t.uncut()
		}
		t.close() // it was renamed, and another began
	}
	if t.file, err = os.Open(t.path); errors.Is(err, os.ErrNotExist) {
		t.file = nil
		return nil
	} else if err != nil {
		return err
	}
	return t.rest()
}

// rest writes from where the last call ended.
func (t *tail) rest() error {
	if t.file == nil {
		return nil
	}
	_, err := io.Copy(t.out, t.file)
	return err
}

// uncut begins anew where the log was cut to nothing.
func (t *tail) uncut() error {
	info, err := t.file.Stat()
	if err != nil {
		return err
	}
	at, err := t.file.Seek(0, io.SeekCurrent)
	if err != nil || at <= info.Size() {
		return err
	}
	if _, err := t.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return t.rest()
}

func (t *tail) close() {
	if t.file != nil {
		_ = t.file.Close()
		t.file = nil
	}
}
