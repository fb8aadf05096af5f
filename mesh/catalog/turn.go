package catalog

import "time"

// turnStall is how long whoever has the turn may bring nothing before another session takes it.
const turnStall = 3 * time.Second

// A turn lets one session at a time fetch what is missing. Two peers that both know much would else send all of it
// twice to a node that was away. It is guarded by Catalog.mu.
type turn struct {
	of   *session  // nil: free
	last time.Time // when it brought something
}

// takeTurn gives s the turn unless another session has it and is getting on. Whoever is refused is woken when the
// turn is free, and looks again after turnStall by itself.
func (c *Catalog) takeTurn(s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.turn.of != nil && c.turn.of != s && now.Sub(c.turn.last) < turnStall {
		return false
	}
	c.turn = turn{s, now}
	return true
}

// useTurn notes that s brought something.
func (c *Catalog) useTurn(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.turn.of == s {
		c.turn.last = time.Now()
	}
}

// endTurn frees the turn, if s has it, and wakes the others.
func (c *Catalog) endTurn(s *session) {
	c.mu.Lock()
	if c.turn.of != s {
		c.mu.Unlock()
		return
	}
	c.turn = turn{}
	c.mu.Unlock()
	for _, o := range c.others(s) {
		o.wake()
	}
}
