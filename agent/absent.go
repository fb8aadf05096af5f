package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"meshd/agent/control"
	"meshd/mesh"
	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/store/artifact"
)

const (
	// courierFor is how long what an absent node still wants is kept for it, wherever it is held. Who was away
	// for longer finds what the copies have.
	courierFor = catalog.BuryAfter
	// courierShare bounds what is kept for absent nodes alone: 1/10 of the disk. Beyond it, or where the disk
	// is at its floor, only what is kept for other reasons stays.
	courierShare = 10
)

// absent reports whether a node is known and away: nothing can be asked of it, and it hears nothing.
func absent(n mesh.Node) bool { return !n.Self && !n.Alive && !n.Revoked }

// since is when an absent node was there last, as far as this node knows; the zero time for never. A clock
// that is ahead of ours can't make it later than now.
func since(n mesh.Node, now time.Time) time.Time {
	if n.LastSeen.After(now) {
		return now
	}
	return n.LastSeen
}

// lacks reports whether an offer is newer than what a node said to have in place of that name: it has come for
// it when it says so. Nothing in place yet (the zero version) is older than everything.
func lacks(has catalog.PlacedBody, o offered) bool {
	return has.Tree != o.ref.Tree && has.Version.Compare(o.ref.Version) < 0
}

// lackedBy lists, oldest first, what a node lacks of one name and may have.
func (a *Agent) lackedBy(n id.Node, name string, has catalog.PlacedBody) []offered {
	var out []offered
	for _, o := range a.supply.named(name) {
		if o.ref.Version.By != n && lacks(has, o) && a.supply.trusted(o) && a.mayPull(n, name) {
			out = append(out, o)
		}
	}
	return out
}

// mayPull judges a node by its certificate, there or not. The score is for everybody.
func (a *Agent) mayPull(n id.Node, name string) bool {
	program := a.program()
	cert, ok := a.mesh.Catalog().Cert(n)
	if !ok || program == nil || name == scoreName {
		return ok
	}
	ok, _ = program.Allows("pull", name, cert.Name, a.rights.holds(program, cert))
	return ok
}

// An away is one look at who is absent, for as long as a look takes.
type away struct {
	a     *Agent
	since map[id.Node]time.Time
	now   time.Time
}

// lookAway lists who is absent. Those that an operator forgot are not waited for.
func (a *Agent) lookAway() *away {
	w := &away{a: a, since: map[id.Node]time.Time{}, now: a.cfg.Wall()}
	for _, n := range a.listed() {
		if absent(n) {
			w.since[n.ID] = since(n, w.now)
		}
	}
	return w
}

// wants reports whether somebody who is absent, and has not been for longer than courierFor, still wants o.
func (w *away) wants(o offered) bool {
	if len(w.since) == 0 || !w.a.supply.trusted(o) {
		return false
	}
	for _, r := range w.a.mesh.Catalog().LiveNamed(catalog.KindPlaced, o.ref.Name) {
		n := r.Log.Origin
		last, gone := w.since[n]
		if !gone || last.IsZero() || w.now.Sub(last) >= courierFor || n == o.ref.Version.By {
			continue
		}
		has, err := catalog.DecodePlaced(r.Body)
		if err == nil && lacks(has, o) && w.a.mayPull(n, o.ref.Name) {
			return true
		}
	}
	return false
}

// A courier decides, during one collection, what is kept for absent nodes alone. It is asked for roots in one
// order each time, so that beyond its share of the disk the same ones stay.
type courier struct {
	away      *away
	leftBytes int64
}

func (a *Agent) newCourier() *courier {
	c := &courier{away: a.lookAway()}
	if u, err := a.disk(); err == nil && u.free >= u.floor {
		c.leftBytes = int64(u.total / courierShare)
	}
	return c
}

