package swarm

import "time"

const (
	// That a link is slow is what a peer says. So the time that compressing takes, samples included, is bounded whatever
	// they say: an eighth of a core for one peer, which is what a link takes that is just slow beside it, and a quarter
	// for all together, since a link of this node that carries more than its compressor makes in that is not slow. Idle
	// time is gathered up to packBurst. What is beyond is sent as it is.
	peerShare, allShare = 8, 4
	packBurst           = time.Second
	packPeers           = 64 // peers whose time is remembered; beyond, those that have all of it again are forgotten
)

// An allowance is time of the compressor that may be spent: it fills by a part of the time that goes by. What runs when
// it is spent goes on to its end, and is owed. The zero value but for share is full.
type allowance struct {
	share int // one part in so many
	left  time.Duration
	at    time.Time // when left was right; zero: full
}

func (a *allowance) fill(now time.Time) {
	if a.at.IsZero() {
		a.left = packBurst
	} else {
		a.left = min(packBurst, a.left+now.Sub(a.at)/time.Duration(a.share))
	}
	a.at = now
}

func (a *allowance) has(now time.Time) bool {
	a.fill(now)
	return a.left > 0
}

func (a *allowance) full(now time.Time) bool {
	a.fill(now)
	return a.left == packBurst
}
