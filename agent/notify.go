package agent

import (
	"context"
	"fmt"
	"time"

	"meshd/policies"
)

// statusLineEvery is how often the service manager hears how the node stands.
const statusLineEvery = 5 * time.Second

// tellManager tells the service manager that the node is ready, how it stands, and that the loop turns.
// The sign of life comes from a turn of the loop: a loop that hangs gives none, and the manager starts the
// node anew.
func (a *Agent) tellManager(ctx context.Context) error {
	if a.cfg.Notify == nil {
		return nil
	}
	a.cfg.Notify("READY=1")
	defer a.cfg.Notify("STOPPING=1\nSTATUS=leaving the mesh")
	every := statusLineEvery
	if a.cfg.Watchdog > 0 {
		every = min(every, a.cfg.Watchdog/3)
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		var counts [policies.Drifted + 1]int
		if err := a.loop.do(ctx, func() { counts = a.loop.counts }); err != nil {
			return nil // the node stops
		}
		a.cfg.Notify(fmt.Sprintf("WATCHDOG=1\nSTATUS=%d members, %d kept, %d failed",
			len(a.mesh.Alive()), counts[policies.Kept]+counts[policies.Repaired], counts[policies.Failed]))
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
