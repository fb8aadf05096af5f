package swarm

import (
	"time"

	"meshd/mesh/id"
)

// How much is asked of one source at once.
const (
	minExtent   = 128 << 10 // what an artifact is cut into at least
	leastAsked  = 32 << 10  // a request to a slow source is no smaller while more is missing
	firstExtent = 256 << 10 // a request to a source whose rate is not known
	firstWindow = 512 << 10 // bytes asked of it and not yet received
	maxWindow   = 4 << 20
	swarmAhead  = 100 * time.Millisecond // the same in company
	windowAhead = 100 * time.Millisecond // besides two round trips: what is small waits behind all of it
	extentTime  = 50 * time.Millisecond  // what one request may take on a slow link: what is small waits until it is answered
)

// A source is a peer that is asked for chunks, as the plan sees it.
type source struct {
	node  id.Node
	after int // how many are likelier to have it

	has     bitset        // the chunks of the current set it is known to hold; nil: believed to hold all
	lacking int           // chunks not in has
	known   bool          // it said what it has
	shy     bool          // it has all, and chooses itself who fetches what
	open    int           // requests for chunks not yet answered
	shares  int           // requests to choose not yet answered
	queued  int64         // bytes of those
	rate    float64       // bytes a second, smoothed; 0: not known
	soon    time.Duration // the shortest answer so far: a round trip, or a little more
	last    time.Time     // of the last answer
}

// measure learns from one answer of so many bytes to a request made at asked.
func (s *source) measure(now, asked time.Time, bytes int64) {
	if took := now.Sub(asked); s.soon == 0 || took < s.soon {
		s.soon = took
	}
	from := asked
	if s.last.After(from) {
		from = s.last // the link was busy with the answer before
	}
	s.last = now
	if bytes < 16<<10 {
		return // says more of the round trip than of the rate
	}
	took := max(now.Sub(from), 100*time.Microsecond)
	sample := float64(bytes) / took.Seconds()
	if s.rate == 0 {
		s.rate = sample
		return
	}
	s.rate += (sample - s.rate) / 4
}

// likelier says which of two sources that are expected to be through at the same time is asked: one that answered
// before, then the one that was named first.
func (s *source) likelier(o *source) bool {
	if answered := !s.last.IsZero(); answered == o.last.IsZero() {
		return answered
	}
	return s.after < o.after
}

// window is how many bytes may be asked of the source and not yet received.
func (s *source) window() int64 {
	if s.rate == 0 {
		return firstWindow
	}
	w := s.rate * (windowAhead + 2*s.soon).Seconds()
	return int64(min(max(w, minExtent), maxWindow))
}

// swarmWindow is the window where others fetch the same: what is queued at one source cannot be had from
// another that gets it meanwhile.
func (s *source) swarmWindow() int64 {
	w := s.rate * (swarmAhead + 2*s.soon).Seconds()
	return int64(min(max(w, minExtent), maxWindow))
}

// sharesWanted is how many extents a shy source is asked to choose at once.
func (s *source) sharesWanted() int {
	return 2
}

// extent is how many bytes one request to the source asks for.
func (s *source) extent() int64 {
	if s.rate == 0 {
		return firstExtent
	}
	return int64(min(max(s.rate*extentTime.Seconds(), leastAsked), maxExtent))
}

// expected is how long the source will take to answer bytes more after all it was asked before.
func (s *source) expected(bytes int64) time.Duration {
	if s.rate == 0 {
		return 0
	}
	return s.soon + time.Duration(float64(s.queued+bytes)/s.rate*float64(time.Second))
}
