package agent

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"meshd/agent/control"
	"meshd/mesh"
	"meshd/mesh/id"
)

// The forgotten are absent nodes that an operator wants out of this node's lists. A node that is heard again is
// listed again, and stays listed when it goes. It is safe for concurrent use.
type forgotten struct {
	memory *memory

	mu   sync.Mutex
	last map[string]time.Time // node id -> when it had been seen last, at the most
}

func openForgotten(m *memory) (*forgotten, error) {
	last, err := m.times(prefixGone)
	return &forgotten{memory: m, last: last}, err
}

// hides reports whether n is left out.
func (f *forgotten) hides(n mesh.Node) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	last, ok := f.last[n.ID.String()]
	return ok && !n.Alive && !n.LastSeen.After(last)
}

// add is durable on return.
func (f *forgotten) add(n mesh.Node, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := now
	if n.LastSeen.After(last) {
		last = n.LastSeen // by a clock that is ahead of ours
	}
	last = last.Truncate(time.Millisecond).Add(time.Millisecond) // no earlier than what it was rounded from
	if err := f.memory.putTime(prefixGone, n.ID.String(), last); err != nil {
		return fmt.Errorf("remember that %s is forgotten: %w", n.Name, err)
	}
	f.last[n.ID.String()] = last
	return nil
}

// listed is every node but those that were forgotten.
func (a *Agent) listed() []mesh.Node {
	return slices.DeleteFunc(a.mesh.Nodes(), a.forgotten.hides)
}

// unlisted tells which nodes were forgotten, by id.
func (a *Agent) unlisted() map[id.Node]bool {
	out := map[id.Node]bool{}
	for _, n := range a.mesh.Nodes() {
		if a.forgotten.hides(n) {
			out[n.ID] = true
		}
	}
	return out
}

func (d door) Forget(_ context.Context, node string) error {
	for _, n := range d.a.mesh.Nodes() {
		switch {
		case n.Name != node && n.ID.String() != node:
		case n.Self:
			return control.Errorf(control.Failed, "%s is this node itself: it cannot forget itself", node)
		case n.Alive || n.Status == "suspect":
			return control.Errorf(control.Failed, "%s is %s: only an absent node can be forgotten; meshctl revoke expels one", node, n.Status)
		default:
			if err := d.a.forgotten.add(n, d.a.cfg.Wall()); err != nil {
				return err
			}
			d.a.journal.append(Entry{
				At: d.a.cfg.Wall(), Kind: aboutNode, Subject: n.Name, Text: "forgotten here", Cause: Cause{Text: "meshctl forget on " + d.a.name},
			})
			return d.a.journal.flush()
		}
	}
	return control.Errorf(control.NotFound, "no node %q is known here; meshctl members lists them", node)
}
