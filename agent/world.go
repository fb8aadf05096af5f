package agent

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"

	"meshd/agent/promise"
	"meshd/mesh"
	"meshd/policies"
	"meshd/roles"
)

const (
	builtinEvery  = 10 * time.Minute // built-in facts are gathered anew
	membersQuiet  = time.Second      // what members() shows changes after this much quiet,
	membersAtMost = 5 * time.Second  // or this long after the first change
	factBackoff   = 30 * time.Second // after a fact's command failed
	gatherLimit   = 4                // facts gathered at once
)

// A world is what the score may see of this node and of the others. It belongs to the loop.
type world struct {
	facts     map[string]cty.Value
	gathered  map[string]time.Time // when each custom fact is due again
	gathering map[string]bool
	builtinAt time.Time

	members   []roles.Member // as the score sees them
	fresh     []roles.Member // as they are now
	freshAt   time.Time      // when fresh last differed; zero: it is what the score sees
	firstAt   time.Time      // when it first did
	edge      time.Time      // when a during() of the score changes
	hold      time.Time      // when a role that only its `hold` keeps may end
	builtinOn bool           // a gathering of built-in facts is under way
}

func newWorld() *world {
	return &world{facts: map[string]cty.Value{}, gathered: map[string]time.Time{}, gathering: map[string]bool{}}
}

// next is when refresh has something to do with no event; zero for never.
func (w *world) next() time.Time {
	t := w.builtinAt
	for name, at := range w.gathered {
		if !w.gathering[name] {
			t = earlier(t, at)
		}
	}
	if !w.freshAt.IsZero() {
		t = earlier(t, w.membersDue())
	}
	if !w.edge.IsZero() {
		t = earlier(t, w.edge)
	}
	if !w.hold.IsZero() {
		t = earlier(t, w.hold)
	}
	return t
}

func (w *world) membersDue() time.Time {
	return earlier(w.freshAt.Add(membersQuiet), w.firstAt.Add(membersAtMost))
}

// refresh starts what facts are due and lets the score see members that have settled.
func (w *world) refresh(l *loop) {
	now := time.Now()
	if !now.Before(w.builtinAt) && !w.builtinOn {
		w.gatherBuiltin(l)
	}
	w.gather(l, now)
	if !w.freshAt.IsZero() && !now.Before(w.membersDue()) {
		changed := w.settleMembers()
		if len(changed) > 0 {
			l.derive(changed, Cause{Text: "what members say of themselves changed"})
		}
	}
	if !w.hold.IsZero() && !now.Before(w.hold) {
		l.derive([]string{}, Cause{Text: "the shortest stay in a role is over"})
	}
	if !w.edge.IsZero() && !now.Before(w.edge) {
		w.setEdge(l)
		l.derive([]string{policies.NameTime}, Cause{Text: "the time of day"})
	}
}

func (w *world) setEdge(l *loop) {
	w.edge = time.Time{}
	if l.program == nil {
		return
	}
	wall := l.a.cfg.Wall()
	if edge := l.program.NextEdge(wall); !edge.IsZero() {
		w.edge = time.Now().Add(edge.Sub(wall))
	}
}

// setHold says when the next role that only its hold keeps may end.
func (w *world) setHold(l *loop) {
	w.hold = time.Time{}
	for _, h := range l.held {
		if !h.Until.IsZero() {
			at := time.Now().Add(h.Until.Sub(l.a.cfg.Wall()))
			if w.hold.IsZero() || at.Before(w.hold) {
				w.hold = at
			}
		}
	}
}

func (w *world) gatherBuiltin(l *loop) {
	w.builtinOn = true
	l.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		facts := l.a.cfg.Builtin(ctx, l.a.cfg.WorkDir)
		l.post(func() {
			w.builtinOn = false
			w.builtinAt = time.Now().Add(builtinEvery)
			w.take(l, facts)
		})
	})
}

// take puts new values of facts in force where they differ.
func (w *world) take(l *loop, facts map[string]cty.Value) {
	var changed []string
	for _, name := range slices.Sorted(maps.Keys(facts)) {
		old, had := w.facts[name]
		if had && old.RawEquals(facts[name]) {
			continue
		}
		w.facts[name] = facts[name]
		changed = append(changed, "fact."+name)
	}
	if len(changed) > 0 {
		l.derive(changed, Cause{Text: strings.Join(changed, ", ") + " changed"})
	}
}

// gather runs the commands of custom facts that are due.
func (w *world) gather(l *loop, now time.Time) {
	if l.program == nil {
		return
	}
	for _, f := range l.program.Facts() {
		at, known := w.gathered[f.Name]
		if w.gathering[f.Name] || len(w.gathering) >= gatherLimit || (known && now.Before(at)) {
			continue
		}
		w.gathering[f.Name] = true
		l.wg.Go(func() {
			value, err := runFact(l.a, f)
			l.post(func() { w.tookFact(l, f, value, err) })
		})
	}
}

func runFact(a *Agent, f policies.Fact) (cty.Value, error) {
	ctx, cancel := context.WithTimeout(context.Background(), f.Timeout+time.Second)
	defer cancel()
	code, out, err := a.cfg.Host.Exec(ctx, promise.Cmd{Argv: f.Command, Env: os.Environ(), Dir: a.cfg.WorkDir}, f.Timeout)
	if err != nil {
		return cty.NilVal, err
	}
	if code != 0 {
		return cty.NilVal, fmt.Errorf("exit status %d: %s", code, strings.TrimSpace(string(out)))
	}
	return roles.Parse(f.Parse, out)
}

