package swarm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"meshd/mesh/id"
)

const (
	maxSources  = 16                     // peers that one pull asks at once
	holdersTime = time.Second            // between two calls of holders
	haveTime    = 500 * time.Millisecond // between two questions what a partial holder has by now
	firstRetry  = 100 * time.Millisecond // after a source failed; doubled each time
	lastRetry   = 5 * time.Second
	absentRetry = time.Second     // the longest after a source said that it has nothing yet
	accessRetry = 3 * time.Second // after a source refused: the record that gives the right may be on its way
)

// A peer is a holder as the loop sees it. Its session is nil while it is dialled or rests.
type peer struct {
	x       *session
	dialing bool
	failed  int       // times in a row
	restTo  time.Time // not dialled before
	haveAt  time.Time // not asked before what it has
	asking  bool      // what it has
}

// recruit dials holders, as many as one pull may ask.
func (p *pull) recruit(ctx context.Context, now time.Time) {
	if !now.Before(p.lookAt) {
		p.lookAt = now.Add(holdersTime)
		named := p.named()
		for _, n := range named {
			if p.peers[n] == nil {
				p.peers[n] = &peer{}
			}
		}
		for n, peer := range p.peers {
			if peer.x == nil && !peer.dialing && !slices.Contains(named, n) {
				delete(p.peers, n)
			}
		}
		if len(named) == 0 {
			p.blame("no node is known to hold it")
		}
	}
	busy := 0
	names := make([]id.Node, 0, len(p.peers))
	for n, peer := range p.peers {
		names = append(names, n)
		if peer.x != nil || peer.dialing {
			busy++
		}
	}
	// Another order on each node and for each artifact, so that not all ask the same sixteen.
	key := slices.Concat(p.s.cfg.Self[:], p.ref.Root[:])
	for _, n := range id.Rank(key, names) {
		peer := p.peers[n]
		if busy >= maxSources {
			return
		}
		if peer.x != nil || peer.dialing || now.Before(peer.restTo) {
			continue
		}
		if why, banned := p.s.banned(n); banned {
			if len(p.plan.sources) == 0 {
				p.blame("%s is banned: %s", n.Short(), why)
			}
			continue
		}
		busy++
		peer.dialing = true
		p.work.Go(func() {
			x, err := p.s.session(ctx, n)
			p.post(func() { p.connected(n, peer, x, err) })
		})
	}
}

func (p *pull) connected(n id.Node, peer *peer, x *session, err error) {
	peer.dialing = false
	if err != nil {
		p.fail(n, err)
		return
	}
	peer.x = x
	p.plan.join(n)
}

// fail gives up a source for a while: longer the more often it failed.
func (p *pull) fail(n id.Node, why error) { p.rest(n, why, firstRetry, lastRetry) }

// rest gives up a source for least, doubled each time it failed, up to most.
func (p *pull) rest(n id.Node, why error, least, most time.Duration) {
	p.blame("%s: %v", n.Short(), why)
	for _, a := range slices.Clone(p.plan.open) {
		if a.to.node == n {
			p.drop(a)
		}
	}
	p.plan.leave(n)
	peer := p.peers[n]
	if peer == nil {
		return
	}
	peer.x, peer.asking = nil, false
	peer.restTo = time.Now().Add(min(least<<min(peer.failed, 10), most))
	peer.failed++
}

// askHave asks a partial holder what it has by now.
func (p *pull) askHave(n id.Node, now time.Time) {
	peer, phase := p.peers[n], p.phase
	if peer.asking || now.Before(peer.haveAt) {
		return
	}
	x := peer.x
	_, err := x.ask(&request{root: p.ref.Root, done: func(ans answer) {
		p.post(func() {
			if peer.x != x {
				return
			}
			peer.asking = false
			if phase == p.phase {
				p.learn(n, ans)
			}
		})
	}})
	if err != nil {
		p.fail(n, err)
		return
	}
	peer.asking, peer.haveAt = true, now.Add(haveTime)
}

func (p *pull) learn(n id.Node, ans answer) {
	switch {
	case ans.err != nil:
		p.fail(n, ans.err)
	case ans.refused != 0:
		p.refused(n, ans.refused)
	case ans.all:
		p.plan.learn(n, nil)
	default:
		has := parseBits(ans.bits, len(p.content.chunks))
		if has == nil {
			p.accuse(n, errors.New("what it says to have does not fit the artifact"))
			return
		}
		p.plan.learn(n, has)
	}
}

func (p *pull) refused(n id.Node, why refusal) {
	err := errors.New(why.String())
	switch why {
	case refusedAccess:
		p.rest(n, err, accessRetry, accessRetry)
	case refusedAbsent:
		p.rest(n, err, firstRetry, absentRetry)
	default:
		p.fail(n, err)
	}
}

// accuse bans a peer that sent what is not true.
func (p *pull) accuse(n id.Node, why error) {
	p.s.stats.lies.Add(1)
	p.s.ban(n, fmt.Errorf("artifact %s (%s): %w", p.ref.Name, p.ref.Root.Short(), why))
	p.rest(n, why, banTime, banTime)
}