func (c *courier) keeps(o offered) bool {
	if o.ref.SizeBytes > c.leftBytes || !c.away.wants(o) {
		return false
	}
	c.leftBytes -= o.ref.SizeBytes
	return true
}

// tellAbsent adds to members who are away since when that is, what they had, and what waits for them.
func (a *Agent) tellAbsent(members []control.Member, nodes []mesh.Node) {
	now := a.cfg.Wall()
	byID := map[id.Node]int{}
	for i, n := range nodes {
		if absent(n) {
			byID[n.ID] = i
			members[i].AbsentSince = since(n, now)
		}
	}
	if len(byID) == 0 {
		return
	}
	for _, r := range a.mesh.Catalog().Live(catalog.ScopeMain, catalog.KindPlaced, "") { // sorted by name
		i, away := byID[r.Log.Origin]
		if !away {
			continue
		}
		has, err := catalog.DecodePlaced(r.Body)
		if err != nil {
			continue
		}
		m := &members[i]
		if has.Version.Counter > 0 {
			m.Placed = append(m.Placed, control.Input{Name: r.Name, Version: a.shownVersion(r.Name, has.Version), Hash: has.Tree.String()})
		}
		if lacked := a.lackedBy(r.Log.Origin, r.Name, has); len(lacked) > 0 {
			waitFor(m, lacked[len(lacked)-1])
		}
	}
	if score := a.loop.newestScore(); score != nil {
		for n, i := range byID {
			if n != score.ref.Version.By && members[i].Score != score.body.Semver {
				waitFor(&members[i], *score)
			}
		}
	}
}

// waitFor notes one artifact that waits for an absent member.
func waitFor(m *control.Member, o offered) {
	m.Waiting = append(m.Waiting, control.Waiting{Name: o.ref.Name, Version: o.shown(), Hash: o.ref.Tree.String(), SizeBytes: o.ref.SizeBytes})
	slices.SortFunc(m.Waiting, func(x, y control.Waiting) int { return strings.Compare(x.Name, y.Name) })
	m.WaitingBytes += o.ref.SizeBytes
}

// shownVersion is how a version of a name is called; its counter where it is no longer offered.
func (a *Agent) shownVersion(name string, v artifact.Version) string {
	for _, o := range a.supply.named(name) {
		if o.ref.Version == v {
			return o.shown()
		}
	}
	return offered{ref: artifact.Ref{Name: name, Version: v}, body: catalog.ArtifactBody{Counter: v.Counter}}.shown()
}

// waiting is how much waits for an absent node.
type waiting struct {
	artifacts int
	bytes     int64
}

// waiting tells it of all that are away.
func (a *Agent) waiting(nodes []mesh.Node) map[id.Node]waiting {
	members := make([]control.Member, len(nodes))
	for i, n := range nodes {
		members[i].Score = n.Score
	}
	a.tellAbsent(members, nodes)
	out := map[id.Node]waiting{}
	for i, m := range members {
		if len(m.Waiting) > 0 {
			out[nodes[i].ID] = waiting{len(m.Waiting), m.WaitingBytes}
		}
	}
	return out
}

// longAway is from when on the doctor says how long, and mentions nodes that left in good order too.
const longAway = 7 * 24 * time.Hour

// awayText says how long a node is away, once that is long, and what waits for it.
func (v vitals) awayText(n mesh.Node) (text string, long bool) {
	last := since(n, v.now)
	long = !last.IsZero() && v.now.Sub(last) >= longAway
	if long {
		text += fmt.Sprintf(", %d days away", int(v.now.Sub(last).Hours()/24))
	}
	if w, ok := v.waiting[n.ID]; ok {
		text += fmt.Sprintf("; %d artifacts (%d bytes) wait for it", w.artifacts, w.bytes)
		if until := last.Add(courierFor); !last.IsZero() && until.After(v.now) {
			text += ", everywhere until " + day(until) + ", then in copies"
		} else {
			text += " in copies"
		}
	}
	return text, long
}
