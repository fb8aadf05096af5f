package agent

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"

	"meshd/agent/control"
	"meshd/policies"
	"meshd/roles"
)

// A setting is what roles and promises are worked out from: a copy of the loop's, so that others can.
type setting struct {
	env     policies.Env // without roles
	self    roles.Member
	members []roles.Member
	world   *world
	held    map[string]roles.Held
	program *policies.Program // in force; nil: none
}

// play works out what a score has this node play.
func (s setting) play(p *policies.Program) (map[string]roles.Held, map[policies.Address]policies.Promise, error) {
	if p == nil {
		return nil, nil, nil
	}
	held := roles.Derive(p, s.env, s.held)
	self := s.self
	self.Roles = nil
	for _, name := range slices.Sorted(maps.Keys(held)) {
		if held[name].Holds {
			self.Roles = append(self.Roles, name)
		}
	}
	env := s.env
	env.Values = roles.Values(self, s.world.facts, held, s.members)
	groups, err := p.Expand(env, nil)
	if err != nil {
		return nil, nil, err
	}
	out := map[policies.Address]policies.Promise{}
	for _, g := range groups {
		for _, promise := range g.Promises {
			out[promise.Address] = promise
		}
	}
	return held, out, nil
}

func (d door) DiffScore(ctx context.Context, tar io.Reader) (changes []control.Change, err error) {
	err = d.stage(tar, func(path string) error {
		files, err := ReadFolder(path)
		if err != nil {
			return err
		}
		next, err := policies.Compile(files)
		if err != nil {
			return control.Errorf(control.Failed, "%v", err)
		}
		changes, err = d.diff(ctx, next)
		return err
	})
	return changes, err
}

func (d door) diff(ctx context.Context, next *policies.Program) ([]control.Change, error) {
	var s setting
	if err := d.a.loop.do(ctx, func() {
		l := d.a.loop
		s = setting{
			env: l.world.env(l), self: d.a.selfMember(nil), members: slices.Clone(l.world.members),
			world: &world{facts: maps.Clone(l.world.facts)}, held: maps.Clone(l.held), program: l.program,
		}
	}); err != nil {
		return nil, err
	}
	heldNow, now, errNow := s.play(s.program)
	heldThen, then, errThen := s.play(next)
	if err := errors.Join(errNow, errThen); err != nil {
		return nil, err
	}
	return append(diffPromises(now, then), diffRoles(s.program, next, heldNow, heldThen)...), nil
}

func diffPromises(now, then map[policies.Address]policies.Promise) []control.Change {
	var out []control.Change
	for _, address := range both(now, then) {
		was, is := now[address], then[address]
		c := control.Change{Kind: "promise", Change: "changed", Name: string(address), Why: is.Why, Problem: is.Problem}
		switch {
		case is.Address == "":
			c.Change, c.Why = "removed", was.Why
		case was.Address == "":
			c.Change = "added"
		case was.Hash == is.Hash:
			continue
		}
		out = append(out, c)
	}
	return out
}

func diffRoles(old, next *policies.Program, now, then map[string]roles.Held) []control.Change {
	var out []control.Change
	for _, name := range both(now, then) {
		was, is := now[name], then[name]
		if was.Holds == is.Holds && was.Unknown == is.Unknown {
			continue
		}
		c := control.Change{Kind: "role", Change: "added", Name: name, Why: next.RoleWhy(name)}
		switch {
		case is.Unknown:
			c.Change, c.Problem = "changed", "unknown yet"
			if len(is.Because) > 0 {
				c.Problem = is.Because[0]
			}
		case !is.Holds && !was.Holds:
			continue // unknown before, and never played
		case !is.Holds:
			c.Change = "removed"
			if c.Why == "" && old != nil {
				c.Why = old.RoleWhy(name)
			}
		}
		out = append(out, c)
	}
	return out
}

// both lists the keys of two maps, sorted.
func both[K interface{ ~string }, V any](a, b map[K]V) []K {
	all := map[K]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return slices.Sorted(maps.Keys(all))
}
