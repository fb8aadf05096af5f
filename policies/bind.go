package policies

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// A role is one role block.
type role struct {
	name   string
	rng    hcl.Range
	when   *expr
	reason *reason
	attrs  map[string]*expr
	why    string
	hold   time.Duration
}

// A part is one part block.
type part struct {
	name  string
	rng   hcl.Range
	attrs map[string]*expr
	role  string // "": every node
	why   string
}

// A block is one promise block, bound to its schema.
type block struct {
	typ, name string
	part      *part
	rng       hcl.Range
	seq       int // place in the score
	spec      *blockSpec
	attrs     map[string]*expr // those of nested blocks as "lines.present"
	names     []string         // of attrs, but for_each and when, sorted
	nested    map[string]bool
	refs      map[string][]*block // "needs", "on", "restart_on", "of"
	raw       map[string][]ref
	needs     []*block // needs and restart_on, which wait
	presence  []string // names on which the instances themselves depend, through needs too
	reads     []string // all names on which its group depends
}

func (b *block) address() Address {
	return Address(b.part.name + "." + b.typ + "." + b.name)
}

// A ref is a promise block as named in needs.
type ref struct {
	part, typ, name string
	rng             hcl.Range
}

// A rule is one allow block.
type rule struct {
	right string
	names *expr // read again for each publisher: may hold publisher.name
	given *expr // of roles
	roles []string
	rng   hcl.Range
}

// binder holds what binding knows; it belongs to one compile.
type binder struct {
	p       *Program
	r       report
	sources map[string][]byte

	localNames, factNames, roleNames []string

	localRanges map[string]hcl.Range
	roleBlocks  map[string]*role
	partBlocks  map[string]*part
	blocks      map[Address]*block
	scoreAttrs  map[string]*expr
	scoreRange  hcl.Range
	factBlocks  []factBlock
	accessNames map[string]hcl.Range
}

type factBlock struct {
	name  string
	rng   hcl.Range
	attrs map[string]*expr
}

func newBinder(files map[string][]byte) *binder {
	return &binder{
		p: &Program{
			score: Score{Hash: bundleHash(files)}, data: map[string][]byte{},
			templates: map[string]hclsyntax.Expression{}, locals: map[string]*expr{}, roles: map[string]*role{},
			factTypes: map[string]cty.Type{}, index: map[string][]int{}, fixed: map[string]instance{},
		},
		sources: map[string][]byte{}, localRanges: map[string]hcl.Range{}, roleBlocks: map[string]*role{},
		partBlocks: map[string]*part{}, blocks: map[Address]*block{}, accessNames: map[string]hcl.Range{},
	}
}

// bind declares every name first, so that a score may be written in any order, then binds each block.
func (b *binder) bind(bodies []*hclsyntax.Body) {
	var all hclsyntax.Blocks
	for _, body := range bodies {
		for _, a := range sortedAttrs(body) {
			b.r.errorf(a.NameRange, "", "unknown attribute %q at the top of the file: only blocks stand here", a.Name)
		}
		all = append(all, body.Blocks...)
	}
	var known hclsyntax.Blocks
	for _, blk := range all {
		if spec := b.header(blk, &topBlocks, "at the top of the file"); spec != nil {
			known = append(known, blk)
			b.declare(blk)
		}
	}
	for f := range builtinFacts {
		b.factNames = append(b.factNames, f)
	}
	slices.Sort(b.factNames)
	for _, blk := range known {
		b.top(blk, topBlocks.block(blk.Type))
	}
	if b.scoreAttrs == nil && !b.r.found.HasErrors() {
		b.r.errorf(hcl.Range{}, `write one: score "NAME" { version = "1.0.0" }`, "no score block")
	}
}

// header checks a block's type and labels.
func (b *binder) header(blk *hclsyntax.Block, in *blockSpec, where string) *blockSpec {
	spec := in.block(blk.Type)
	if spec == nil {
		var names []string
		for _, s := range in.blocks {
			names = append(names, s.name)
		}
		b.r.errorf(blk.TypeRange, nearest("", blk.Type, names), "unknown block %q %s", blk.Type, where)
		return nil
	}
	if spec.later {
		b.r.errorf(blk.TypeRange, "take the block out", "%s is not yet supported by this version", blk.Type)
		return nil
	}
	if len(blk.Labels) != spec.labels {
		b.r.errorf(blk.TypeRange, "", "%s takes %d label(s), not %d", blk.Type, spec.labels, len(blk.Labels))
		return nil
	}
	for i, l := range blk.Labels {
		if !hclsyntax.ValidIdentifier(l) || len(l) > 128 {
			b.r.errorf(blk.LabelRanges[i], "letters, digits, - and _, a letter first",
				"%.140q cannot be the name of a %s", l, blk.Type)
			return nil
		}
	}
	return spec
}

