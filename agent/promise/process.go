package promise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"meshd/policies"
)

// Limits of a process promise.
const (
	defaultGrace      = 10 * time.Second // from stop to KILL (POLICY.md)
	killWait          = 5 * time.Second  // for a killed process to be gone
	groupLooks        = 100              // for the rest of its group, killed too
	groupPoll         = 2 * time.Millisecond
	defaultBackoffMin = time.Second // POLICY.md
	defaultBackoffMax = time.Minute
	steadyAfter       = time.Minute // up this long, a process has not crashed at once
	soon              = time.Millisecond
)

// A processKeeper keeps a program running, or stopped. The program outlives this one: what is needed to
// find it again is in Memory before it starts.
type processKeeper struct {
	address policies.Address
	spec    policies.Process
	site    Site
	probe   *probe // nil without check

	// args gives what is added to run for one start, and is no part of what a change of restarts it; nil: nothing.
	args func(ctx context.Context) ([]string, error)

	child   Child // nil: none known
	fresh   bool  // started, and not looked at since
	adopted bool  // Memory was looked at
	up      time.Time
	pace    pace
	unwell  string // why a running process has to be started anew
}

func newProcess(p policies.Promise, spec policies.Process, s Site) (Keeper, error) {
	if len(spec.Run) == 0 || spec.Run[0] == "" {
		return nil, errors.New("process needs run")
	}
	if spec.State != "" && spec.State != "running" && spec.State != "stopped" {
		return nil, fmt.Errorf("state %q: it is \"running\" or \"stopped\"", spec.State)
	}
	if spec.Dir != "" {
		if _, err := newPlace(s, spec.Dir); err != nil {
			return nil, fmt.Errorf("dir: %w", err)
		}
	}
	if spec.StopSignal == "" {
		spec.StopSignal = "TERM"
	}
	if spec.StopGrace <= 0 {
		spec.StopGrace = defaultGrace
	}
	k := &processKeeper{address: p.Address, spec: spec, site: s}
	k.pace = pace{shortest: spec.BackoffMin, longest: spec.BackoffMax}
	if k.pace.shortest <= 0 {
		k.pace.shortest = defaultBackoffMin
	}
	if k.pace.longest <= 0 {
		k.pace.longest = defaultBackoffMax
	}
	if spec.Check != nil {
		var err error
		if k.probe, err = newProbe(spec, s); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// mark tells this promise's process from all others of the machine: those of other nodes too.
func (k *processKeeper) mark() string { return markOf(k.site.Data, k.address) }

func markOf(data string, a policies.Address) string { return data + ":" + string(a) }

// adopt finds the process of an earlier run, once.
func (k *processKeeper) adopt() error {
	if k.adopted {
		return nil
	}
	rec, err := k.readRecord()
	if err != nil {
		return err
	}
	if rec.PID == 0 {
		// The pid was never written down, or Memory was lost: the mark is in its environment. A pid that
		// is known and gone is not looked for so: its children have the same mark.
		rec.PID, rec.Start, err = k.site.Host.Find(k.mark())
	}
	if err == nil {
		k.child, err = k.site.Host.Adopt(rec.PID, rec.Start)
	}
	if errors.Is(err, ErrNotFound) {
		k.child = nil
	} else if err != nil {
		return fmt.Errorf("look for the process of an earlier run: %w", err)
	}
	k.adopted = true
	if k.child == nil {
		return nil
	}
	k.up = time.Now()
	if rec.Hash != "" && rec.Hash != k.hash() {
		k.unwell = "the promise changed"
	} else if rec.Restart {
		k.unwell = "a restart was asked for"
	}
	return nil
}

// gone notes the end of the child, once, and reports whether there is none now.
func (k *processKeeper) gone() (why string, gone bool) {
	if k.child == nil {
		return "it does not run", true
	}
	select {
	case <-k.child.Done():
	default:
		return "", false
	}
	why = "it ended"
	if r := k.child.ExitReason(); r != "" {
		why = "it ended with " + r
	}
	k.pace.ended(time.Now(), time.Since(k.up))
	k.child, k.unwell = nil, ""
	k.pace.why = why
	return why, true
}

// Check looks at the process and, when its time has come, asks its check.
func (k *processKeeper) Check(ctx context.Context) (Finding, error) {
	if err := k.adopt(); err != nil {
		return Finding{}, err
	}
	why, gone := k.gone()
	fresh := k.fresh
	k.fresh = false
	if k.spec.State == "stopped" {
		if gone {
			return Finding{OK: true}, nil
		}
		return Finding{Reason: fmt.Sprintf("it runs (pid %d)", k.child.PID()), Wakes: k.child.Done()}, nil
	}
	if gone {
		if k.pace.why != "" {
			why = k.pace.why
		}
		again := k.pace.wait(time.Now())
		if fresh {
			again = max(again, soon) // the look at its start found it ended already
		}
		return Finding{Reason: why, Again: again}, nil
	}
	trimLog(LogPath(k.site.Data, k.address))
	f := Finding{OK: true, Wakes: k.child.Done()}
	if k.unwell != "" {
		return Finding{Reason: k.unwell, Wakes: f.Wakes}, nil
	}
	if k.probe == nil {
		return f, nil
	}
	state, why := k.probe.ask(ctx, k.site.Host)
	f.Again = k.probe.every()
	switch state {
	case probeWaits:
		return Finding{Wakes: f.Wakes, Again: f.Again}, &WaitingError{For: "its check: " + why}
	case probeFails:
		k.unwell = "its check failed: " + why
		f.OK = false
	}
	f.Reason = why
	if !f.OK {
		f.Reason = k.unwell
	}
	return f, nil
}

// Repair starts the process, or stops it; a restart is both. When it crashed again and again the error
// says so and Again when the next start is due.
func (k *processKeeper) Repair(ctx context.Context) (Finding, error) {
	if err := k.adopt(); err != nil {
		return Finding{}, err
	}
	_, gone := k.gone()
	if k.spec.State == "stopped" {
		if gone {
			return Finding{OK: true}, nil
		}
		pid := k.child.PID()
		if err := k.stop(ctx); err != nil {
			return Finding{}, err
		}
		return Finding{OK: true, Reason: fmt.Sprintf("stopped pid %d", pid)}, nil
	}
	why := k.pace.why
	if !gone {
		if k.unwell == "" {
			return Finding{OK: true, Wakes: k.child.Done()}, nil
		}
		why = k.unwell
		if err := k.stop(ctx); err != nil {
			return Finding{}, err
		}
	}
	if wait := k.pace.wait(time.Now()); wait > 0 {
		return Finding{Again: wait}, fmt.Errorf("%s, %d times soon after its start: next start in %s", why, k.pace.quick, wait.Round(time.Millisecond))
	}
	if err := k.start(ctx); err != nil {
		k.pace.ended(time.Now(), 0)
		k.pace.why = err.Error()
		return Finding{Again: max(k.pace.wait(time.Now()), k.pace.shortest)}, err
	}
	reason := fmt.Sprintf("started pid %d", k.child.PID())
	if why != "" {
		reason += ": " + why
	}
	return Finding{OK: true, Reason: reason, Wakes: k.child.Done()}, nil
}

// start journals the intent, spawns, and journals the pid.
func (k *processKeeper) start(ctx context.Context) error {
	argv := k.spec.Run
	if k.args != nil {
		more, err := k.args(ctx)
		if err != nil {
			return err
		}
		argv = append(append([]string{}, argv...), more...)
	}
	rec := record{Hash: k.hash()}
	if err := k.writeRecord(rec); err != nil {
		return fmt.Errorf("journal the start of %q: %w", argv[0], err)
	}
	child, err := k.site.Host.Spawn(Cmd{
		Argv: argv, Env: append(environ(k.spec.Env), markVariable+"="+k.mark()), Dir: workDir(k.site, k.spec.Dir),
		User: k.spec.User, LogPath: LogPath(k.site.Data, k.address),
	})
	if err != nil {
		return fmt.Errorf("start %q: %w", argv[0], err)
	}
	k.child, k.fresh, k.up, k.unwell = child, true, time.Now(), ""
	if k.probe != nil {
		k.probe.reset()
	}
	if k.site.Spawned != nil {
		k.site.Spawned(child.PID())
	}
	rec.PID, rec.Start = child.PID(), child.StartTime()
	if err := k.writeRecord(rec); err != nil {
		return fmt.Errorf("journal pid %d of %q, which runs and is found again by its mark: %w", rec.PID, argv[0], err)
	}
	return nil
}

// stop ends the child: the stop signal, the grace, KILL.
func (k *processKeeper) stop(ctx context.Context) error {
	if k.child == nil {
		return nil
	}
	if err := stopChild(ctx, k.child, k.spec.StopSignal, k.spec.StopGrace); err != nil {
		return err
	}
	k.child, k.unwell, k.pace.why = nil, "", ""
	k.untilGroupEnds()
	return k.writeRecord(record{})
}

// untilGroupEnds waits a moment for what was killed with the child: until it is gone it bears the mark, and
// would be taken for a process that runs.
func (k *processKeeper) untilGroupEnds() {
	tick := time.NewTicker(groupPoll)
	defer tick.Stop()
	for range groupLooks {
		if _, _, err := k.site.Host.Find(k.mark()); err != nil {
			return
		}
		<-tick.C
	}
}

// stopChild ends c, and what is left of its process group.
func stopChild(ctx context.Context, c Child, signal string, grace time.Duration) error {
	pid := c.PID()
	if err := c.Signal(signal); err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("stop pid %d: %w", pid, err)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.Done():
	case <-timer.C:
	case <-ctx.Done():
		return fmt.Errorf("stop pid %d: %w", pid, ctx.Err())
	}
	if err := c.Signal("KILL"); err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("kill pid %d: %w", pid, err)
	}
	last := time.NewTimer(killWait)
	defer last.Stop()
	select {
	case <-c.Done():
		return nil
	case <-last.C:
		return fmt.Errorf("pid %d is still there %s after it was killed", pid, killWait)
	}
}

