package agent

import (
	"context"
	"maps"
	"slices"
	"strings"

	"meshd/agent/promise"
	"meshd/policies"
	"meshd/roles"
)

// apply puts evaluated blocks in force: new instances begin, changed ones are replaced, others end.
func (l *loop) apply(groups []policies.Group, cause Cause) {
	for _, g := range groups {
		if l.played != nil {
			l.played[g.Block] = true
		}
		if g.Hold && len(g.Promises) == 0 {
			continue
		}
		old := l.blocks[g.Block]
		var now []policies.Address
		for _, p := range g.Promises {
			now = append(now, p.Address)
			if in := l.instances[p.Address]; in == nil {
				l.begin(p, cause)
			} else {
				in.ended = false
				l.change(in, p, cause)
			}
		}
		for _, address := range old {
			if in := l.instances[address]; in != nil && !slices.Contains(now, address) {
				if g.Hold {
					now = append(now, address)
					continue
				}
				l.finish(in)
			}
		}
		if len(now) == 0 {
			delete(l.blocks, g.Block)
		} else {
			l.blocks[g.Block] = now
		}
	}
	l.pathsOld = true
}

func (l *loop) begin(p policies.Promise, cause Cause) {
	in := &instance{p: p, since: l.a.cfg.Wall()}
	l.instances[p.Address] = in
	l.counts[in.outcome]++
	l.equip(in)
	l.wake(in, cause)
}

// equip makes the keeper of in.p, or turns what is wrong with it into its Problem.
func (l *loop) equip(in *instance) {
	in.keeper = nil
	if in.p.Problem != "" {
		return
	}
	if l.a.cfg.Once && stays(in.p) {
		in.keeper = onceKeeper{}
		return
	}
	k, err := promise.New(in.p, l.a.site)
	if err != nil {
		in.p.Problem, in.p.ProblemOutcome = err.Error(), policies.Failed
		return
	}
	in.keeper = k
}

func (l *loop) change(in *instance, p policies.Promise, cause Cause) {
	if in.p.Hash == p.Hash {
		in.p.Why = p.Why
		return
	}
	if p.Hold && in.p.Problem == "" {
		return // unknown now: it goes on as it is
	}
	l.wake(in, cause)
	if in.running {
		in.next = &p
		return
	}
	l.replace(in, p)
}

func (l *loop) replace(in *instance, p policies.Promise) {
	if y, ok := in.keeper.(promise.Yielder); ok {
		y.Yield()
	}
	in.p = p
	l.equip(in)
	in.dirty = true
	l.enqueue(in)
	l.pathsOld = true
}

// finish ends a promise: at once, or when the run under way was cut.
func (l *loop) finish(in *instance) {
	in.ended = true
	if in.running {
		in.cancel()
		return
	}
	l.bury(in)
}

func (l *loop) bury(in *instance) {
	delete(l.instances, in.p.Address)
	l.counts[in.outcome]--
	l.clock.drop(in)
	l.watches.set(in.p.Address, nil)
	l.pathsOld = true
	l.a.supply.forget(in.p.Address)
	l.log.append(Entry{At: l.a.cfg.Wall(), Kind: aboutPromise, Subject: string(in.p.Address), Text: "ended", Score: l.scoreHash(), Cause: in.cause})
	if in.keeper == nil {
		return
	}
	keeper, address := in.keeper, in.p.Address
	l.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		if err := keeper.End(ctx, false); err != nil {
			l.a.cfg.Log.Warn("a promise did not end well", "promise", address, "error", err)
		}
	})
}

// derive works out the roles anew and evaluates the blocks that read one of changed (nil: all).
func (l *loop) derive(changed []string, cause Cause) {
	l.a.tellStatusSoon()
	if l.program == nil {
		return
	}
	before := l.held
	env := l.world.env(l)
	l.held = roles.Derive(l.program, env, before)
	l.world.setHold(l)
	for _, name := range slices.Sorted(maps.Keys(l.held)) {
		was, is := before[name], l.held[name]
		if was.Holds == is.Holds && was.Unknown == is.Unknown {
			continue
		}
		if changed != nil {
			changed = append(changed, "role."+name)
		}
		l.tellRole(name, is, cause)
	}
	env = l.world.withRoles(l)
	groups, err := l.program.Expand(env, changed)
	if err != nil {
		l.a.cfg.Log.Error("the score can't be evaluated", "error", err)
		l.log.append(Entry{At: l.a.cfg.Wall(), Kind: aboutScore, Subject: l.program.Score().Name, Outcome: "failed", Text: err.Error()})
		return
	}
	l.apply(groups, cause)
}

func (l *loop) tellRole(name string, h roles.Held, cause Cause) {
	text := "not held"
	switch {
	case h.Unknown:
		text = "unknown yet"
	case h.Holds:
		text = "held"
	}
	if len(h.Because) > 0 {
		text += ", because " + strings.Join(h.Because, ", ")
	}
	l.log.append(Entry{At: l.a.cfg.Wall(), Kind: aboutRole, Subject: name, Text: text, Cause: cause, Score: l.scoreHash()})
}