// declare records the names that expressions may use.
func (b *binder) declare(blk *hclsyntax.Block) {
	switch blk.Type {
	case "locals":
		for _, a := range sortedAttrs(blk.Body) {
			b.once(b.localRanges, "local", a.Name, a.NameRange)
			b.localNames = append(b.localNames, a.Name)
		}
	case "fact":
		if _, builtin := builtinFacts[blk.Labels[0]]; builtin || slices.Contains(b.factNames, blk.Labels[0]) {
			b.r.errorf(blk.LabelRanges[0], "take another name", "fact %q exists already", blk.Labels[0])
		}
		b.factNames = append(b.factNames, blk.Labels[0])
	case "role":
		if prev := b.roleBlocks[blk.Labels[0]]; prev != nil {
			b.twice("role", blk.Labels[0], blk.LabelRanges[0], prev.rng)
		}
		b.roleBlocks[blk.Labels[0]] = &role{name: blk.Labels[0], rng: blk.LabelRanges[0]}
		b.roleNames = append(b.roleNames, blk.Labels[0])
	}
}

func (b *binder) once(seen map[string]hcl.Range, what, name string, rng hcl.Range) {
	if prev, ok := seen[name]; ok {
		b.twice(what, name, rng, prev)
		return
	}
	seen[name] = rng
}

func (b *binder) twice(what, name string, rng, prev hcl.Range) {
	b.r.errorf(rng, "", "%s %q is there twice, first at %s", what, name, place(prev))
}

func place(rng hcl.Range) string {
	return fmt.Sprintf("%s:%d:%d", rng.Filename, rng.Start.Line, rng.Start.Column)
}

// top binds one block of the top.
func (b *binder) top(blk *hclsyntax.Block, spec *blockSpec) {
	shut := scope{shut: true}
	switch blk.Type {
	case "score":
		if b.scoreAttrs != nil {
			b.twice("score", blk.Labels[0], blk.TypeRange, b.scoreRange)
			return
		}
		b.scoreRange = blk.TypeRange
		b.p.score.Name = blk.Labels[0]
		b.scoreAttrs = b.attrs(blk, spec, func(string) scope { return shut })
	case "locals":
		for _, nested := range blk.Body.Blocks {
			b.r.errorf(nested.TypeRange, "", "locals holds no blocks")
		}
		for _, a := range sortedAttrs(blk.Body) {
			b.p.locals[a.Name] = b.expr(a.Expr, scope{})
		}
	case "fact":
		attrs := b.attrs(blk, spec, func(string) scope { return shut })
		b.factBlocks = append(b.factBlocks, factBlock{name: blk.Labels[0], rng: blk.LabelRanges[0], attrs: attrs})
	case "role":
		b.role(blk, spec)
	case "part":
		b.part(blk, spec)
	case "access":
		b.access(blk, spec)
	}
}

func (b *binder) role(blk *hclsyntax.Block, spec *blockSpec) {
	r := b.roleBlocks[blk.Labels[0]]
	if r.attrs != nil {
		return // told as a double
	}
	if a := blk.Body.Attributes["when"]; a != nil {
		r.reason = reasonOf(a.Expr, b.sources[blk.TypeRange.Filename])
	}
	r.attrs = b.attrs(blk, spec, func(attr string) scope {
		if attr == "when" {
			return scope{role: true}
		}
		return scope{shut: true}
	})
	if r.when = r.attrs["when"]; r.when == nil {
		r.when = &expr{rng: blk.TypeRange, lit: cty.False} // told as missing
	}
	if r.reason != nil {
		r.reason.whole = r.when
	}
	b.p.roles[r.name] = r
}

