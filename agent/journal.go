package agent

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"
	"time"
)

const (
	journalKeep  = 20000                  // records kept; the oldest go first
	journalSlack = 1000                   // how many more may pile up before they are trimmed
	flushLag     = 100 * time.Millisecond // that a record may wait on which nothing acts
	journalV1    = 1                      // version byte of a record on disk
)

// A Cause says why something happened: a record of this journal (Entry), or of another node's (Node and
// Entry), or words (an edit, a timer, a start). The zero value is no cause.
type Cause struct {
	Entry uint64 `json:"entry,omitempty"`
	Node  string `json:"node,omitempty"` // node id, hexadecimal; "" is this node
	Text  string `json:"text,omitempty"`
}

// weight orders causes by how much they explain: of several wakes the heaviest is told.
func (c Cause) weight() int {
	switch {
	case c.Entry != 0 && c.Node != "":
		return 4
	case c.Entry != 0:
		return 3
	case c.Text != "" && c.Text != causeTimer:
		return 2
	case c.Text != "":
		return 1
	}
	return 0
}

// The subjects of journal records.
const (
	aboutPromise  = "promise"
	aboutArtifact = "artifact"
	aboutScore    = "score"
	aboutRole     = "role"
	aboutNode     = "node"
	aboutBundle   = "bundle"
)

// An Entry is one record of the journal. ID rises by one and is never used twice.
type Entry struct {
	ID      uint64        `json:"id"`
	At      time.Time     `json:"at"`
	Kind    string        `json:"kind"`
	Subject string        `json:"subject"` // promise address, artifact name@version, role, node name
	Outcome string        `json:"outcome,omitempty"`
	Text    string        `json:"text,omitempty"`
	Cause   Cause         `json:"cause,omitzero"`
	Score   string        `json:"score,omitempty"` // hash of the score in force
	Took    time.Duration `json:"took,omitempty"`
}

// A journal remembers what happened and why, bounded, in one shelf.
//
// All methods may be called by anybody. A record is durable when flush returns; nothing acts on it before.
type journal struct {
	shelf Shelf

	flushing sync.Mutex // one flush at a time, in order

	mu       sync.Mutex
	entries  []Entry   // oldest first; flushed ones and pending ones
	pending  int       // how many at the end are not on disk yet
	oldest   time.Time // when the oldest of these was appended
	pressing bool      // one of these must be on disk before anything goes on
	next     uint64
	follow   map[chan struct{}]bool // kicked at each flush
}

// Shelf is one ordered durable map.
type Shelf interface {
	Scan(from, to []byte, limit int) (keys, values [][]byte, err error)
	Apply(keys, values [][]byte) error
	// Later is Apply with whatever is made durable next; wait is called once.
	Later(keys, values [][]byte) (wait func() error)
}

func openJournal(s Shelf) (*journal, error) {
	j := &journal{shelf: s, next: 1, follow: map[chan struct{}]bool{}}
	_, values, err := s.Scan(nil, nil, journalKeep+2*journalSlack)
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	for _, v := range values {
		var e Entry
		if len(v) == 0 || v[0] != journalV1 {
			return nil, fmt.Errorf("read the journal: a record of version %d, this program knows %d", first(v), journalV1)
		}
		if err := json.Unmarshal(v[1:], &e); err != nil {
			return nil, fmt.Errorf("read the journal: %w", err)
		}
		j.entries = append(j.entries, e)
		j.next = e.ID + 1
	}
	return j, nil
}

func first(b []byte) byte {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

// append adds a record and returns its id; flush makes it durable.
func (j *journal) append(e Entry) uint64 { return j.add(e, true) }

// appendLater is append for a record that nobody acts on: it may wait for others, up to flushLag.
func (j *journal) appendLater(e Entry) uint64 { return j.add(e, false) }

func (j *journal) add(e Entry, pressing bool) uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.pending == 0 {
		j.oldest = time.Now()
	}
	j.pressing = j.pressing || pressing
	e.ID = j.next
	j.next++
	j.entries = append(j.entries, e)
	j.pending++
	return e.ID
}

