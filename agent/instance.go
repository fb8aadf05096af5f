package agent

import (
	"context"
	"time"

	"meshd/agent/promise"
	"meshd/policies"
)

// An instance is one promise as this node plays it. All fields belong to the loop.
type instance struct {
	p      policies.Promise
	keeper promise.Keeper // nil while p has a Problem

	outcome policies.Outcome
	reason  string
	since   time.Time // wall time at which outcome last changed
	checked time.Time // wall time of the last look
	entry   uint64    // journal record of the last change
	source  Cause     // of a want: what its last repair took, and why that was there
	repairs int64

	dirty    bool      // wants a look
	cause    Cause     // the heaviest of the wakes since the last look
	queued   bool      // is in the loop's queue
	lined    bool      // waits for a place in its lane
	at       time.Time // when the clock will look at it
	slot     int       // its place in the clock, from 1; 0: not in it
	settle   time.Time // not before this (an edit is under way); zero: at once
	failures int       // in a row
	restart  bool      // a promise named in restart_on was repaired
	paused   bool      // at the last look

	confirming bool // the next look only sees whether a repair lasted until there was a watch

	running bool
	cancel  context.CancelFunc
	ended   bool              // leaves when the run under way is over
	next    *policies.Promise // takes over when the run under way is over

	wakes <-chan struct{} // the keeper's own event that is being waited for

	recent []time.Time // repairs of the last moments, to damp a fight
}

// good reports whether those who need this may go on.
func (in *instance) good() bool {
	return in.outcome == policies.Kept || in.outcome == policies.Repaired
}

// news reports whether what was just told of it is news for those that need it.
func (in *instance) news(wasGood bool) bool {
	return in.outcome == policies.Repaired || in.good() && !wasGood
}

// atRest reports whether nothing is about to change what others read of it.
func (in *instance) atRest() bool { return !in.running && !in.dirty }

const (
	backoffMin = time.Second
	backoffMax = 5 * time.Minute

	fightRepairs = 300              // repairs of one promise within fightWindow are a fight:
	fightWindow  = 10 * time.Second // something else writes what we promise,
	fightPause   = 10 * time.Second // so it gets a pause, and people are told
)

// backoff grows with the failures in a row: 1s, 2s, 4s .. 5m.
func backoff(failures int) time.Duration {
	d := backoffMin
	for i := 1; i < failures && d < backoffMax; i++ {
		d *= 2
	}
	return min(d, backoffMax)
}

// fights counts a repair and reports whether there were too many of late.
func (in *instance) fights(now time.Time) bool {
	keep := in.recent[:0]
	for _, t := range in.recent {
		if now.Sub(t) < fightWindow {
			keep = append(keep, t)
		}
	}
	in.recent = append(keep, now)
	return len(in.recent) > fightRepairs
}

// A lane bounds how many promises of a kind are looked at at once.
type lane struct {
	limit   int
	running int
	waiting []*instance // each once, in the order they came; some may have ended since
}

func (ln *lane) wait(in *instance) {
	if !in.lined {
		in.lined = true
		ln.waiting = append(ln.waiting, in)
	}
}

// next takes the one that has waited longest.
func (ln *lane) next() *instance {
	in := ln.waiting[0]
	ln.waiting = ln.waiting[1:]
	in.lined = false
	return in
}

const (
	laneFile    = "file"    // file checks and repairs: short, disk bound
	laneCommand = "command" // commands: 2 x cores
	laneWait    = "wait"    // pulls, process and guest work: they mostly wait
	waitLimit   = 256
)

var laneNames = []string{laneFile, laneCommand, laneWait}

func laneOf(kind string) string {
	switch kind {
	case "file", "report", "artifact":
		return laneFile
	case "command":
		return laneCommand
	}
	return laneWait
}

// timeouts of one look where the score says none, by promise type.
func timeoutOf(p policies.Promise) time.Duration {
	if p.Timeout > 0 {
		return p.Timeout
	}
	switch s := p.Spec.(type) {
	case policies.Command:
		if s.Timeout > 0 {
			return s.Timeout + time.Minute // the keeper cuts the command; this cuts the keeper
		}
		return 11 * time.Minute
	case policies.Want:
		return time.Hour
	}
	return 2 * time.Minute
}

// A look is what one run of a keeper came to.
type look struct {
	address policies.Address
	outcome policies.Outcome
	reason  string
	finding promise.Finding
	watches []promise.Watch
	took    time.Duration

	mayRepair bool // false: it only looked,
	paused    bool // because an operator said so
}

// keep checks, repairs where allowed, and checks again; restart comes only with mayRepair. It runs in a goroutine of its own.
func keep(ctx context.Context, k promise.Keeper, p policies.Promise, mayRepair, restart bool) look {
	start := time.Now()
	l := look{address: p.Address, mayRepair: mayRepair}
	l.outcome, l.reason, l.finding = keepOnce(ctx, k, mayRepair, restart)
	l.watches = k.Watches()
	l.took = time.Since(start)
	return l
}

func keepOnce(ctx context.Context, k promise.Keeper, mayRepair, restart bool) (policies.Outcome, string, promise.Finding) {
	if r, ok := k.(promise.Restarter); ok && restart {
		if err := r.Restart(ctx); err != nil {
			return judge(err, promise.Finding{})
		}
	}
	f, err := k.Check(ctx)
	if err != nil {
		return judge(err, f)
	}
	if f.OK {
		if restart {
			return policies.Repaired, "restarted", f
		}
		return policies.Kept, f.Reason, f
	}
	if !mayRepair {
		return policies.Drifted, f.Reason, f
	}
	done, err := k.Repair(ctx)
	if err != nil {
		return judge(err, done)
	}
	after, err := k.Check(ctx)
	if err != nil {
		return judge(err, after)
	}
	if !after.OK {
		return policies.Failed, "untrue again after the repair: " + after.Reason, after
	}
	if after.Artifact == (promise.ArtifactCause{}) {
		after.Artifact = done.Artifact
	}
	reason := done.Reason
	if reason == "" {
		reason = f.Reason
	}
	return policies.Repaired, reason, after
}

func judge(err error, f promise.Finding) (policies.Outcome, string, promise.Finding) {
	if w, ok := asWaiting(err); ok {
		return policies.Waiting, w.Error(), f
	}
	return policies.Failed, err.Error(), f
}