func (w *world) tookFact(l *loop, f policies.Fact, value cty.Value, err error) {
	delete(w.gathering, f.Name)
	if err != nil {
		w.gathered[f.Name] = time.Now().Add(min(f.Every, factBackoff))
		l.a.cfg.Log.Warn("a fact can't be gathered; its last value stays", "fact", f.Name, "error", err)
		if _, had := w.facts[f.Name]; !had && f.Default != cty.NilVal {
			w.take(l, map[string]cty.Value{f.Name: f.Default})
		}
		return
	}
	w.gathered[f.Name] = time.Now().Add(f.Every)
	if err := l.a.memory.putFact(f.Name, value); err != nil {
		l.a.cfg.Log.Warn("a fact can't be remembered", "fact", f.Name, "error", err)
	}
	w.take(l, map[string]cty.Value{f.Name: value})
}

// post hands f to the loop from a goroutine that the loop waits for; it is dropped when the agent stops.
func (l *loop) post(f func()) {
	select {
	case l.calls <- f:
	case <-l.a.stopping:
	}
}

// hear takes what live members say of themselves now; the score sees it once it has settled.
func (w *world) hear(members []roles.Member) {
	if equalMembers(members, w.members) {
		w.freshAt, w.firstAt, w.fresh = time.Time{}, time.Time{}, nil
		return
	}
	if w.fresh != nil && equalMembers(members, w.fresh) {
		return
	}
	now := time.Now()
	w.fresh, w.freshAt = members, now
	if w.firstAt.IsZero() {
		w.firstAt = now
	}
}

func equalMembers(a, b []roles.Member) bool {
	return slices.EqualFunc(a, b, func(x, y roles.Member) bool {
		return x.ID == y.ID && x.Name == y.Name && x.Addr == y.Addr && maps.Equal(x.Tags, y.Tags) &&
			maps.Equal(x.Facts, y.Facts) && slices.Equal(x.Roles, y.Roles)
	})
}

// settleMembers makes fresh what the score sees and names the roles whose members differ.
func (w *world) settleMembers() []string {
	before := byRole(w.members)
	after := byRole(w.fresh)
	w.members, w.fresh, w.freshAt, w.firstAt = w.fresh, nil, time.Time{}, time.Time{}
	names := map[string]bool{}
	for role := range before {
		names[role] = true
	}
	for role := range after {
		names[role] = true
	}
	var changed []string
	for _, role := range slices.Sorted(maps.Keys(names)) {
		if !equalMembers(before[role], after[role]) {
			changed = append(changed, "members."+role)
		}
	}
	return changed
}

func byRole(members []roles.Member) map[string][]roles.Member {
	out := map[string][]roles.Member{}
	for _, m := range members {
		for _, r := range m.Roles {
			out[r] = append(out[r], m)
		}
	}
	return out
}

// env is what an evaluation may see, before roles are known.
func (w *world) env(l *loop) policies.Env {
	return policies.Env{Wall: l.a.cfg.Wall(), Values: roles.Values(l.a.selfMember(nil), w.facts, nil, w.members)}
}

// withRoles adds the roles that were derived.
func (w *world) withRoles(l *loop) policies.Env {
	return policies.Env{Wall: l.a.cfg.Wall(), Values: roles.Values(l.a.selfMember(l.held), w.facts, l.held, w.members)}
}

// public returns the facts that peers may read, as text.
func (w *world) public(p *policies.Program) map[string]string {
	if p == nil {
		return map[string]string{}
	}
	return roles.Public(p.Facts(), w.facts)
}

// selfMember is this node as the score sees it.
func (a *Agent) selfMember(held map[string]roles.Held) roles.Member {
	m := roles.Member{ID: a.mesh.Self().String(), Name: a.name, Addr: hostOf(first1(a.mesh.Advertised())), Tags: a.tags}
	if m.Addr == "" {
		m.Addr = a.mesh.Here() // a leaf is reached nowhere; this is where it is
	}
	for name, h := range held {
		if h.Holds {
			m.Roles = append(m.Roles, name)
		}
	}
	slices.Sort(m.Roles)
	return m
}

func first1(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func hostOf(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}

// liveMembers is what all that are alive say of themselves, this node included, by id.
func (l *loop) liveMembers() []roles.Member {
	self := l.a.selfMember(l.held)
	self.Facts = l.world.public(l.program)
	out := []roles.Member{self}
	for _, n := range l.a.mesh.Nodes() {
		if n.Self || !n.Live {
			continue
		}
		out = append(out, memberOf(n))
	}
	slices.SortFunc(out, func(x, y roles.Member) int { return strings.Compare(x.ID, y.ID) })
	return out
}

func memberOf(n mesh.Node) roles.Member {
	return roles.Member{ID: n.ID.String(), Name: n.Name, Addr: hostOf(first1(n.Addrs)), Tags: n.Tags, Facts: n.Facts, Roles: n.Roles}
}

// restoreFacts gives custom facts the last value that an earlier run gathered, until they are gathered anew.
func (w *world) restoreFacts(l *loop) {
	old, err := l.a.memory.facts()
	if err != nil {
		l.a.cfg.Log.Warn("the facts of the last run can't be read", "error", err)
		return
	}
	for _, f := range l.program.Facts() {
		if _, known := w.facts[f.Name]; known {
			continue
		}
		if v, ok := old[f.Name]; ok {
			w.facts[f.Name] = v
		}
	}
}
