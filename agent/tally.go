package agent

import (
	"sync"
	"sync/atomic"

	"meshd/policies"
)

// A tally counts what the loop and the keepers did since the start. It is safe for concurrent use: the loop
// writes, a scrape reads.
type tally struct {
	published      atomic.Int64 // artifacts that this node offered
	publishedBytes atomic.Int64
	scoresRefused  atomic.Int64
	bundlesRefused atomic.Int64 // files that were no whole, unaltered bundle of this mesh

	mu       sync.Mutex
	kinds    map[string]kindTally // by promise type
	outcomes [policies.Drifted + 1]int
}

// kindTally is what became of the promises of one type.
type kindTally struct{ looks, repairs, failures int64 }

func newTally() *tally { return &tally{kinds: map[string]kindTally{}} }

// looked counts one run of a keeper.
func (t *tally) looked(kind string, o policies.Outcome) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.kinds[kind]
	c.looks++
	switch o {
	case policies.Failed:
		c.failures++
	case policies.Repaired:
		c.repairs++
	}
	t.kinds[kind] = c
}

// stand takes how many promises have each outcome now.
func (t *tally) stand(counts [policies.Drifted + 1]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.outcomes = counts
}

func (t *tally) read() (kinds map[string]kindTally, outcomes [policies.Drifted + 1]int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	kinds = make(map[string]kindTally, len(t.kinds))
	for kind, c := range t.kinds {
		kinds[kind] = c
	}
	return kinds, t.outcomes
}
