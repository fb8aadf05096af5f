package mesh

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/wire"
)

// News goes over the streams of the neighbours. In case that none of them brings it, its origin tells the
// ring as well: an event that names the log and its newest seq, under 40 bytes. Who does not know that seq
// a moment later compares catalogs with a neighbour, and then with another.
const (
	hintVersion  = 1
	hintEvery    = 5 * time.Second        // of one log, or members/10 s, whichever is longer
	hintGrace    = 500 * time.Millisecond // for the streams; as long again is drawn
	hintTries    = 3                      // comparisons, then unlike roots are left to find it
	maxHints     = 1024                   // heard and not yet met; what is beyond is left to unlike roots
	hintMaxBytes = 1 + 25 + binary.MaxVarintLen64
)

// hint says that a log goes up to seq.
type hint struct {
	log catalog.LogID
	seq uint64
}

var errHint = errors.New("malformed hint")

// pack writes version, origin, epoch, scope (1 nodes, 2 main) and seq.
func (h hint) pack() []byte {
	b := append([]byte{hintVersion}, h.log.Origin[:]...)
	b = binary.BigEndian.AppendUint64(b, h.log.Epoch)
	scope := byte(1)
	if h.log.Scope == catalog.ScopeMain {
		scope = 2
	}
	return binary.AppendUvarint(append(b, scope), h.seq)
}

func unpackHint(b []byte) (hint, error) {
	if len(b) > hintMaxBytes {
		return hint{}, &wire.LimitError{What: "bytes of a hint", Limit: hintMaxBytes, Got: len(b)}
	}
	if len(b) < 1+25+1 || b[0] != hintVersion || b[25] < 1 || b[25] > 2 {
		return hint{}, fmt.Errorf("%w: %d bytes", errHint, len(b))
	}
	seq, n := binary.Uvarint(b[26:])
	if n != len(b)-26 || seq == 0 || n > 1 && b[len(b)-1] == 0 {
		return hint{}, fmt.Errorf("%w: its seq", errHint)
	}
	scope := []string{catalog.ScopeNodes, catalog.ScopeMain}[b[25]-1]
	return hint{catalog.LogID{Origin: id.Node(b[1:17]), Epoch: binary.BigEndian.Uint64(b[17:]), Scope: scope}, seq}, nil
}

// hints is what the ring is to be told, and what it told that no stream brought yet. Guarded by Mesh.mu.
type hints struct {
	own   map[catalog.LogID]*ownHint
	heard map[catalog.LogID]*heardHint
	bad   uint64 // events that are no hint
}

type ownHint struct {
	seq, told uint64 // newest, and newest that the ring was told
	at        time.Time
}

type heardHint struct {
	seq   uint64
	due   time.Time
	tries int
}

func newHints() hints {
	return hints{own: map[catalog.LogID]*ownHint{}, heard: map[catalog.LogID]*heardHint{}}
}

// wrote notes a record of this node's own. Status records are never hinted.
func (m *Mesh) wrote(r catalog.Record) {
	m.Wake()
	if r.Kind == catalog.KindStatus {
		return
	}
	m.mu.Lock()
	h := m.hints.own[r.Log]
	if h == nil {
		h = &ownHint{}
		m.hints.own[r.Log] = h
	}
	h.seq = max(h.seq, r.Seq)
	m.mu.Unlock()
	m.tendSoon()
}

// heardHint is called for each user event. It only notes it.
func (m *Mesh) heardHint(b []byte) {
	h, err := unpackHint(b)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch old := m.hints.heard[h.log]; {
	case err != nil:
		m.hints.bad++
	case h.log.Origin == m.self:
	case old != nil && h.seq <= old.seq, old == nil && len(m.hints.heard) >= maxHints:
	default:
		m.hints.heard[h.log] = &heardHint{seq: h.seq, due: time.Now().Add(hintGrace + time.Duration(m.hintRand.Int64N(int64(hintGrace))))}
	}
}

// passHints tells the ring what is due, and looks for what it told. It returns when to look again (the zero time: when
// something happens), and the peers that were asked to compare: one that is silent then has a dead stream.
func (m *Mesh) passHints(now time.Time, members int, pick *rand.Rand) (again time.Time, asked map[id.Node]bool) {
	sooner := func(t time.Time) {
		if again.IsZero() || t.Before(again) {
			again = t
		}
	}
	every := max(hintEvery, time.Duration(members)*time.Second/10)
	var tell []hint
	var ask []hint
	m.mu.Lock()
	for log, h := range m.hints.own {
		switch {
		case h.seq == h.told:
			if now.Sub(h.at) >= every { // of an older epoch, or at rest
				delete(m.hints.own, log)
			}
		case !h.at.IsZero() && now.Sub(h.at) < every:
			sooner(h.at.Add(every))
		default:
			h.told, h.at = h.seq, now
			tell = append(tell, hint{log, h.seq})
		}
	}
	for log, h := range m.hints.heard {
		if now.Before(h.due) {
			sooner(h.due)
			continue
		}
		ask = append(ask, hint{log, h.seq})
	}
	m.mu.Unlock()
	for _, h := range tell {
		if members > 1 {
			if err := m.ring.Hint(h.pack()); err != nil {
				m.cfg.Log.Debug("hint", "error", err)
			}
		}
	}
	if len(ask) == 0 {
		return again, nil
	}
	slices.SortFunc(ask, func(a, b hint) int { return a.log.Origin.Compare(b.log.Origin) })
	peers := m.inSession()
	slices.SortFunc(peers, id.Node.Compare)
	asked = map[id.Node]bool{}
	for _, h := range ask {
		if m.settledHint(h, now) || len(peers) == 0 {
			continue
		}
		peer := peers[pick.IntN(len(peers))]
		if slices.Contains(peers, h.log.Origin) {
			peer = h.log.Origin
		}
		if !asked[peer] {
			asked[peer] = true
			m.catalog.Unlike(peer)
		}
		sooner(now.Add(compareEvery))
	}
	return again, asked
}

// settledHint forgets a hint that is met, or was tried for often enough; else it counts a try.
func (m *Mesh) settledHint(h hint, now time.Time) bool {
	known := m.catalog.Knows(h.log, h.seq)
	m.mu.Lock()
	defer m.mu.Unlock()
	heard := m.hints.heard[h.log]
	if heard == nil || known || heard.tries == hintTries {
		delete(m.hints.heard, h.log)
		return true
	}
	heard.tries++
	heard.due = now.Add(compareEvery)
	return false
}
