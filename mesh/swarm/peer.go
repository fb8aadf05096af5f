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
	maxSources   = 24                     // peers that one pull dials at once
	firstSources = 4                      // the same, before it is known what there is to fetch
	firstTime    = 50 * time.Millisecond  // or this has passed
	likely       = 3                      // holders named first that are dialled first
	holdersTime  = time.Second            // between two calls of holders
	haveTime     = 500 * time.Millisecond // until a holder of part of a small artifact is asked again for the rest
	firstRetry   = 100 * time.Millisecond // after a source failed; doubled each time
	lastRetry    = 5 * time.Second
	absentRetry  = time.Second     // the longest after a source said that it has nothing yet
	accessRetry  = 3 * time.Second // the longest after a source refused: the record that gives the right may be on its way
)

// A peer is a holder as the loop sees it. Its session is nil while it is dialled or rests.
type peer struct {
	x       *session
	dialing bool
	failed  int       // times in a row
	restTo  time.Time // not dialled before
	haveAt  time.Time // when it is believed again to have all; zero: it is not doubted
	listens bool      // it was told what is here, and is told what comes
	near    bool      // others say that it fetches the same: dialled first
	absent  int       // chunks it told of and has not got
	vain    int       // extents it chose in a row that were here
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
			if peer.x == nil && !peer.dialing && !peer.near && !slices.Contains(named, n) {
				delete(p.peers, n)
			}
		}
		if len(named) == 0 && len(p.peers) == 0 {
			p.blame("no node is known to hold it")
		}
		p.likely = named[:min(len(named), likely)]
	}
	busy := 0
	for _, peer := range p.peers {
		if peer.x != nil || peer.dialing {
			busy++
		}
	}
	most := p.most(now)
	for _, n := range p.candidates(now) {
		peer := p.peers[n]
		if busy >= most {
			return
		}
		if why, banned := p.s.banned(n); banned {
			if len(p.plan.sources) == 0 {
				p.blame("%s is banned: %s", n.Short(), why)
			}
			continue
		}
		busy++
		if x := p.s.open(n); x != nil {
			p.connected(n, peer, x, nil)
			continue
		}
		peer.dialing = true
		p.work.Go(func() {
			x, err := p.s.session(ctx, n)
			p.post(func() { p.connected(n, peer, x, err) })
		})
	}
}

// most is how many peers are dialled by now. What is small comes from the likeliest of them: where others want it
// too, to ask all would cost more than the artifact. Only as time passes more of them are asked.
func (p *pull) most(now time.Time) int {
	took := now.Sub(p.began)
	if p.ref.SizeBytes >= minSwarm && took >= firstTime || p.ref.SizeBytes >= minSwarm && p.content != nil {
		return maxSources
	}
	if took < firstTime && len(p.likely) > 0 && p.s.open(p.likely[0]) != nil {
		return 1
	}
	return min(maxSources, firstSources<<min(took/duplicateIn, 10))
}

// join makes a node with an open stream a source: of several of which no more is known, the one named first is asked.
func (p *pull) join(n id.Node) {
	p.plan.join(n)
	s := p.plan.source(n)
	if s.after = slices.Index(p.likely, n); s.after < 0 {
		s.after = len(p.likely)
	}
}

// candidates are those who may be dialled: first who was named first, then who fetches the same, then the
// others in another order on each node and for each artifact, so that not all ask the same ones.
func (p *pull) candidates(now time.Time) []id.Node {
	var near, named, others []id.Node
	for n, peer := range p.peers {
		switch {
		case peer.x != nil || peer.dialing || now.Before(peer.restTo):
		case peer.near:
			near = append(near, n)
		case !slices.Contains(p.likely, n):
			others = append(others, n)
		}
	}
	for _, n := range p.likely {
		if peer := p.peers[n]; peer != nil && peer.x == nil && !peer.dialing && !peer.near && !now.Before(peer.restTo) {
			named = append(named, n)
		}
	}
	key := slices.Concat(p.s.cfg.Self[:], p.ref.Root[:])
	return slices.Concat(named, id.Rank(key, near), id.Rank(key, others))
}

func (p *pull) connected(n id.Node, peer *peer, x *session, err error) {
	peer.dialing = false
	if err != nil {
		if peer.x == nil {
			p.fail(n, err)
		}
		return
	}
	if peer.x == nil { // else it dialled us meanwhile
		peer.x = x
		p.join(n)
	}
	if p.content != nil && p.plan.told && !peer.listens {
		p.tell(n, true)
	}
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
	peer.x, peer.listens = nil, false
	peer.restTo = time.Now().Add(min(least<<min(peer.failed, 10), most))
	peer.failed++
}

// believe asks a holder again for what it had not got, after a while: of a small artifact nothing is
// announced.
func (p *pull) believe(n id.Node, now time.Time) {
	peer := p.peers[n]
	switch {
	case peer.haveAt.IsZero():
		peer.haveAt = now.Add(haveTime)
	case !now.Before(peer.haveAt):
		peer.haveAt = time.Time{}
		p.plan.learn(n, nil, false)
	}
}

func (p *pull) refused(n id.Node, why refusal) {
	err := errors.New(why.String())
	switch why {
	case refusedAccess:
		p.rest(n, err, firstRetry, accessRetry)
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
