package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"meshd/agent/control"
	"meshd/agent/promise"
)

// cleanUp ends the parent and all that it left running, and removes the folder.
func (d *demo) cleanUp() error {
	var errs []error
	// The parent first, or it would bring the children back.
	if d.parent != nil {
		errs = append(errs, d.parent.Stop())
	}
	ctx, cancel := context.WithTimeout(context.Background(), quitTime)
	defer cancel()
	var doors []*control.Client
	for _, job := range jobs {
		if c, err := d.child(job); err == nil {
			doors = append(doors, c)
		}
	}
	errs = append(errs, End(ctx, d.dir, doors))
	errs = append(errs, control.RemoveSocket(d.path("host")))
	for _, job := range jobs {
		errs = append(errs, control.RemoveSocket(d.path("host", "guests", job)))
	}
	if d.boxed != nil {
		errs = append(errs, d.boxed.remove())
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}

// End ends all that nodes with data folders below dir keep running: guests, which say at their doors who
// they are, and whatever else bears such a node's mark, be it so young that it has no door yet. What is
// still there when ctx ends is killed, which is an error.
func End(ctx context.Context, dir string, doors []*control.Client) error {
	host, err := promise.NewReal()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	began := time.Now()
	told, killed := map[int]bool{}, map[int]bool{}
	var late error
	for _, pid := range pidsOf(ctx, doors) {
		told[pid] = true
		_ = terminate(pid) // gone already: the look below sees that
	}
	ticker := time.NewTicker(lookTime)
	defer ticker.Stop()
	for {
		pid, _, err := host.Find(dir + string(filepath.Separator) + "*")
		switch {
		case errors.Is(err, promise.ErrNotFound), errors.Is(err, errors.ErrUnsupported):
			return late
		case err != nil:
			return errors.Join(late, err)
		case killed[pid] && time.Since(began) > 2*quitTime:
			return errors.Join(late, fmt.Errorf("process %d is still there after it was killed", pid))
		case ctx.Err() != nil && !killed[pid]:
			killed[pid] = true
			late = errors.Join(late, fmt.Errorf("process %d did not end in time and was killed", pid), kill(pid))
		case !told[pid]:
			told[pid] = true
			_ = terminate(pid)
		}
		<-ticker.C
	}
}

// pidsOf asks the nodes behind doors who they are, all at once; those that don't answer are left out.
func pidsOf(ctx context.Context, doors []*control.Client) []int {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		pids []int
	)
	for _, c := range doors {
		wg.Go(func() {
			if v, err := c.Version(ctx); err == nil {
				mu.Lock()
				pids = append(pids, v.PID)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return pids
}
