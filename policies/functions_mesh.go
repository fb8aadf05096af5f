package policies

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// meshFunctions are the functions that see the node's surroundings and the bundle.
func (ev *evaluator) meshFunctions(l *library) {
	l.def("members", 1, 1, func(args []cty.Value) (cty.Value, error) { return ev.members(args[0].AsString()) })
	l.def("count", 1, 1, func(args []cty.Value) (cty.Value, error) {
		list, err := ev.members(args[0].AsString())
		if err != nil || !list.IsKnown() {
			return cty.UnknownVal(cty.Number), err
		}
		return cty.NumberIntVal(int64(list.LengthInt())), nil
	})
	l.def("during", 1, 2, func(args []cty.Value) (cty.Value, error) {
		s, err := l.strs(args)
		if err != nil {
			return cty.NilVal, err
		}
		if ev.env.Wall.IsZero() {
			return cty.UnknownVal(cty.Bool), nil
		}
		w, err := ParseWindow(s[0], strings.Join(s[1:], ""))
		return cty.BoolVal(w.Contains(ev.env.Wall)), err
	})
	l.text("read", 1, func(s []string) (cty.Value, error) {
		src, ok := ev.p.data[s[0]]
		if !ok {
			return cty.NilVal, fmt.Errorf("no file %.200q in the bundle", s[0])
		}
		return cty.StringVal(string(src)), nil
	})
	l.def("template", 2, 2, func(args []cty.Value) (cty.Value, error) {
		x := ev.p.templates[args[0].AsString()]
		if x == nil {
			return cty.NilVal, fmt.Errorf("no template %.200q in the bundle", args[0].AsString())
		}
		vars, err := l.entries(args[1])
		if err != nil {
			return cty.NilVal, err
		}
		ctx := &hcl.EvalContext{Variables: maps.Clone(vars), Functions: l.out}
		if ctx.Variables == nil {
			ctx.Variables = map[string]cty.Value{}
		}
		ctx.Variables[meterName] = cty.CapsuleVal(meterType, l.fuel)
		v, diags := x.Value(ctx)
		if diags.HasErrors() {
			return cty.NilVal, errors.New(fuelDiag(l.fuel, x.Range(), diags))
		}
		return v, nil
	})
}

// members returns the live members of a role as the environment shows them; a role that nobody plays has
// none, a node that knows nothing of others yet has an unknown list.
func (ev *evaluator) members(role string) (cty.Value, error) {
	all, ok := ev.env.Values["members"]
	if !ok || !all.IsKnown() || all.IsNull() || !all.Type().IsObjectType() && !all.Type().IsMapType() {
		return cty.DynamicVal, nil
	}
	if all.Type().IsObjectType() && !all.Type().HasAttribute(role) {
		return cty.EmptyTupleVal, nil
	}
	if all.Type().IsMapType() {
		if all.HasIndex(cty.StringVal(role)).False() {
			return cty.EmptyTupleVal, nil
		}
		return all.Index(cty.StringVal(role)), nil
	}
	list := all.GetAttr(role)
	if list.IsNull() || list.IsKnown() && !list.CanIterateElements() {
		return cty.NilVal, errors.New("members of role " + role + " are no list")
	}
	return list, nil
}

// waits lists, of the names that an expression reads, those whose values are unknown now: a role is
// traced to the facts that it waits for.
func (ev *evaluator) waits(reads []string) []string {
	seen := map[string]bool{}
	var out []string
	var visit func(names []string)
	visit = func(names []string) {
		for _, name := range names {
			if seen[name] || ev.known(name) {
				continue
			}
			seen[name] = true
			if r := ev.p.roles[strings.TrimPrefix(name, "role.")]; r != nil && strings.HasPrefix(name, "role.") {
				before := len(out)
				visit(r.when.reads)
				if len(out) > before {
					continue
				}
			}
			out = append(out, name)
		}
	}
	visit(reads)
	slices.Sort(out)
	return out
}

// known reports whether the value of one name, two deep, is known.
func (ev *evaluator) known(name string) bool {
	if name == NameTime {
		return !ev.env.Wall.IsZero()
	}
	root, rest, deep := strings.Cut(name, ".")
	if root == "members" {
		list, err := ev.members(rest)
		return err != nil || list.IsWhollyKnown()
	}
	v, ok := ev.ctx.Variables[root]
	if !ok {
		return false
	}
	if deep {
		if !v.Type().IsObjectType() || !v.Type().HasAttribute(rest) {
			return true // absent: an error of its own, not something to wait for
		}
		v = v.GetAttr(rest)
	}
	return v.IsWhollyKnown()
}
