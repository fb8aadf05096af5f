package swarm

import (
	"math"
	"time"

	"meshd/store/artifact"
)

// rateMemory is over how long the rate of a pull is smoothed.
const rateMemory = 3 * time.Second

// Progress is how far one pull has come.
type Progress struct {
	Root                  artifact.Digest
	DoneBytes, TotalBytes int64   // durable, and all; 0 of 0 before the manifest came
	BytesPerSecond        float64 // of late; 0 when nothing came yet
	Sources               int     // peers that are asked
}

// Underway tells of all pulls, in no order.
func (s *Swarm) Underway() []Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Progress, 0, len(s.pulls))
	for key, p := range s.pulls {
		p.mu.Lock()
		now := p.progress
		p.mu.Unlock()
		out = append(out, Progress{
			Root: key.root, DoneBytes: now.done, TotalBytes: now.total, Sources: now.sources, BytesPerSecond: now.rateAt(time.Now()),
		})
	}
	return out
}

// progress is what a pull tells of itself.
type progress struct {
	done, total int64
	sources     int
	rate        float64   // bytes a second as of last
	last        time.Time // when done last grew; zero before that
}

// move adds bytes that became durable now. The first step counts what was there before, and has no rate.
func (p *progress) move(bytes, total int64, sources int, now time.Time) {
	if !p.last.IsZero() {
		dt := max(now.Sub(p.last), time.Millisecond).Seconds()
		keep := math.Exp(-dt / rateMemory.Seconds())
		if p.rate == 0 {
			keep = 0
		}
		p.rate = keep*p.rate + (1-keep)*float64(bytes)/dt
	}
	p.done, p.total, p.sources, p.last = p.done+bytes, total, sources, now
}

// rateAt is the rate as it looks at a moment: it sinks while nothing comes.
func (p *progress) rateAt(now time.Time) float64 {
	idle := now.Sub(p.last) - rateMemory
	if p.last.IsZero() || idle <= 0 {
		return p.rate
	}
	return p.rate * math.Exp(-idle.Seconds()/rateMemory.Seconds())
}
