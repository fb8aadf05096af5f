package agent

import (
	"context"
	"maps"
	"runtime"
	"time"

	"meshd/mesh/catalog"
	"meshd/policies"
)

const (
	statusEvery  = 5 * time.Second        // at most, and at most every members/10 s (SPEC 6)
	statusBurst  = 3                      // changes that go out with no wait
	statusPause  = 500 * time.Millisecond // between two of those
	statusGroup  = 100 * time.Millisecond // changes come in groups: so long after the first of one
	goodbyeLimit = time.Second            // for the last status of a node that is stopped
	renewLook    = time.Minute            // between two looks at the own certificate: clocks are set
	renewAgain   = 10 * time.Minute       // before a renewal that nobody could give is tried again
	maxDeclared  = 16                     // declared tags and roles that fit a status record
)

// tellStatus publishes what this node says of itself: at once at start, then when it changed, rate limited.
//
// A few changes go out at once (a node that starts changes several times in its first seconds); in the long
// run there is one every `every`. What changed with no kick (addresses, rest) is seen then.
func (a *Agent) tellStatus(ctx context.Context) error {
	var told string
	burst := statusBurst
	last := time.Now()
	for {
		looked := time.Now()
		body, err := a.status(ctx)
		if err == nil {
			var b []byte
			b, err = catalog.EncodeStatus(body)
			if err == nil && string(b) != told && (a.worthTelling(body) || !a.mesh.Resting()) {
				if err = a.publishStatus(ctx, body, b); err == nil {
					told = string(b)
					burst--
				}
			}
		}
		if err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("the own status can't be told", "error", err)
			a.tellStatusSoon() // again
		}
		every := max(statusEvery, time.Duration(len(a.mesh.Alive()))*time.Second/10)
		if time.Since(last) >= every {
			burst, last = min(burst+1, statusBurst), time.Now()
		}
		next := looked.Add(every)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next)):
			continue
		case <-a.statusKick:
		}
		if burst > 0 {
			next = looked.Add(max(statusPause, time.Since(looked)+statusGroup))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Until(next)):
		}
	}
}

// publishStatus tells what this node says of itself, of which b is the encoding. A cloned node says so once: each word of
// it makes the other machine with its key begin a new log.
func (a *Agent) publishStatus(ctx context.Context, body catalog.StatusBody, b []byte) error {
	if was := a.toldStatus.Load(); body.State == catalog.StatusCloned && was != nil && was.State == body.State {
		return nil
	}
	if _, err := a.mesh.Publish(ctx, catalog.KindStatus, "", b, 0); err != nil {
		return err
	}
	a.toldStatus.Store(&body)
	return nil
}

// sayGoodbye tells the peers that this node is stopped in order, and how its promises stood.
func (a *Agent) sayGoodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, goodbyeLimit)
	defer cancel()
	a.leaving.Store(true)
	body, err := a.status(ctx)
	if err == nil && !a.mesh.Resting() {
		var b []byte
		if b, err = catalog.EncodeStatus(body); err == nil {
			err = a.publishStatus(ctx, body, b)
		}
	}
	if err != nil {
		a.cfg.Log.Warn("the goodbye can't be told: others see this node as failed", "error", err)
		return
	}
	a.mesh.Catalog().Flush(ctx)
}

// tellStatusSoon has tellStatus look at what this node would say of itself now.
func (a *Agent) tellStatusSoon() {
	select {
	case a.statusKick <- struct{}{}:
	default:
	}
}

func (a *Agent) status(ctx context.Context) (catalog.StatusBody, error) {
	s := catalog.StatusBody{
		Addrs: a.mesh.Advertised(), Name: a.name, Tags: map[string]string{}, Version: a.cfg.Version,
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if a.leaving.Load() {
		s.State = catalog.StatusLeft
	}
	if a.mesh.Catalog().Cloned() {
		s.State = catalog.StatusCloned
	}
	err := a.loop.do(ctx, func() {
		maps.Copy(s.Tags, a.declared())
		self := a.selfMember(a.loop.held)
		s.Roles = self.Roles
		s.Facts = a.loop.world.public(a.loop.program)
		if a.loop.program != nil {
			s.Score = a.loop.program.Score().Version
		}
		counts := a.loop.counts
		s.Kept, s.Repaired, s.Failed = counts[policies.Kept], counts[policies.Repaired], counts[policies.Failed]
		s.Waiting, s.Drifted = counts[policies.Waiting], counts[policies.Drifted]
	})
	return s, err
}

// renew gets a new certificate when that is due, saves it, and lives by it.
func (a *Agent) renew(ctx context.Context) error {
	var again time.Time // by the clock of package time: not before, since nobody could give one
	for {
		if a.mesh.RenewalDue() && !time.Now().Before(again) {
			chain, err := a.mesh.Renew(ctx)
			if err == nil && chain != nil {
				if err = a.cfg.Node.SaveChain(chain); err == nil {
					err = a.mesh.UseChain(chain)
				}
			}
			if err != nil && ctx.Err() == nil {
				a.cfg.Log.Warn("the certificate can't be renewed yet", "error", err)
			}
			if err != nil || chain == nil {
				again = time.Now().Add(renewAgain)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(renewLook):
		}
	}
}