// Restart has the process started anew at the next Repair, also when this program ends before that.
func (k *processKeeper) Restart(context.Context) error {
	if err := k.adopt(); err != nil {
		return err
	}
	if _, gone := k.gone(); gone || k.spec.State == "stopped" {
		return nil
	}
	k.unwell = "a restart was asked for"
	rec, err := k.readRecord()
	if err != nil {
		return err
	}
	rec.Restart = true
	return k.writeRecord(rec)
}

// Yield leaves the process to the next keeper of this address.
func (k *processKeeper) Yield() { k.child = nil }

// Watches: a process is watched by its Wakes.
func (k *processKeeper) Watches() []Watch { return nil }

// End stops the process, unless it is the agent that leaves.
func (k *processKeeper) End(ctx context.Context, leaving bool) error {
	if leaving && !k.spec.StopWithAgent {
		return nil
	}
	if err := k.adopt(); err != nil {
		return err
	}
	if _, gone := k.gone(); gone {
		return nil
	}
	return k.stop(ctx)
}

// trimLog bounds the log of a process, which writes to it by itself: what is over the limit moves to the
// older file. Best effort: a log is no state.
func trimLog(path string) {
	info, err := os.Stat(path)
	if err != nil || info.Size() <= maxLogBytes {
		return
	}
	if b, err := os.ReadFile(path); err == nil {
		_ = os.WriteFile(path+".1", b[max(0, len(b)-maxLogBytes):], 0o600)
		_ = os.Truncate(path, 0)
	}
}
