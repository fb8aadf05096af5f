package policies

import (
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// NameTime is the changed name that stands for the clock: what to pass to Expand when NextEdge has passed.
const NameTime = "time"

// An expr is one expression of the score with the names that it reads, gathered before the fuel meters
// are built in, behind which HCL no longer shows them.
type expr struct {
	rng    hcl.Range
	x      hclsyntax.Expression // nil: lit is its value, for ever
	lit    cty.Value
	locals []string // read directly, sorted
	// reads holds all outer names two deep, through locals too: "fact.load", "role.parent", "members.web",
	// "node.addr", "tag.x", "time"; "tag" alone where all tags are read. Sorted.
	reads []string
	late  bool // has artifact.* names, which stand literally in the value
}

// A scope says which names may stand in an expression beside fact, node, tag and local.
type scope struct {
	each, late, publisher bool
	role                  bool // role.* and members, count
	shut                  bool // nothing but literals and constant locals: a value known from the text
}

// builtinFacts are gathered by every node.
var builtinFacts = map[string]cty.Type{
	"os": cty.String, "arch": cty.String, "distro": cty.String, "kernel": cty.String, "hostname": cty.String,
	"cpus": cty.Number, "memory_mb": cty.Number, "addresses": cty.List(cty.String), "container": cty.Bool,
	"work_dir": cty.String, "uptime_h": cty.Number,
}

// fixedNames are the attributes of the roots whose names the score does not declare.
var fixedNames = map[string][]string{
	"node":      {"id", "name", "addr"},
	"each":      {"key", "value"},
	"artifact":  {"name", "version", "hash", "publisher"},
	"publisher": {"name"},
}

// expr binds one expression: every name in it is known, or told as an error with a hint.
func (b *binder) expr(x hclsyntax.Expression, sc scope) *expr {
	e := &expr{rng: x.Range()}
	for _, t := range hclsyntax.Variables(x) {
		b.name(e, t, sc)
	}
	b.calls(e, x, sc)
	if e.late && !plainLate(x) {
		b.r.errorf(e.rng, `write it as "${artifact.name}" and nothing more`,
			"artifact.* may only stand as plain interpolation: its value is known when something is placed")
	}
	e.reads = sortedSet(e.reads)
	e.locals = sortedSet(e.locals)
	if v, ok := constant(x, e); ok {
		e.lit = v
		return e
	}
	meterAll(x)
	e.x = x
	return e
}

// name records one reference.
func (b *binder) name(e *expr, t hcl.Traversal, sc scope) {
	root, rng := t.RootName(), t.SourceRange()
	if !b.allowed(root, rng, sc) {
		return
	}
	second, ok := step(t)
	switch {
	case !ok && root == "tag":
		e.reads = append(e.reads, root)
		return
	case !ok && root == "each":
		return
	case !ok:
		b.r.errorf(rng, "name it in the text, such as "+root+".NAME",
			"%s must be followed by a name: who reads what is known from the text", root)
		return
	}
	known := fixedNames[root]
	switch root {
	case "local":
		known = b.localNames
		e.locals = append(e.locals, second)
	case "fact":
		known = b.factNames
	case "role":
		known = b.roleNames
	case "tag":
		known = nil
	}
	if root != "tag" && !slices.Contains(known, second) {
		b.r.errorf(rng, nearest(root+".", second, known), "unknown name %s.%s", root, second)
		return
	}
	switch root {
	case "artifact":
		e.late = true
	case "fact", "role", "tag", "node":
		e.reads = append(e.reads, root+"."+second)
	}
}

// allowed tells whether a root may be read here, and says so if not.
func (b *binder) allowed(root string, rng hcl.Range, sc scope) bool {
	where := ""
	switch root {
	case "local":
		return true
	case "fact", "node", "tag":
		if sc.shut {
			where = "here, where the value must be known from the text"
		}
	case "role":
		if !sc.role {
			where = "here"
		}
	case "each":
		if !sc.each {
			where = "here, but in a promise that has for_each"
		}
	case "artifact":
		if !sc.late {
			where = "here, but in want.place"
		}
	case "publisher":
		if !sc.publisher {
			where = "here, but in the names of allow"
		}
	case "param":
		b.r.errorf(rng, "", "param is not yet supported by this version")
		return false
	default:
		hint := nearest("", root, []string{"local", "fact", "node", "tag", "role", "each", "artifact", "publisher"})
		if root == strings.ToUpper(root) {
			hint = "for a variable of the shell write $${" + root + "}"
		}
		b.r.errorf(rng, hint, "unknown name %q", root)
		return false
	}
	if where != "" {
		b.r.errorf(rng, "", "%s.* cannot be read %s", root, where)
	}
	return where == ""
}

// step returns the name that follows the root of a traversal, as tag.x or tag["x"].
func step(t hcl.Traversal) (string, bool) {
	if len(t) < 2 {
		return "", false
	}
	switch s := t[1].(type) {
	case hcl.TraverseAttr:
		return s.Name, true
	case hcl.TraverseIndex:
		if s.Key.Type() == cty.String {
			return s.Key.AsString(), true
		}
	}
	return "", false
}

// calls checks the functions that an expression calls, and records what the ones of the mesh read.
func (b *binder) calls(e *expr, x hclsyntax.Expression, sc scope) {
	_ = hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		call, ok := n.(*hclsyntax.FunctionCallExpr)
		if !ok {
			return nil
		}
		if !slices.Contains(functionNames, call.Name) {
			b.r.errorf(call.NameRange, nearest("", call.Name, functionNames), "unknown function %q", call.Name)
			return nil
		}
		switch call.Name {
		case "members", "count":
			b.meshCall(e, call, sc)
		case "during":
			b.duringCall(e, call, sc)
		case "read", "template":
			b.fileCall(call)
		}
		return nil
	})
}

