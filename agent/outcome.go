package agent

import (
	"fmt"
	"slices"
	"time"

	"meshd/policies"
)

// cameToRest wakes those that need in where it has news for them, and queues those that only waited for it.
func (l *loop) cameToRest(in *instance, news bool, entry uint64) {
	if news {
		l.wave(in, Cause{Entry: entry}, in.outcome == policies.Repaired)
		return
	}
	for _, address := range l.feeds[in.p.Address] {
		if other := l.instances[address]; other != nil && other.dirty {
			l.enqueue(other)
		}
	}
}

// wave wakes all that read what in just made true.
func (l *loop) wave(in *instance, c Cause, repaired bool) {
	for _, address := range l.feeds[in.p.Address] {
		other := l.instances[address]
		if other == nil {
			continue
		}
		if repaired && slices.Contains(other.p.On, in.p.Address) {
			l.warn(l.a.memory.setPending(address))
		}
		if repaired && restartsOn(other.p, in.p.Address) {
			other.restart = true
		}
		other.settle = time.Time{} // made by us, whole
		l.wake(other, c)
	}
}

func (l *loop) warn(err error) {
	if err != nil {
		l.a.cfg.Log.Warn("can't be remembered over a restart", "error", err)
	}
}

func restartsOn(p policies.Promise, by policies.Address) bool {
	if slices.Contains(p.On, by) {
		return true
	}
	switch s := p.Spec.(type) {
	case policies.Process:
		return slices.Contains(s.RestartOn, by)
	case policies.Guest:
		return slices.Contains(s.RestartOn, by)
	}
	return false
}

// tell records an outcome where it changed or something was repaired. It returns the record that explains
// the present state, old or new.
func (l *loop) tell(in *instance, o policies.Outcome, reason string, took time.Duration) uint64 {
	same := o == in.outcome && o != policies.Repaired && (o == policies.Kept || reason == in.reason)
	quiet := same || (o == policies.Kept && in.outcome == policies.Repaired)
	if o != in.outcome {
		in.since = l.a.cfg.Wall()
	}
	l.counts[in.outcome]--
	l.counts[o]++
	in.outcome = o
	if !quiet || o != policies.Kept {
		in.reason = reason
	}
	if quiet {
		return in.entry
	}
	cause := in.cause
	if c, ok := l.a.supply.causeOf(in.p.Address); ok && o == policies.Repaired {
		if c != in.source || cause.Text == "" {
			cause = c // else what it took before was put back: the cause is the damage
		}
		in.source = c
	}
	add := l.log.append
	if o == policies.Kept && len(l.feeds[in.p.Address]) == 0 {
		add = l.log.appendLater // nobody waits for it: many such are told at once
	}
	in.entry = add(Entry{
		At: l.a.cfg.Wall(), Kind: aboutPromise, Subject: string(in.p.Address), Outcome: o.String(), Text: reason,
		Cause: cause, Score: l.scoreHash(), Took: took,
	})
	return in.entry
}

func (l *loop) tellFight(in *instance) {
	in.reason = fmt.Sprintf("repaired over %d times in %v: something else writes it; pausing %v", fightRepairs, fightWindow, fightPause)
	l.a.cfg.Log.Warn("a fight over one promise", "promise", in.p.Address, "pause", fightPause)
	l.log.append(Entry{At: l.a.cfg.Wall(), Kind: aboutPromise, Subject: string(in.p.Address), Outcome: in.outcome.String(), Text: in.reason})
}

func (l *loop) scoreHash() string {
	if l.program == nil {
		return ""
	}
	return l.program.Score().Hash
}

// paced is the time to the next look with no event, jittered so that many nodes don't look as one.
func (l *loop) paced(in *instance) time.Duration {
	every := in.p.Every
	if every <= 0 {
		every = time.Minute
	}
	if in.p.Jitter <= 0 {
		return every
	}
	return time.Duration(float64(every) * (1 + in.p.Jitter*(2*l.rand.Float64()-1)))
}

func (l *loop) jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*l.rand.Float64()))
}
