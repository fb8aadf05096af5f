package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"meshd/agent/control"
	"meshd/mesh"
)

const (
	prefixLimit = "limit/" // + nothing: the caps that an operator set, as JSON behind a version byte
	maxLimits   = 8        // classes that are read back
)

// limits are the caps on what artifacts take of the links. What was said last holds: an operator's word outlives
// restarts until the settings of the start are others than those it was said over.
type limits struct {
	memory *memory
	mesh   *mesh.Mesh

	mu    sync.Mutex
	start []control.Limit // as the settings have them
	now   []control.Limit
}

// A limitWord is what is remembered of an operator's word.
type limitWord struct {
	Start []control.Limit `json:"start"` // the settings it was said over
	Now   []control.Limit `json:"now"`
}

func openLimits(m *memory, on *mesh.Mesh, start []control.Limit) (*limits, error) {
	if start == nil {
		start, _ = control.ParseLimits(nil, nil) // no cap is no error
	}
	l := &limits{memory: m, mesh: on, start: start, now: start}
	key := []byte(prefixLimit)
	_, values, err := m.shelf.Scan(key, append(slices.Clone(key), 0), 1)
	if err != nil {
		return nil, fmt.Errorf("read the caps on the links: %w", err)
	}
	if len(values) == 1 {
		var word limitWord
		if first(values[0]) != memoryV1 {
			return nil, fmt.Errorf("caps on the links: version %d, this program knows %d", first(values[0]), memoryV1)
		}
		if err := json.Unmarshal(values[0][1:], &word); err != nil {
			return nil, fmt.Errorf("caps on the links: %w", err)
		}
		if slices.Equal(word.Start, start) && len(word.Now) <= maxLimits {
			l.now = word.Now
		}
	}
	l.apply()
	return l, nil
}

// apply has the swarm keep to the caps. l.mu is held, or nobody else knows of l.
func (l *limits) apply() {
	var caps mesh.Limits
	for _, each := range l.now {
		class := mesh.AllLinks
		switch each.Class {
		case control.ClassLAN:
			class = mesh.LANLinks
		case control.ClassWAN:
			class = mesh.WANLinks
		}
		caps[class] = mesh.Limit{Egress: each.EgressBytesPerSecond, Ingress: each.IngressBytesPerSecond}
	}
	l.mesh.SetLimits(caps)
}

func (l *limits) list() []control.Limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.now)
}

// change takes an operator's word, durably first.
func (l *limits) change(c control.LimitChange) ([]control.Limit, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := slices.Clone(l.now)
	for i := range next {
		if next[i].Class == c.Class && c.Egress != nil {
			next[i].EgressBytesPerSecond = *c.Egress
		}
		if next[i].Class == c.Class && c.Ingress != nil {
			next[i].IngressBytesPerSecond = *c.Ingress
		}
	}
	if c.Reset {
		next = l.start
	}
	if err := l.remember(next); err != nil {
		return nil, fmt.Errorf("remember the caps: %w", err)
	}
	l.now = next
	l.apply()
	return slices.Clone(next), nil
}

// remember keeps an operator's word; what is as the settings have it needs none.
func (l *limits) remember(next []control.Limit) error {
	var value []byte
	if !slices.Equal(next, l.start) {
		b, err := json.Marshal(limitWord{l.start, next})
		if err != nil {
			return err
		}
		value = append([]byte{memoryV1}, b...)
	}
	return l.memory.shelf.Apply([][]byte{[]byte(prefixLimit)}, [][]byte{value})
}

// restart takes settings that were read again; others than before are the last word.
func (l *limits) restart(start []control.Limit) (changed bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if slices.Equal(start, l.start) {
		return false, nil
	}
	was := l.start
	l.start = start
	if err := l.remember(start); err != nil {
		l.start = was
		return false, fmt.Errorf("remember the caps: %w", err)
	}
	l.now = start
	l.apply()
	return true, nil
}

// ReloadLimits takes the caps of settings that were read again.
func (a *Agent) ReloadLimits(ctx context.Context, start []control.Limit) error {
	changed, err := a.limits.restart(start)
	if err != nil || !changed {
		return err
	}
	return a.tellLimits(ctx, start, "the settings were read again")
}

func (d door) Limits(context.Context) ([]control.Limit, error) { return d.a.limits.list(), nil }

func (d door) SetLimit(ctx context.Context, c control.LimitChange) ([]control.Limit, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	all, err := d.a.limits.change(c)
	if err != nil {
		return nil, err
	}
	return all, d.a.tellLimits(ctx, all, "meshctl limit on "+d.a.name)
}

// tellLimits journals the caps that hold from now on.
func (a *Agent) tellLimits(ctx context.Context, all []control.Limit, why string) error {
	text := ""
	for _, l := range all {
		if l.EgressBytesPerSecond != 0 || l.IngressBytesPerSecond != 0 {
			text += fmt.Sprintf(", %s: egress %s, ingress %s", l.Class, control.RateText(l.EgressBytesPerSecond), control.RateText(l.IngressBytesPerSecond))
		}
	}
	if text == "" {
		text = ", none"
	}
	err := a.loop.do(ctx, func() {
		a.loop.log.append(Entry{At: a.cfg.Wall(), Kind: aboutNode, Subject: a.name, Text: "caps on what artifacts take of the links: " + text[2:], Cause: Cause{Text: why}})
	})
	if errors.Is(err, context.Canceled) {
		return nil // they hold and are kept; only the story lacks it
	}
	return err
}
