package agent

import (
	"context"
	"slices"
	"time"

	"meshd/mesh"
	"meshd/mesh/catalog"
	"meshd/policies"
	"meshd/store/artifact"
)

// MinLeafPoll and MaxLeafPoll bound Config.LeafPoll.
const (
	MinLeafPoll = time.Minute
	MaxLeafPoll = mesh.MaxLeafPoll // a lease lasts no longer
)

// Limits of one poll.
const (
	pollLook   = 250 * time.Millisecond // between two looks whether it is over
	pollAttach = 30 * time.Second       // for an attach point to compare catalogs
	pollAgain  = 5 * time.Minute        // at most, until the next try where none did
	pollStuck  = 30 * time.Second       // with something to do and no progress: the next poll goes on with it
	pollCopy   = 2 * time.Second        // between questions whether what was published is elsewhere
	pollGap    = 3 * time.Second        // from the end of a poll to one that something woke: changes come together
)

// poll is the day of a leaf that rests (Config.LeafPoll): it attaches itself, exchanges what is new both ways, pulls what it
// wants, stays until somebody has what it published, and rests until it is time again, or something here is worth telling.
func (a *Agent) poll(ctx context.Context) error {
	handed := map[artifact.Digest]bool{} // own offers that somebody else has, or had time to fetch in an earlier run
	for _, o := range a.ownOffers() {
		handed[o.ref.Root] = true
	}
	for {
		began := time.Now()
		a.mesh.Rise()
		met, told := a.exchange(ctx)
		if met {
			handed = a.handOverNew(ctx, handed)
		}
		if ctx.Err() != nil {
			return nil
		}
		a.mesh.Rest()
		wait := a.cfg.LeafPoll
		if !met {
			wait = min(wait, pollAgain)
		}
		a.cfg.Log.Debug("polled", "met", met, "took", time.Since(began), "next", wait)
		if met && a.mesh.Stats().Catalog.Appended != told {
			a.mesh.Wake() // written as the poll ended
		}
		due := time.After(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(pollGap, wait)):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-due:
		case <-a.mesh.Woken():
		}
	}
}

// A pollState is how far a poll came; two that are alike show no progress.
type pollState struct {
	appended       uint64 // own records
	pulled, served int64  // bytes of artifacts
	busy           int
}

// exchange waits until nothing is left to do with the peers: one of them knows the same, what is wanted is here, and
// nothing was new for onceQuiet. met says whether a peer was there, told which own records it knows.
func (a *Agent) exchange(ctx context.Context) (met bool, told uint64) {
	begin := a.mesh.Stats().Catalog.Agreed
	began := time.Now()
	var was pollState
	var since time.Time
	var agreed uint64
	compared := false
	ticker := time.NewTicker(pollLook)
	defer ticker.Stop()
	for {
		is, err := a.pollState(ctx)
		if err != nil {
			return met, told
		}
		now, agrees := time.Now(), a.mesh.Stats().Catalog.Agreed
		if is != was || since.IsZero() {
			was, since, agreed, compared = is, now, agrees, false
		}
		met = met || agrees > begin
		still := now.Sub(since)
		switch {
		case !met && now.Sub(began) >= pollAttach:
			return false, 0
		case still < onceQuiet:
		case agrees == agreed:
			if met && still >= pollStuck {
				return met, is.appended
			}
			if !compared && a.mesh.Attached() {
				compared = true
				a.mesh.Compare() // what was made here has to be known there
			}
		case is.busy == 0 || still >= pollStuck:
			return met, is.appended
		}
		select {
		case <-ctx.Done():
			return met, told
		case <-ticker.C:
		}
	}
}

// pollState tells what there is to do that needs peers: commands and files don't.
func (a *Agent) pollState(ctx context.Context) (s pollState, err error) {
	err = a.loop.do(ctx, func() {
		l := a.loop
		if l.fetchingScore || (l.program == nil && l.newestScore() != nil) {
			s.busy++
		}
		for _, in := range l.instances {
			if _, want := in.p.Spec.(policies.Want); want && !in.atRest() {
				s.busy++
			}
		}
	})
	if status, statusErr := a.status(ctx); statusErr == nil && a.worthTelling(status) {
		s.busy++ // it is told within seconds: better now than by a poll of its own
	}
	stats := a.mesh.Stats()
	s.busy += stats.Swarm.Pulls
	s.appended, s.pulled, s.served = stats.Catalog.Appended, stats.Swarm.PulledBytes, stats.Swarm.ServedBytes
	return s, err
}

// handOverNew waits until what this node published since the last poll is elsewhere too, or nobody takes it now. It returns
// what of the own offers is.
func (a *Agent) handOverNew(ctx context.Context, handed map[artifact.Digest]bool) map[artifact.Digest]bool {
	var fresh []offered
	now := map[artifact.Digest]bool{}
	for _, o := range a.ownOffers() {
		now[o.ref.Root] = true
		if !handed[o.ref.Root] {
			fresh = append(fresh, o)
		}
	}
	for _, o := range a.handOver(ctx, fresh, pollCopy) {
		delete(now, o.ref.Root)
	}
	return now
}

// worthTelling reports whether what this node says of itself changed in what others act on. That a repair is a while ago,
// and the values of facts, which may change all the time, wait for the next poll.
func (a *Agent) worthTelling(is catalog.StatusBody) bool {
	was := a.toldStatus.Load()
	return was == nil || was.Score != is.Score || was.Kept+was.Repaired != is.Kept+is.Repaired || was.Failed != is.Failed ||
		was.Waiting != is.Waiting || was.Drifted != is.Drifted || !slices.Equal(was.Roles, is.Roles)
}