func (b *binder) part(blk *hclsyntax.Block, spec *blockSpec) {
	p := &part{name: blk.Labels[0], rng: blk.LabelRanges[0]}
	if prev := b.partBlocks[p.name]; prev != nil {
		b.twice("part", p.name, p.rng, prev.rng)
		return
	}
	b.partBlocks[p.name] = p
	p.attrs = b.attrs(blk, spec, func(attr string) scope {
		if attr == "when" {
			return scope{role: true}
		}
		return scope{shut: true}
	})
	b.p.parts = append(b.p.parts, p)
	for _, nested := range blk.Body.Blocks {
		if s := b.header(nested, spec, "in part "+p.name); s != nil {
			b.promise(p, nested, s)
		}
	}
}

func (b *binder) promise(p *part, blk *hclsyntax.Block, spec *blockSpec) {
	pb := &block{
		typ: blk.Type, name: blk.Labels[0], part: p, rng: blk.TypeRange, spec: spec,
		seq: len(b.p.blocks), raw: map[string][]ref{}, refs: map[string][]*block{},
	}
	if prev := b.blocks[pb.address()]; prev != nil {
		b.twice("promise", string(pb.address()), pb.rng, prev.rng)
		return
	}
	for _, name := range []string{"needs", "on", "restart_on", "of"} {
		if a := blk.Body.Attributes[name]; a != nil && spec.attr(name) != nil {
			pb.raw[name] = b.references(a.Expr, p.name)
		}
	}
	_, keyed := blk.Body.Attributes["for_each"]
	scopes := func(attr string) scope {
		sc := scope{role: true, each: keyed && attr != "for_each"}
		if spec.attr(attr) != nil && spec.attr(attr).kind == kindRole {
			sc = scope{shut: true}
		}
		sc.late = spec.name == "want" && attr == "place"
		return sc
	}
	pb.attrs = b.attrs(blk, spec, scopes)
	pb.nested = b.nestedBlocks(blk, pb, scopes)
	for name := range pb.attrs {
		if name != "for_each" && name != "when" {
			pb.names = append(pb.names, name)
		}
	}
	slices.Sort(pb.names)
	b.clashes(pb, blk)
	b.blocks[pb.address()] = pb
	b.p.blocks = append(b.p.blocks, pb)
}

// nestedBlocks binds lines, check and their like into dotted attributes.
func (b *binder) nestedBlocks(blk *hclsyntax.Block, pb *block, scopes func(string) scope) map[string]bool {
	var seen map[string]bool
	for _, nested := range blk.Body.Blocks {
		spec := b.header(nested, pb.spec, "in "+blk.Type)
		if spec == nil {
			continue
		}
		if seen[nested.Type] {
			b.r.errorf(nested.TypeRange, "", "%s stands twice in %s", nested.Type, pb.address())
			continue
		}
		if seen == nil {
			seen = map[string]bool{}
		}
		seen[nested.Type] = true
		attrs := b.attrs(nested, spec, scopes)
		for name, e := range attrs {
			pb.attrs[nested.Type+"."+name] = e
		}
		for _, inner := range nested.Body.Blocks {
			b.r.errorf(inner.TypeRange, "", "%s holds no blocks", nested.Type)
		}
		b.clash(spec, nested.TypeRange, func(name string) bool { return attrs[name] != nil })
	}
	return seen
}

func (b *binder) clashes(pb *block, blk *hclsyntax.Block) {
	b.clash(pb.spec, blk.TypeRange, func(name string) bool { return pb.attrs[name] != nil || pb.nested[name] })
	if pb.typ == "command" && pb.attrs["run"] == nil && pb.attrs["shell"] == nil {
		b.r.errorf(blk.TypeRange, `say run = ["PROGRAM", "ARGUMENT"]`, "command needs run or shell")
	}
	if pb.nested["check"] && pb.attrs["check.run"] == nil && pb.attrs["check.http"] == nil && pb.attrs["check.tcp"] == nil {
		b.r.errorf(blk.TypeRange, "", "check needs run, http or tcp")
	}
}

func (b *binder) clash(spec *blockSpec, rng hcl.Range, has func(string) bool) {
	for _, group := range spec.clash {
		var there []string
		for _, name := range group {
			if has(name) {
				there = append(there, name)
			}
		}
		if len(there) > 1 {
			b.r.errorf(rng, "keep one of them", "%s of %s clash", strings.Join(there, " and "), spec.name)
		}
	}
}

