package swarm

import (
	"slices"
	"sync/atomic"
	"time"

	"meshd/mesh/id"
)

// counters only grow.
type counters struct {
	bytesIn, bytesOut, pulled, served, wasted, spared atomic.Int64
	lies, violations, foreign                         atomic.Int64
}

// Stats is what the swarm did since it was made.
type Stats struct {
	InBytes     int64         // read from streams, TLS not counted
	OutBytes    int64         // written to streams
	PulledBytes int64         // of chunks verified and not had before
	ServedBytes int64         // of chunks sent, as they are before they are compressed
	SparedBytes int64         // of ServedBytes, that compressing kept off the links
	PackTime    time.Duration // that compressing took, and finding out whether it pays
	PackSpent   int64         // answers sent as they are because as much of it as may be was spent
	WastedBytes int64         // of chunks received in vain: twice, too late, or false
	Lies        int64         // chunks that were not what was asked for
	Violations  int64         // streams cut because the peer broke the protocol
	Foreign     int64         // requests for chunks that are no part of the artifact named
	Sessions    int           // streams open now
	Pulls       int           // artifacts being fetched now
	Banned      []Ban         // sorted by node
}

// A Ban says who is not asked until when, and what it did.
type Ban struct {
	Node  id.Node
	Why   string
	Until time.Time // of Config.Wall
}

// Stats returns the counters as they are.
func (s *Swarm) Stats() Stats {
	c := &s.stats
	out := Stats{
		InBytes: c.bytesIn.Load(), OutBytes: c.bytesOut.Load(), PulledBytes: c.pulled.Load(),
		ServedBytes: c.served.Load(), WastedBytes: c.wasted.Load(), SparedBytes: c.spared.Load(), Lies: c.lies.Load(),
		Violations: c.violations.Load(), Foreign: c.foreign.Load(),
		PackTime: time.Duration(s.packer.ran.Load()), PackSpent: s.packer.spent.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, b := range s.bans {
		if now.Before(b.until) {
			out.Banned = append(out.Banned, b.shown)
		}
	}
	slices.SortFunc(out.Banned, func(a, b Ban) int { return a.Node.Compare(b.Node) })
	for _, of := range s.sessions {
		out.Sessions += len(of)
	}
	out.Pulls = len(s.pulls)
	return out
}