func (b *binder) meshCall(e *expr, call *hclsyntax.FunctionCallExpr, sc scope) {
	if !sc.role {
		b.r.errorf(call.NameRange, "", "%s() cannot be called here", call.Name)
		return
	}
	role, ok := literal(call.Args, 0)
	if !ok {
		b.r.errorf(call.Range(), "write the role as "+call.Name+`("NAME")`,
			"the role of %s() must be a literal: the score can be checked as text", call.Name)
		return
	}
	if !slices.Contains(b.roleNames, role) {
		b.r.errorf(call.Args[0].Range(), nearest("", role, b.roleNames), "unknown role %q", role)
		return
	}
	e.reads = append(e.reads, "members."+role)
}

func (b *binder) duringCall(e *expr, call *hclsyntax.FunctionCallExpr, sc scope) {
	if sc.shut {
		b.r.errorf(call.NameRange, "", "during() cannot be called here, where the value must be known from the text")
		return
	}
	span, ok := literal(call.Args, 0)
	zone := ""
	if len(call.Args) > 1 {
		z, known := literal(call.Args, 1)
		zone, ok = z, ok && known
	}
	if !ok {
		b.r.errorf(call.Range(), `such as during("22:00-06:00 Mon-Fri", "Europe/Oslo")`, "during() takes literals only")
		return
	}
	w, err := ParseWindow(span, zone)
	if err != nil {
		b.r.errorf(call.Range(), "", "%s", err.Error())
		return
	}
	b.p.windows = append(b.p.windows, w)
	e.reads = append(e.reads, NameTime)
}

// fileCall checks that a file named in the text is in the bundle; templates are parsed here, once.
func (b *binder) fileCall(call *hclsyntax.FunctionCallExpr) {
	name, ok := literal(call.Args, 0)
	if !ok {
		if call.Name == "template" {
			b.r.errorf(call.Range(), "", "the file of template() must be a literal: it is read when the score is checked")
		}
		return
	}
	src, ok := b.p.data[name]
	if !ok {
		var names []string
		for n := range b.p.data {
			names = append(names, n)
		}
		b.r.errorf(call.Range(), nearest("", name, names), "no file %q in the bundle", name)
		return
	}
	if call.Name == "template" && b.p.templates[name] == nil && guard(src, name, true, &b.r) {
		b.template(name, src)
	}
}

func (b *binder) template(name string, src []byte) {
	x, diags := parseTemplate(src, name)
	b.r.syntax(diags)
	if diags.HasErrors() {
		return
	}
	_ = hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		if call, ok := n.(*hclsyntax.FunctionCallExpr); ok && !slices.Contains(plainFunctionNames, call.Name) {
			b.r.errorf(call.NameRange, "pass the value in vars", "%s() cannot be called in a template file", call.Name)
		}
		return nil
	})
	meterAll(x)
	b.p.templates[name] = x
}

// literal returns argument i when it is a string without names.
func literal(args []hclsyntax.Expression, i int) (string, bool) {
	if i >= len(args) || len(args[i].Variables()) > 0 {
		return "", false
	}
	v, diags := args[i].Value(nil)
	if diags.HasErrors() || v.Type() != cty.String || !v.IsKnown() || v.IsNull() {
		return "", false
	}
	return v.AsString(), true
}

// plainLate reports whether every artifact.* of x is a part of the template itself.
func plainLate(x hclsyntax.Expression) bool {
	all, direct := 0, 0
	for _, t := range hclsyntax.Variables(x) {
		if t.RootName() == "artifact" {
			all++
		}
	}
	parts := []hclsyntax.Expression{x}
	switch tx := x.(type) {
	case *hclsyntax.TemplateExpr:
		parts = tx.Parts
	case *hclsyntax.TemplateWrapExpr:
		parts = []hclsyntax.Expression{tx.Wrapped}
	}
	for _, p := range parts {
		if s, ok := p.(*hclsyntax.ScopeTraversalExpr); ok && s.Traversal.RootName() == "artifact" {
			direct++
		}
	}
	return all == direct
}

// constant evaluates an expression that reads no name, calls no function and loops over nothing.
func constant(x hclsyntax.Expression, e *expr) (cty.Value, bool) {
	if len(e.locals) > 0 || len(e.reads) > 0 || len(hclsyntax.Variables(x)) > 0 {
		return cty.NilVal, false
	}
	simple := true
	_ = hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		switch n.(type) {
		case *hclsyntax.LiteralValueExpr, *hclsyntax.TemplateExpr, *hclsyntax.TupleConsExpr,
			*hclsyntax.ObjectConsExpr, *hclsyntax.ObjectConsKeyExpr, *hclsyntax.ParenthesesExpr,
			*hclsyntax.ScopeTraversalExpr:
		default:
			simple = false
		}
		return nil
	})
	if !simple {
		return cty.NilVal, false
	}
	v, diags := x.Value(nil)
	return v, !diags.HasErrors()
}

// maxCandidates bounds the search for what was meant: it is made for every wrong name.
const maxCandidates = 1000

// nearest says "did you mean", or nothing when no candidate is near, or there are too many.
func nearest(prefix, given string, candidates []string) string {
	if len(candidates) > maxCandidates {
		return ""
	}
	best, found := min(2, max(1, len(given)/3))+1, ""
	for _, c := range slices.Sorted(slices.Values(candidates)) {
		if d := levenshtein.Distance(given, c, nil); d < best {
			best, found = d, c
		}
	}
	if found == "" {
		return ""
	}
	return `did you mean "` + prefix + found + `"?`
}

func sortedSet(names []string) []string {
	slices.Sort(names)
	return slices.Clip(slices.Compact(names))
}