// attrs binds the attributes of a block by its schema.
func (b *binder) attrs(blk *hclsyntax.Block, spec *blockSpec, scopes func(string) scope) map[string]*expr {
	out := map[string]*expr{}
	for _, a := range sortedAttrs(blk.Body) {
		as := spec.attr(a.Name)
		switch {
		case as == nil && spec.block(a.Name) != nil:
			b.r.errorf(a.NameRange, "write "+a.Name+" { ... } without =", "%s is a block", a.Name)
		case as == nil:
			b.r.errorf(a.NameRange, nearest("", a.Name, spec.names()), "unknown attribute %q in %s", a.Name, spec.name)
		case as.later:
			b.r.errorf(a.NameRange, "take the attribute out", "%s of %s is not yet supported by this version",
				a.Name, spec.name)
		case as.kind == kindRefs:
		default:
			e := b.expr(a.Expr, scopes(a.Name))
			out[a.Name] = e
			if e.x == nil && (as.kind == kindRole || as.kind == kindRoles) {
				b.knownRoles(e)
			}
		}
	}
	for i := range spec.attrs {
		if as := &spec.attrs[i]; as.required && blk.Body.Attributes[as.name] == nil {
			b.r.errorf(blk.TypeRange, as.doc, "%s needs the attribute %q", strings.Join(append([]string{blk.Type},
				blk.Labels...), " "), as.name)
		}
	}
	return out
}

// knownRoles checks literal names of roles early, so that they are told with all other unknown names.
func (b *binder) knownRoles(e *expr) {
	list := []cty.Value{e.lit}
	if e.lit.CanIterateElements() {
		list = e.lit.AsValueSlice()
	}
	for _, v := range list {
		if v.Type() == cty.String && !v.IsNull() && b.roleBlocks[v.AsString()] == nil {
			b.r.errorf(e.rng, nearest("", v.AsString(), b.roleNames), "unknown role %q", v.AsString())
		}
	}
}

// references reads needs and its like: a list of TYPE.NAME and part.PART.TYPE.NAME.
func (b *binder) references(x hclsyntax.Expression, own string) []ref {
	list, ok := x.(*hclsyntax.TupleConsExpr)
	if !ok {
		b.r.errorf(x.Range(), "such as [file.feed]", "a list of promises is written out in the text")
		return nil
	}
	var out []ref
	for _, item := range list.Exprs {
		t, ok := item.(*hclsyntax.ScopeTraversalExpr)
		if !ok {
			b.r.errorf(item.Range(), "write TYPE.NAME or part.PART.TYPE.NAME", "not the name of a promise")
			continue
		}
		words := []string{t.Traversal.RootName()}
		for _, s := range t.Traversal[1:] {
			if attr, ok := s.(hcl.TraverseAttr); ok {
				words = append(words, attr.Name)
			}
		}
		switch {
		case len(words) == len(t.Traversal) && len(words) == 2:
			out = append(out, ref{part: own, typ: words[0], name: words[1], rng: item.Range()})
		case len(words) == len(t.Traversal) && len(words) == 4 && words[0] == "part":
			out = append(out, ref{part: words[1], typ: words[2], name: words[3], rng: item.Range()})
		default:
			b.r.errorf(item.Range(), "write TYPE.NAME or part.PART.TYPE.NAME", "not the name of a promise")
		}
	}
	return out
}

func (b *binder) access(blk *hclsyntax.Block, spec *blockSpec) {
	b.once(b.accessNames, "access", blk.Labels[0], blk.LabelRanges[0])
	b.attrs(blk, spec, func(string) scope { return scope{shut: true} })
	b.p.hasAccess = true
	for _, nested := range blk.Body.Blocks {
		s := b.header(nested, spec, "in access")
		if s == nil {
			continue
		}
		right := nested.Labels[0]
		if rights := []string{"publish", "pull", "admit"}; !slices.Contains(rights, right) {
			b.r.errorf(nested.LabelRanges[0], nearest("", right, rights), "unknown right %q", right)
			continue
		}
		attrs := b.attrs(nested, s, func(attr string) scope { return scope{shut: true, publisher: attr == "names"} })
		if attrs["names"] != nil && attrs["roles"] != nil {
			b.p.rules = append(b.p.rules, rule{right: right, names: attrs["names"], given: attrs["roles"], rng: nested.TypeRange})
		}
	}
}

func sortedAttrs(body *hclsyntax.Body) []*hclsyntax.Attribute {
	return slices.SortedFunc(maps.Values(body.Attributes), func(x, y *hclsyntax.Attribute) int {
		return cmp.Compare(x.SrcRange.Start.Byte, y.SrcRange.Start.Byte)
	})
}
