package agent

import (
	"context"
	"fmt"
	"time"

	"meshd/agent/control"
	"meshd/policies"
)

// maxPauses bounds the pauses that one node remembers.
const maxPauses = 4096

// The pauses of a node say until when an operator wants hands off a promise: of an address (all of its keys), or
// of all promises (the address ""). They belong to the loop.
type pauses struct {
	memory *memory
	until  map[string]time.Time // wall time
}

func openPauses(m *memory) (*pauses, error) {
	until, err := m.times(prefixRest)
	return &pauses{memory: m, until: until}, err
}

// of returns the end of the pause that lasts longest of those that cover a promise; the zero time for none.
func (p *pauses) of(a policies.Address, now time.Time) time.Time {
	var last time.Time
	for address, until := range p.until {
		if until.After(now) && until.After(last) && (address == "" || matches(a, address)) {
			last = until
		}
	}
	return last
}

// next is when the first pause ends; the zero time where none is left.
func (p *pauses) next() time.Time {
	var at time.Time
	for _, until := range p.until {
		if at.IsZero() || until.Before(at) {
			at = until
		}
	}
	return at
}

// set is durable on return; the zero time ends a pause.
func (p *pauses) set(address string, until time.Time) error {
	if _, had := p.until[address]; !had && until.IsZero() {
		return nil
	}
	if err := p.memory.putTime(prefixRest, address, until); err != nil {
		return fmt.Errorf("remember the pause: %w", err)
	}
	if until.IsZero() {
		delete(p.until, address)
	} else {
		p.until[address] = until
	}
	return nil
}

// endPauses takes out the pauses that are over and has their promises looked at. It returns when, by the
// monotonic clock, the next one is; the zero time for never.
func (l *loop) endPauses() time.Time {
	wall := l.a.cfg.Wall()
	for address, until := range l.pauses.until {
		if until.After(wall) {
			continue
		}
		if err := l.pauses.set(address, time.Time{}); err != nil {
			l.warn(err)
			delete(l.pauses.until, address) // it is over whatever the disk says
		}
		l.tellPause(address, "the pause is over")
		l.wakePaused(address, Cause{Text: "the pause is over"})
	}
	next := l.pauses.next()
	if next.IsZero() {
		return next
	}
	return time.Now().Add(next.Sub(wall))
}

func (l *loop) wakePaused(address string, c Cause) {
	for _, in := range l.instances {
		if address == "" || matches(in.p.Address, address) {
			l.wake(in, c)
		}
	}
}

func (l *loop) tellPause(address, text string) {
	if address == "" {
		address = "all promises"
	}
	l.log.append(Entry{
		At: l.a.cfg.Wall(), Kind: aboutPromise, Subject: address, Text: text, Cause: Cause{Text: "meshctl pause on " + l.a.name}, Score: l.scoreHash(),
	})
}

// pausedText is what a promise under a pause says of itself.
func pausedText(until time.Time, reason string) string {
	text := "paused until " + until.UTC().Format(time.RFC3339)
	if reason != "" {
		text += ": " + reason
	}
	return text
}

func (d door) Pause(ctx context.Context, address string, for_ time.Duration) error {
	var err error
	doErr := d.a.loop.do(ctx, func() { err = d.a.loop.pause(address, for_) })
	if doErr != nil {
		return doErr
	}
	return err
}

func (l *loop) pause(address string, for_ time.Duration) error {
	known := address == ""
	for a := range l.instances {
		known = known || matches(a, address)
	}
	_, paused := l.pauses.until[address]
	switch {
	case !known && !paused:
		return control.Errorf(control.NotFound, "no promise %q on this node; meshctl promises lists them", address)
	case for_ == 0 && !paused && address == "":
		return control.Errorf(control.NotFound, "the promises of this node are not paused as a whole; meshctl promises tells which one is")
	case for_ == 0 && !paused:
		return control.Errorf(control.NotFound, "promise %q is not paused by itself; meshctl promises tells how it stands", address)
	case !paused && len(l.pauses.until) >= maxPauses:
		return control.Errorf(control.Failed, "%d pauses are remembered already: end some, or pause all promises at once", maxPauses)
	}
	text, until := "the pause is ended", time.Time{}
	if for_ > 0 {
		until = l.a.cfg.Wall().Add(for_)
		text = pausedText(until, "")
	}
	if err := l.pauses.set(address, until); err != nil {
		return err
	}
	l.tellPause(address, text)
	l.wakePaused(address, Cause{Text: "meshctl pause"})
	return nil
}
