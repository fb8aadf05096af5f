package policies

import (
	"maps"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// language is the version of the language that this package reads.
const language = 1

// maxChainLen bounds how many locals, roles or promises may read one another in a row: evaluation recurses.
const maxChainLen = 500

// link joins what binding found: locals, roles and promises that name one another; values known from the
// text; and the index of who reads what.
func (b *binder) link() {
	b.p.factNames = b.factNames
	maps.Copy(b.p.factTypes, builtinFacts)
	b.linkLocals()
	b.linkRoles()
	b.tags()
	if b.r.found.HasErrors() {
		return // nothing can be evaluated before
	}
	ev := newEvaluator(b.p, Env{})
	b.linkScore(ev)
	b.linkFacts(ev)
	b.linkAccess(ev)
	for _, r := range b.p.roleOrder {
		rl := b.p.roles[r]
		rl.why = b.fixedText(ev, rl.attrs["why"], kindString, "")
		rl.hold, _ = parseDuration(b.fixedText(ev, rl.attrs["hold"], kindDuration, "0s"))
	}
	for _, p := range b.p.parts {
		p.why = b.partWhy(ev, p)
		p.role = b.roleName(ev, p.attrs["role"])
	}
	b.linkBlocks()
	if !b.r.found.HasErrors() {
		b.linkReads()
	}
}

// cycle walks a graph and tells the first way back to itself, or a chain that is too long. It returns the
// nodes in an order in which each stands after all that it reads.
func cycle(nodes []string, reads func(string) []string) (order, loop []string) {
	const open, done = 1, 2
	state := map[string]int{}
	var stack []string
	var visit func(n string) bool
	visit = func(n string) bool {
		stack = append(stack, n)
		if state[n] == open || len(stack) > maxChainLen {
			loop = slices.Clone(stack[max(0, slices.Index(stack, n)):])
			return false
		}
		if state[n] == 0 {
			state[n] = open
			for _, m := range reads(n) {
				if !visit(m) {
					return false
				}
			}
			state[n] = done
			order = append(order, n)
		}
		stack = stack[:len(stack)-1]
		return true
	}
	for _, n := range nodes {
		if !visit(n) {
			return nil, loop
		}
	}
	return order, nil
}

func (b *binder) tellLoop(what string, rng hcl.Range, loop []string) {
	if len(loop) > 0 && slices.Index(loop, loop[len(loop)-1]) < len(loop)-1 {
		b.r.errorf(rng, "", "%s in a circle: %s", what, strings.Join(loop, " -> "))
		return
	}
	b.r.errorf(rng, "", "%s in a chain longer than the limit of %d", what, maxChainLen)
}

// linkLocals orders the locals and gives each the names that it reads through others.
func (b *binder) linkLocals() {
	order, loop := cycle(slices.Sorted(slices.Values(b.localNames)), func(n string) []string {
		return b.p.locals[n].locals
	})
	if loop != nil {
		b.tellLoop("locals read one another", b.localRanges[loop[len(loop)-1]], loop)
		return
	}
	for _, n := range order {
		b.through(b.p.locals[n])
	}
	for _, r := range b.p.roles {
		b.through(r.when)
	}
	for _, p := range b.p.parts {
		for _, e := range p.attrs {
			b.through(e)
		}
	}
	for _, blk := range b.p.blocks {
		for _, e := range blk.attrs {
			b.through(e)
		}
	}
}

// through adds to an expression what its locals read; theirs must be whole.
func (b *binder) through(e *expr) {
	if len(e.locals) == 0 {
		return
	}
	reads := slices.Clone(e.reads)
	for _, l := range e.locals {
		reads = append(reads, b.p.locals[l].reads...)
	}
	e.reads = sortedSet(reads)
}

// linkRoles orders the roles. A role that counts the members of another hangs on it too.
func (b *binder) linkRoles() {
	order, loop := cycle(b.roleNames, func(n string) []string { return rolesIn(b.p.roles[n].when.reads) })
	if loop != nil {
		b.tellLoop("roles read one another", b.p.roles[loop[len(loop)-1]].rng, loop)
		return
	}
	b.p.roleOrder = order
}

// rolesIn returns the roles among names two deep.
func rolesIn(reads []string) []string {
	var out []string
	for _, name := range reads {
		if r, ok := strings.CutPrefix(name, "role."); ok {
			out = append(out, r)
		} else if r, ok := strings.CutPrefix(name, "members."); ok {
			out = append(out, r)
		}
	}
	return out
}

// tags collects the tags that anything reads: an absent one is "".
func (b *binder) tags() {
	add := func(e *expr) {
		for _, name := range e.reads {
			if tag, ok := strings.CutPrefix(name, "tag."); ok {
				b.p.tagNames = append(b.p.tagNames, tag)
			}
		}
	}
	for _, e := range b.p.locals {
		add(e)
	}
	for _, r := range b.p.roles {
		add(r.when)
	}
	for _, p := range b.p.parts {
		for _, e := range p.attrs {
			add(e)
		}
	}
	for _, blk := range b.p.blocks {
		for _, e := range blk.attrs {
			add(e)
		}
	}
	b.p.tagNames = sortedSet(b.p.tagNames)
}

// fixed evaluates an expression whose value must be known from the text.
func (b *binder) fixed(ev *evaluator, e *expr, k kind) (cty.Value, bool) {
	res := ev.value(e, nil)
	if res.fault != "" {
		b.r.errorf(e.rng, "", "%s", strings.TrimPrefix(res.fault, place(e.rng)+": "))
		return cty.NilVal, false
	}
	v, err := conform(k, res.v)
	if err != nil {
		b.r.errorf(e.rng, "", "%s", err.Error())
		return cty.NilVal, false
	}
	if !v.IsWhollyKnown() || v.IsNull() {
		b.r.errorf(e.rng, "use literals, and locals that read no fact, tag or node",
			"the value must be known from the text")
		return cty.NilVal, false
	}
	return v, true
}

func (b *binder) fixedText(ev *evaluator, e *expr, k kind, missing string) string {
	if e == nil {
		return missing
	}
	v, ok := b.fixed(ev, e, k)
	if !ok {
		return missing
	}
	return v.AsString()
}

func (b *binder) partWhy(ev *evaluator, p *part) string {
	e := p.attrs["why"]
	if e == nil {
		return ""
	}
	return b.fixedText(ev, e, kindString, "")
}

// roleName reads the name of a role, "" when none is said.
func (b *binder) roleName(ev *evaluator, e *expr) string {
	if e == nil {
		return ""
	}
	name := b.fixedText(ev, e, kindString, "")
	if name != "" && b.p.roles[name] == nil {
		b.r.errorf(e.rng, nearest("", name, b.roleNames), "unknown role %q", name)
	}
	return name
}

func (b *binder) linkScore(ev *evaluator) {
	s := &b.p.score
	if e := b.scoreAttrs["version"]; e != nil {
		s.Version = b.fixedText(ev, e, kindString, "")
		if _, err := semver.StrictNewVersion(s.Version); s.Version != "" && err != nil {
			b.r.errorf(e.rng, "such as 1.0.0", "version %.80q is no semver", s.Version)
		}
	}
	if e := b.scoreAttrs["language"]; e != nil {
		if v, ok := b.fixed(ev, e, kindInt); ok {
			if n, _ := whole(v); n != language {
				b.r.errorf(e.rng, "update meshd", "language %d is unknown: this version reads language %d", n, language)
			}
		}
	}
	spec := topBlocks.block("score")
	s.Why = b.fixedText(ev, b.scoreAttrs["why"], kindString, "")
	s.Every, _ = parseDuration(b.fixedText(ev, b.scoreAttrs["every"], kindDuration, spec.attr("every").def))
	s.Jitter, _ = parsePercent(b.fixedText(ev, b.scoreAttrs["jitter"], kindPercent, spec.attr("jitter").def))
	if s.Every == 0 && b.scoreAttrs["every"] != nil {
		b.r.errorf(b.scoreAttrs["every"].rng, "", "every must be above 0s")
	}
}

func (b *binder) linkFacts(ev *evaluator) {
	types := map[string]cty.Type{
		"string": cty.String, "lines": cty.List(cty.String), "number": cty.Number, "bool": cty.Bool,
		"json": cty.DynamicPseudoType,
	}
	spec := topBlocks.block("fact")
	for _, fb := range b.factBlocks {
		f := Fact{Name: fb.name, Parse: b.fixedText(ev, fb.attrs["parse"], kindString, spec.attr("parse").def)}
		t, ok := types[f.Parse]
		if !ok {
			b.r.errorf(fb.attrs["parse"].rng, nearest("", f.Parse, spec.attr("parse").oneOf),
				"parse %q is none of %s", f.Parse, strings.Join(spec.attr("parse").oneOf, ", "))
		}
		b.p.factTypes[f.Name] = t
		if v, ok := b.fixed(ev, fb.attrs["command"], kindStrings); ok {
			f.Command = values{spec: spec, attrs: map[string]cty.Value{"command": v}}.strs("command")
			if len(f.Command) == 0 || f.Command[0] == "" {
				b.r.errorf(fb.attrs["command"].rng, "", "command is empty")
			}
		}
		f.Every, _ = parseDuration(b.fixedText(ev, fb.attrs["every"], kindDuration, spec.attr("every").def))
		f.Timeout, _ = parseDuration(b.fixedText(ev, fb.attrs["timeout"], kindDuration, spec.attr("timeout").def))
		if f.Every == 0 || f.Timeout == 0 {
			b.r.errorf(fb.rng, "", "every and timeout of fact %q must be above 0s", f.Name)
		}
		if e := fb.attrs["public"]; e != nil {
			if v, ok := b.fixed(ev, e, kindBool); ok {
				f.Public = v.True()
			}
		}
		if e := fb.attrs["default"]; e != nil {
			f.Default, _ = b.fixed(ev, e, kindAny)
		}
		b.p.facts = append(b.p.facts, f)
	}
}

func (b *binder) linkAccess(ev *evaluator) {
	for i := range b.p.rules {
		r := &b.p.rules[i]
		v, ok := b.fixed(ev, r.given, kindRoles)
		if !ok {
			continue
		}
		for _, e := range v.AsValueSlice() {
			name := e.AsString()
			if b.p.roles[name] == nil {
				b.r.errorf(r.given.rng, nearest("", name, b.roleNames), "unknown role %q", name)
				continue
			}
			r.roles = append(r.roles, name)
		}
		for _, pattern := range b.p.patterns(ev, r, "x") {
			if err := checkPattern(pattern, true); err != nil {
				b.r.errorf(r.names.rng, "", "%s", err.Error())
			}
		}
		if res := ev.value(r.names, publisherVar("x")); !res.known() {
			b.r.errorf(r.names.rng, "use literals, publisher.name and locals that read no fact, tag or node",
				"the names must be known from the text")
		} else if _, err := conform(kindStrings, res.v); err != nil {
			b.r.errorf(r.names.rng, "", "names: %s", err.Error())
		}
	}
}

// linkBlocks finds the promises that others name, and refuses circles.
func (b *binder) linkBlocks() {
	for _, blk := range b.p.blocks {
		for _, kind := range slices.Sorted(maps.Keys(blk.raw)) {
			for _, r := range blk.raw[kind] {
				b.linkRef(blk, kind, r)
			}
		}
		blk.needs = slices.Concat(blk.refs["needs"], blk.refs["restart_on"])
	}
	nodes := make([]string, len(b.p.blocks))
	for i, blk := range b.p.blocks {
		nodes[i] = string(blk.address())
	}
	order, loop := cycle(nodes, func(n string) []string {
		var out []string
		for _, m := range b.blocks[Address(n)].needs {
			out = append(out, string(m.address()))
		}
		return out
	})
	if loop != nil {
		b.tellLoop("promises need one another", b.blocks[Address(loop[len(loop)-1])].rng, loop)
		return
	}
	for _, n := range order {
		b.presence(b.blocks[Address(n)])
	}
}

func (b *binder) linkRef(blk *block, kind string, r ref) {
	addr := Address(r.part + "." + r.typ + "." + r.name)
	target := b.blocks[addr]
	switch {
	case target == nil:
		var known []string
		for _, other := range b.p.blocks {
			if other.part.name == blk.part.name && r.part == blk.part.name {
				known = append(known, other.typ+"."+other.name)
			} else if r.part != blk.part.name {
				known = append(known, "part."+string(other.address()))
			}
		}
		given := r.typ + "." + r.name
		if r.part != blk.part.name {
			given = "part." + string(addr)
		}
		b.r.errorf(r.rng, nearest("", given, known), "%s of %s names %s, which does not exist", kind, blk.address(), given)
	case kind == "of" && target.typ != "want":
		b.r.errorf(r.rng, "", "of takes wants, not a %s", target.typ)
	default:
		blk.refs[kind] = append(blk.refs[kind], target)
	}
}

// presence collects the names on which the instances of a block themselves depend; those of what it
// needs must be collected already.
func (b *binder) presence(blk *block) {
	var names []string
	for _, e := range blk.part.attrs {
		names = append(names, e.reads...)
	}
	if blk.part.role != "" {
		names = append(names, "role."+blk.part.role)
	}
	for _, attr := range slices.Concat([]string{"when", "for_each"}, inputAttrs[blk.typ], outputAttrs[blk.typ]) {
		if e := blk.attrs[attr]; e != nil {
			names = append(names, e.reads...)
		}
	}
	for _, needed := range blk.needs {
		names = append(names, needed.presence...)
	}
	blk.presence = sortedSet(names)
}

// linkReads builds the index. Needs of the kinds that do not wait have addresses too.
func (b *binder) linkReads() {
	for i, blk := range b.p.blocks {
		names := slices.Clone(blk.presence)
		for _, e := range blk.attrs {
			names = append(names, e.reads...)
		}
		for _, named := range slices.Concat(blk.refs["on"], blk.refs["of"]) {
			names = append(names, named.presence...)
		}
		blk.reads = sortedSet(names)
		for _, name := range blk.reads {
			b.p.index[name] = append(b.p.index[name], i)
		}
	}
}
