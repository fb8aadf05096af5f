package demo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"meshd/agent/control"
)

const (
	tailBytes = 4 << 10
	maxCards  = 1 << 20 // of one file in a tarball
)

// A Process is a meshd that this program started.
type Process struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // after done
}

// Command runs exe to its end; its output is part of the error.
func Command(ctx context.Context, exe string, args ...string) error {
	out, err := exec.CommandContext(ctx, exe, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", filepath.Base(exe), strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// Start runs exe in the background; its output goes to the file log.
func Start(exe, log string, args ...string) (*Process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.Command(exe, args...), log: log, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = f, f
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	go func() {
		p.err = p.cmd.Wait()
		_ = f.Close()
		close(p.done)
	}()
	return p, nil
}

// Done is closed when the process has ended; Err then says how.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how it ended; nil for exit 0. Valid after Done.
func (p *Process) Err() error { return p.err }

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Tail is the end of what it printed.
func (p *Process) Tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-tailBytes):])
}

// Stop asks it to end and waits; after quitTime it is killed, which is an error.
func (p *Process) Stop() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := terminate(p.PID()); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(quitTime):
		_ = kill(p.PID())
		<-p.done
		return fmt.Errorf("meshd (pid %d) did not end within %v and was killed", p.PID(), quitTime)
	}
}

// Kill ends it with no chance to say anything.
func (p *Process) Kill() error {
	err := kill(p.PID())
	<-p.done
	return err
}

// Answers waits until the node answers at its door.
func (p *Process) Answers(ctx context.Context, c *control.Client) error {
	ticker := time.NewTicker(lookTime)
	defer ticker.Stop()
	for {
		_, err := c.Version(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("meshd does not answer: %w\n%s", err, p.Tail())
		case <-p.done:
			return fmt.Errorf("meshd ended: %v\n%s", p.err, p.Tail())
		case <-ticker.C:
		}
	}
}

// PublishScore puts the score in a folder in force.
func PublishScore(ctx context.Context, c *control.Client, dir string) (control.Score, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(control.Pack(w, dir, nil)) }()
	s, err := c.PublishScore(ctx, r)
	_ = r.Close()
	return s, err
}

// ReadTarball returns the files of a .tgz as text.
func ReadTarball(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	files := map[string]string{}
	for t := tar.NewReader(z); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		b, err := io.ReadAll(io.LimitReader(t, maxCards))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		files[h.Name] = string(b)
	}
}
