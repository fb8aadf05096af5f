package promise

import "time"

// A pace says when a process that ended may start again: at once the first time, then after a wait that
// doubles, and from the beginning once it was up for steadyAfter.
type pace struct {
	shortest, longest time.Duration
	quick             int // ends in a row, each soon after its start
	at                time.Time
	why               string // of the last end, for people
}

// ended notes an end at now of what had been up for so long.
func (p *pace) ended(now time.Time, up time.Duration) {
	if up >= steadyAfter {
		p.quick = 0
	}
	p.quick++
	p.at = now
}

// wait is how long it is still to be.
func (p *pace) wait(now time.Time) time.Duration {
	if p.quick < 2 {
		return 0
	}
	d := p.shortest
	for range p.quick - 2 {
		if d *= 2; d >= p.longest {
			break
		}
	}
	return max(0, p.at.Add(min(d, p.longest)).Sub(now))
}
