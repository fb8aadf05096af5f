package policies

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// maxPromises bounds the promises of one node (POLICY.md).
const maxPromises = 20_000

// Expand works out what this node promises in an environment that holds its roles too.
//
// With changed nil it returns a group for every block, in the order of the score. Else only the groups that
// depend on one of the changed names, two deep as in "fact.load" or "members.web"; all others are as they
// were. What a partial run cannot see is a path that two blocks, both computed and only one of them
// changed, have come to share: the next full run tells.
//
// An expression that fails or is unknown is told in its promise. The error is for the whole: more promises
// than a node may have.
func (p *Program) Expand(e Env, changed []string) ([]Group, error) {
	ev := newEvaluator(p, e)
	made := map[string]instance{}
	blocks := p.blocks
	if changed != nil {
		blocks = p.affected(changed)
	}
	groups := make([]Group, 0, len(blocks))
	total := 0
	for _, b := range blocks {
		g := ev.group(b, made)
		if total += len(g.Promises); total > maxPromises {
			return nil, fmt.Errorf("score %q: more promises here than the limit of %d, at %s (%s)",
				p.score.Name, maxPromises, b.address(), place(b.rng))
		}
		groups = append(groups, g)
	}
	return groups, nil
}

// affected returns the blocks that read one of the names, in the order of the score.
func (p *Program) affected(changed []string) []*block {
	hit := map[int]bool{}
	var order []int
	take := func(name string) {
		for _, i := range p.index[name] {
			if !hit[i] {
				hit[i] = true
				order = append(order, i)
			}
		}
	}
	for _, name := range changed {
		take(name)
		if root, _, deep := strings.Cut(name, "."); deep {
			take(root) // reads all tags
		}
	}
	slices.Sort(order)
	out := make([]*block, len(order))
	for i, n := range order {
		out[i] = p.blocks[n]
	}
	return out
}

// group works out all instances of one block. made says who makes which path and name so far.
func (ev *evaluator) group(b *block, made map[string]instance) Group {
	g := Group{Block: b.address()}
	pr := ev.part(b.part)
	if pr.is == no && pr.fault == "" {
		return g
	}
	ks := ev.keysOf(b)
	if ks.is.open() {
		g.Hold = true
		g.Promises = []Promise{b.held(b.address(), "", pr.and(ks.is))}
		return g
	}
	for _, key := range ks.keys {
		i := instance{b: b, key: key}
		pr := ev.presentAt(i)
		switch {
		case pr.open():
			g.Hold = true
			g.Promises = append(g.Promises, b.held(i.address(), key, pr))
		case pr.is == yes:
			g.Promises = append(g.Promises, ev.promise(i, made))
		}
	}
	return g
}

// held is the promise that tells why it cannot be said whether it is played here.
func (b *block) held(addr Address, key string, pr presence) Promise {
	out := Promise{
		Address: addr, Part: b.part.name, Type: b.typ, Name: b.name, Key: key, Role: b.part.role,
		Why: b.part.why, Hold: true, Audit: true,
	}
	out.Problem, out.ProblemOutcome = pr.fault, Failed
	if pr.fault == "" {
		out.Problem, out.ProblemOutcome = waitingFor(pr.waits), Waiting
	}
	out.seal()
	return out
}

// promise evaluates one instance that is played here.
func (ev *evaluator) promise(i instance, made map[string]instance) Promise {
	b := i.b
	out := Promise{
		Address: i.address(), Part: b.part.name, Type: b.typ, Name: b.name, Key: i.key, Role: b.part.role,
		Why: b.part.why, Every: ev.p.score.Every, Jitter: ev.p.score.Jitter, Audit: true,
		Needs: ev.resolve(i, b.needs), On: ev.resolve(i, b.refs["on"]),
	}
	vs, waits, fault := ev.attributes(i)
	err := out.common(vs)
	switch {
	case fault != "":
		out.Problem, out.ProblemOutcome = fault, Failed
	case len(waits) > 0:
		out.Problem, out.ProblemOutcome = waitingFor(waits), Waiting
	case err == nil:
		if err = ev.fill(&out, i, vs); err == nil {
			err = ev.claim(&out, i, made)
		}
	}
	if err != nil {
		out.Problem, out.ProblemOutcome = place(b.rng)+": "+err.Error(), Failed
	}
	if out.Problem != "" {
		out.Spec, out.Makes = nil, nil
	}
	out.seal()
	return out
}

// attributes evaluates and conforms all attributes but for_each and when. fault is the first by name.
func (ev *evaluator) attributes(i instance) (vs values, waits []string, fault string) {
	vs = values{spec: i.b.spec, attrs: make(map[string]cty.Value, len(i.b.attrs))}
	for _, name := range i.b.names {
		e := i.b.attrs[name]
		res := ev.value(e, ev.extra(i, e))
		if res.fault != "" {
			if fault == "" {
				fault = name + " at " + res.fault
			}
			continue
		}
		v, err := i.b.attrSpec(name).accept(res.v)
		switch {
		case err != nil && fault == "":
			fault = fmt.Sprintf("%s at %s: %v", name, place(e.rng), err)
		case err != nil:
		case v.IsWhollyKnown():
			vs.attrs[name] = v
		case name != "why":
			waits = append(waits, res.waits...)
			if len(res.waits) == 0 {
				waits = append(waits, name)
			}
		}
	}
	return vs, sortedSet(waits), fault
}

// accept conforms a value to its attribute, and refuses one that the attribute cannot have.
func (a *attrSpec) accept(v cty.Value) (cty.Value, error) {
	v, err := conform(a.kind, v)
	switch {
	case err != nil:
	case a.required && v.IsNull():
		err = errors.New("needed, but null")
	case a.oneOf != nil && v.IsKnown() && !v.IsNull() && !slices.Contains(a.oneOf, v.AsString()):
		err = fmt.Errorf("%q is none of %s", v.AsString(), strings.Join(a.oneOf, ", "))
	}
	return v, err
}

// claim refuses a path or artifact name that an earlier promise of this node makes already.
func (ev *evaluator) claim(p *Promise, i instance, made map[string]instance) error {
	if w, ok := p.Spec.(Want); p.Type == "command" || ok && strings.Contains(w.Place, "${artifact.") {
		return nil // makes a folder, which others may fill too
	}
	for _, what := range p.Makes {
		prev, ok := made[what]
		if !ok { // a partial run does not look at every block
			prev, ok = ev.p.fixed[what]
			ok = ok && prev.b.seq < i.b.seq && ev.presentAt(prev).is == yes
		}
		if ok && prev != i {
			kind, name, _ := strings.Cut(what, ":")
			return fmt.Errorf("%s %q is promised twice: here, and by %s at %s",
				strings.Replace(kind, "file", "path", 1), name, prev.address(), place(prev.b.rng))
		}
		made[what] = i
	}
	return nil
}

// seal computes the hash, last of all.
func (p *Promise) seal() {
	bare := *p
	bare.Why, bare.Hash = "", [32]byte{}
	text, err := json.Marshal(bare)
	if err != nil {
		panic("policies: a promise is not plain data: " + err.Error()) // our own structs
	}
	p.Hash = sha256.Sum256(text)
}

// attrSpec finds the schema of an attribute, also of a nested block.
func (b *block) attrSpec(name string) *attrSpec {
	if outer, inner, ok := strings.Cut(name, "."); ok {
		return b.spec.block(outer).attr(inner)
	}
	return b.spec.attr(name)
}