// flush writes all pending records in one transaction, and trims the oldest.
func (j *journal) flush() error {
	j.flushing.Lock()
	defer j.flushing.Unlock()
	p, err := j.page()
	if err != nil || p.fresh == 0 {
		return err
	}
	return j.written(p, j.shelf.Apply(p.keys, p.values))
}

// flushAlong is flush with whatever is made durable next. wait must be called, soon: others wait for it.
func (j *journal) flushAlong() (wait func() error) {
	j.flushing.Lock()
	p, err := j.page()
	if err != nil || p.fresh == 0 {
		j.flushing.Unlock()
		return func() error { return err }
	}
	durable := j.shelf.Later(p.keys, p.values)
	return func() error {
		defer j.flushing.Unlock()
		return j.written(p, durable())
	}
}

// A page is what one flush writes.
type page struct {
	keys, values [][]byte
	fresh, old   int // records to write, and to trim
	pressing     bool
}

// page gathers what is pending. flushing is held, until written.
func (j *journal) page() (page, error) {
	j.mu.Lock()
	fresh := append([]Entry(nil), j.entries[len(j.entries)-j.pending:]...)
	p := page{fresh: len(fresh), pressing: j.pressing}
	if p.fresh > 0 {
		j.pressing = false
		if len(j.entries) > journalKeep+journalSlack {
			p.old = len(j.entries) - journalKeep
		}
	}
	for _, e := range j.entries[:p.old] {
		p.keys, p.values = append(p.keys, entryKey(e.ID)), append(p.values, nil)
	}
	j.mu.Unlock()
	for _, e := range fresh {
		b, err := json.Marshal(e)
		if err != nil {
			return page{}, fmt.Errorf("write the journal: %w", err)
		}
		p.keys, p.values = append(p.keys, entryKey(e.ID)), append(p.values, append([]byte{journalV1}, b...))
	}
	return p, nil
}

// written takes what came of a page.
func (j *journal) written(p page, err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.pressing = j.pressing || p.pressing
		return fmt.Errorf("write the journal: %w", err)
	}
	j.pending -= p.fresh
	j.oldest = time.Now()
	if p.old > 0 {
		j.entries = append([]Entry(nil), j.entries[p.old:]...)
	}
	for c := range j.follow {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	return nil
}

func entryKey(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// since returns the durable records younger than at, and all after id.
func (j *journal) since(at time.Time, after uint64) []Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []Entry
	for _, e := range j.entries[:len(j.entries)-j.pending] {
		if e.ID > after && !e.At.Before(at) {
			out = append(out, e)
		}
	}
	return out
}

// get returns one record; false when it is unknown or was trimmed.
func (j *journal) get(n uint64) (Entry, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.entries) == 0 || n < j.entries[0].ID || n >= j.next {
		return Entry{}, false
	}
	return j.entries[n-j.entries[0].ID], true
}

// newest returns the latest record that matches.
func (j *journal) newest(match func(Entry) bool) (Entry, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := len(j.entries) - 1; i >= 0; i-- {
		if match(j.entries[i]) {
			return j.entries[i], true
		}
	}
	return Entry{}, false
}

// subscribe returns a channel that is kicked after each flush, until stop.
func (j *journal) subscribe() (kick <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	j.mu.Lock()
	j.follow[c] = true
	j.mu.Unlock()
	return c, func() {
		j.mu.Lock()
		delete(j.follow, c)
		j.mu.Unlock()
	}
}

// flushBy says when flush is to be called; the zero time where nothing waits for it.
func (j *journal) flushBy() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.pending == 0:
		return time.Time{}
	case j.pressing:
		return j.oldest
	}
	return j.oldest.Add(flushLag)
}

// last is the id of the newest record; 0 if there was never one.
func (j *journal) last() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next - 1
}

// size is how many records there are.
func (j *journal) size() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.entries)
}
