package policies

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// An evaluator answers questions about one program in one environment. It belongs to one goroutine and
// lives as long as one call of Role, Expand or Allows; what it has found out it remembers.
type evaluator struct {
	p    *Program
	env  Env
	fuel *meter
	ctx  *hcl.EvalContext

	locals  map[string]result
	parts   map[*part]presence
	keys    map[*block]*keyset
	present map[instance]presence
}

// A result is what came of one expression: a value, unless fault says why there is none. waits names what
// an unknown value is unknown for.
type result struct {
	v     cty.Value
	waits []string
	fault string // with its place
}

func (r result) known() bool { return r.fault == "" && r.v.IsWhollyKnown() }

func newEvaluator(p *Program, e Env) *evaluator {
	ev := &evaluator{
		p: p, env: e, fuel: &meter{all: fuelAll}, locals: map[string]result{}, parts: map[*part]presence{},
		keys: map[*block]*keyset{}, present: map[instance]presence{},
	}
	ev.ctx = &hcl.EvalContext{Variables: ev.roots(), Functions: ev.functions()}
	return ev
}

// roots fills the environment up: what is not gathered yet is unknown, an absent tag is "".
func (ev *evaluator) roots() map[string]cty.Value {
	fill := func(root string, names []string, missing func(name string) cty.Value) cty.Value {
		given, ok := ev.env.Values[root]
		attrs := map[string]cty.Value{}
		if ok && given.IsKnown() && !given.IsNull() && (given.Type().IsObjectType() || given.Type().IsMapType()) {
			if attrs = given.AsValueMap(); attrs == nil {
				attrs = map[string]cty.Value{}
			}
		} else if ok && !given.IsKnown() || !ok && root == "tag" {
			missing = func(string) cty.Value { return cty.UnknownVal(cty.String) }
		}
		for _, name := range names {
			if v, ok := attrs[name]; !ok || v.IsNull() {
				attrs[name] = missing(name)
			}
		}
		return cty.ObjectVal(attrs)
	}
	unknownString := func(string) cty.Value { return cty.UnknownVal(cty.String) }
	return map[string]cty.Value{
		"fact": fill("fact", ev.p.factNames, func(name string) cty.Value { return cty.UnknownVal(ev.p.factTypes[name]) }),
		"node": fill("node", fixedNames["node"], unknownString),
		"tag":  fill("tag", ev.p.tagNames, func(string) cty.Value { return cty.StringVal("") }),
		"role": fill("role", ev.p.roleOrder, func(string) cty.Value { return cty.UnknownVal(cty.Bool) }),

		meterName: cty.CapsuleVal(meterType, ev.fuel),
	}
}

// value evaluates one expression; extra are names such as each, which only it may read.
func (ev *evaluator) value(e *expr, extra map[string]cty.Value) (res result) {
	if e.x == nil {
		return result{v: e.lit}
	}
	vars := extra
	if len(e.locals) > 0 {
		local, fault := ev.localObject(e.locals)
		if fault != "" {
			return result{v: cty.DynamicVal, fault: fault}
		}
		vars = make(map[string]cty.Value, len(extra)+1)
		maps.Copy(vars, extra)
		vars["local"] = local
	}
	ctx := ev.ctx
	if len(vars) > 0 {
		ctx = ctx.NewChild()
		ctx.Variables = vars
	}
	defer func() {
		if v := recover(); v != nil { // cty panics on some operations; it is their fault, not the node's end
			res = result{v: cty.DynamicVal, fault: fmt.Sprintf("%s: cannot be evaluated: %v", place(e.rng), v)}
		}
	}()
	ev.fuel.start()
	v, diags := e.x.Value(ctx)
	if ev.fuel.spent || diags.HasErrors() {
		return result{v: cty.DynamicVal, fault: fuelDiag(ev.fuel, e.rng, diags)}
	}
	v, _ = v.UnmarkDeep()
	if !v.IsWhollyKnown() {
		return result{v: v, waits: ev.waits(e.reads)}
	}
	return result{v: v}
}

