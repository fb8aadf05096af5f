package catalog

import "meshd/mesh/id"

// newsKept is how many changes are remembered for readers that follow the catalog by Since.
const newsKept = 4096

// A Change names records that came or went: what a reader should read again.
type Change struct {
	Kind   uint8
	Name   string
	Origin id.Node
}

// news remembers the last changes in a ring. rev counts all that ever were, from 1.
type news struct {
	rev  uint64
	ring []Change
}

func (n *news) note(e *entry) {
	c := Change{Kind: e.kind, Name: e.name, Origin: e.log.Origin}
	if len(n.ring) < newsKept {
		n.ring = append(n.ring, c)
	} else {
		n.ring[n.rev%newsKept] = c
	}
	n.rev++
}

// Since returns what changed after rev (0 for a new reader) and the rev to ask with next time. all is true
// where that is no longer remembered: then everything may have changed.
func (c *Catalog) Since(rev uint64) (changes []Change, now uint64, all bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	now = c.news.rev
	if rev > now || now-rev > uint64(len(c.news.ring)) {
		return nil, now, true
	}
	for ; rev < now; rev++ {
		changes = append(changes, c.news.ring[rev%newsKept])
	}
	return changes, now, false
}

// LiveNamed returns the live records of a kind and exact name, of all origins, as Live sorts them.
func (c *Catalog) LiveNamed(kind uint8, name string) []Record {
	return c.read(func(emit func(*entry)) { c.set.liveName(kindKey{scopeOf(kind), kind}, name, emit) })
}