// localObject evaluates the named locals, each once.
func (ev *evaluator) localObject(names []string) (cty.Value, string) {
	attrs := make(map[string]cty.Value, len(names))
	for _, name := range names {
		res, ok := ev.locals[name]
		if !ok {
			res = ev.local(name)
			ev.locals[name] = res
		}
		if res.fault != "" {
			return cty.NilVal, res.fault
		}
		attrs[name] = res.v
	}
	return cty.ObjectVal(attrs), ""
}

// local evaluates one local. Its value is charged whole: a local made of two of another, forty times over,
// is small in memory and endless to walk.
func (ev *evaluator) local(name string) result {
	e := ev.p.locals[name]
	res := ev.value(e, nil)
	if res.fault == "" && e.x != nil {
		ev.fuel.start()
		if err := ev.fuel.value(res.v); err != nil {
			res = result{v: cty.DynamicVal, fault: fmt.Sprintf("%s: local.%s: %v", place(e.rng), name, err)}
		}
	}
	if res.fault != "" && !strings.Contains(res.fault, "local.") {
		res.fault = "local." + name + " at " + res.fault
	}
	return res
}

// boolOf reads a result that must be a bool.
func boolOf(e *expr, res result) (presence, string) {
	if res.fault != "" {
		return presence{fault: res.fault}, res.fault
	}
	v, err := conform(kindBool, res.v)
	switch {
	case err != nil:
		fault := place(e.rng) + ": " + err.Error()
		return presence{fault: fault}, fault
	case v.IsNull():
		fault := place(e.rng) + ": a bool is needed, not null"
		return presence{fault: fault}, fault
	case !v.IsKnown():
		return presence{is: maybe, waits: res.waits}, ""
	case v.True():
		return presence{is: yes}, ""
	}
	return presence{is: no}, ""
}

// tri is a truth in three values.
type tri uint8

const (
	no tri = iota
	maybe
	yes
)

// A presence says whether something is played here. A fault counts as maybe: nothing of it starts or stops.
type presence struct {
	is    tri
	waits []string
	fault string
}

func (p presence) open() bool { return p.is == maybe || p.fault != "" }

// and joins two conditions as && does.
func (p presence) and(q presence) presence {
	switch {
	case p.is == no && p.fault == "" || q.is == no && q.fault == "":
		return presence{is: no}
	case p.fault != "":
		return p
	case q.fault != "":
		return q
	}
	return presence{is: min(p.is, q.is), waits: sortedSet(slices.Concat(p.waits, q.waits))}
}

// part tells whether this node plays a part.
func (ev *evaluator) part(p *part) presence {
	if pr, ok := ev.parts[p]; ok {
		return pr
	}
	pr := presence{is: yes}
	if p.role != "" {
		held := ev.ctx.Variables["role"].GetAttr(p.role)
		switch {
		case !held.IsKnown() || held.Type() != cty.Bool:
			pr = presence{is: maybe, waits: ev.waits([]string{"role." + p.role})}
		case held.False():
			pr = presence{is: no}
		}
	}
	if e := p.attrs["when"]; e != nil && pr.is != no {
		when, _ := boolOf(e, ev.value(e, nil))
		pr = pr.and(when)
	}
	ev.parts[p] = pr
	return pr
}

// waitingFor words what something waits for.
func waitingFor(waits []string) string {
	if len(waits) == 0 {
		return "waiting for what is not known yet"
	}
	words := make([]string, len(waits))
	for i, w := range waits {
		words[i] = w
		if w == NameTime {
			words[i] = "the clock"
		}
		if role, ok := strings.CutPrefix(w, "members."); ok {
			words[i] = `members("` + role + `")`
		}
	}
	return "waiting for " + strings.Join(words, ", ")
}
