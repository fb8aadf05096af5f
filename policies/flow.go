package policies

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// glob returns the pattern of all names that an expression can come to: a template's computed parts become *.
func (ev *evaluator) glob(i instance, e *expr) string {
	x := e.x
	if m, ok := x.(metered); ok {
		x = m.Expression
	}
	t, ok := x.(*hclsyntax.TemplateExpr)
	if !ok {
		return "**"
	}
	vars := ev.extra(i, e)
	if len(e.locals) > 0 {
		if local, fault := ev.localObject(e.locals); fault == "" {
			if vars == nil {
				vars = map[string]cty.Value{}
			}
			vars["local"] = local
		}
	}
	ctx := ev.ctx.NewChild()
	ctx.Variables = vars
	ev.fuel.start()
	var b strings.Builder
	for _, part := range t.Parts {
		v, diags := part.Value(ctx)
		if s, err := conform(kindString, v); !diags.HasErrors() && err == nil && s.IsKnown() && !s.IsNull() &&
			s.Type() == cty.String {
			b.WriteString(s.AsString())
			continue
		}
		b.WriteString("*")
	}
	return b.String()
}

// rights refuses artifacts that no role of their part may publish.
func (c *checker) rights() {
	if !c.p.hasAccess {
		return
	}
	for _, o := range c.published {
		roles := c.rolesOf(o.b)
		if !slices.ContainsFunc(c.p.rules, func(r rule) bool {
			return r.right == "publish" && c.names(&r, o.pattern) &&
				(len(roles) == 0 || slices.ContainsFunc(r.roles, func(n string) bool { return slices.Contains(roles, n) }))
		}) {
			who := "no node"
			if o.b.part.role != "" {
				who = fmt.Sprintf("role %q", o.b.part.role)
			}
			if len(roles) > 0 || !c.somebody("publish", o.pattern) {
				c.r.errorf(o.b.rng, `add it to an allow "publish" of access`, "%s promises artifact %q, which %s may not publish",
					o.b.address(), o.pattern, onlyIf(len(roles) > 0, who, "nobody"))
			}
		}
	}
}

func onlyIf(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}

// rolesOf returns the roles that a node which plays a block surely or possibly holds: the part's, and
// those that the conditions read.
func (c *checker) rolesOf(b *block) []string {
	if b.part.role == "" {
		return nil
	}
	roles := []string{b.part.role}
	for _, e := range []*expr{b.part.attrs["when"], b.attrs["when"], c.p.roles[b.part.role].when} {
		if e != nil {
			roles = append(roles, rolesIn(e.reads)...)
		}
	}
	return roles
}

// names reports whether a rule names some artifact of a pattern, whoever publishes it.
func (c *checker) names(r *rule, pattern string) bool {
	// The publisher's name is unknown here: a name that it cannot be, where it stands, becomes a *.
	const somebody = "x--somebody--x"
	for _, name := range c.p.patterns(c.ev, r, somebody) {
		if meet(strings.ReplaceAll(name, somebody, "*"), pattern) {
			return true
		}
	}
	return false
}

func (c *checker) somebody(right, pattern string) bool {
	return slices.ContainsFunc(c.p.rules, func(r rule) bool { return r.right == right && c.names(&r, pattern) })
}

// flow warns of wants that nobody serves and artifacts that nobody can have, and keeps who gives what to whom.
func (c *checker) flow() {
	seen := map[Edge]bool{}
	add := func(e Edge) {
		if !seen[e] {
			seen[e] = true
			c.p.edges = append(c.p.edges, e)
		}
	}
	taken := make([]bool, len(c.published))
	for _, w := range c.wanted {
		from := ""
		if e := w.b.attrs["from"]; e != nil {
			from = c.roleName(c.ev, e)
		}
		served := false
		for i, o := range c.published {
			if !meet(o.pattern, w.pattern) || from != "" && o.b.part.role != from && o.b.part.role != "" {
				continue
			}
			served, taken[i] = true, true
			add(Edge{FromRole: everyNode(o.b.part.role), Artifact: c.shownName(o), ToRole: everyNode(w.b.part.role)})
		}
		if !served {
			hint := "a node may publish it by hand"
			if from != "" {
				hint = fmt.Sprintf("role %q must leave it, or a node of it by hand", from)
			}
			c.r.warnf(w.b.rng, hint, "%s wants %q, which no part publishes", w.b.address(), w.pattern)
			add(Edge{Artifact: c.shownName(w), ToRole: everyNode(w.b.part.role)})
		}
	}
	told := map[*block]bool{}
	for i, o := range c.published {
		if taken[i] {
			continue
		}
		add(Edge{FromRole: everyNode(o.b.part.role), Artifact: c.shownName(o)})
		if c.p.hasAccess && !told[o.b] && !c.somebody("pull", o.pattern) {
			told[o.b] = true
			c.r.warnf(o.b.rng, "", "%s leaves %q, which nobody wants and nobody may pull", o.b.address(), o.pattern)
		}
	}
	slices.SortStableFunc(c.p.edges, func(x, y Edge) int { return cmp.Compare(x.Artifact, y.Artifact) })
}

// shownName is the name for people: one pattern for a block with many keys.
func (c *checker) shownName(o offer) string {
	e := o.b.attrs["name"]
	if e == nil || e.x == nil || o.b.attrs["for_each"] == nil {
		return o.pattern
	}
	unkeyed := *o.b
	unkeyed.attrs = map[string]*expr{"for_each": o.b.attrs["for_each"]}
	c.ev.keys[&unkeyed] = &keyset{is: presence{is: maybe}}
	return c.ev.glob(instance{b: &unkeyed}, e)
}

func everyNode(role string) string { return cmp.Or(role, "*") }

// Graph returns who leaves which artifact for whom, from the text alone, sorted by artifact.
func (p *Program) Graph() []Edge { return slices.Clone(p.edges) }

// Story tells the score as prose, from the text alone: who leaves what, who picks it up, and why there are
// the parts that there are.
func (p *Program) Story() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", p.score.Name, p.score.Version)
	if p.score.Why != "" {
		fmt.Fprintf(&b, ": %s", p.score.Why)
	}
	b.WriteString(".\n\n")
	for _, e := range p.edges {
		from, to := actor(e.FromRole), actor(e.ToRole)
		switch {
		case e.FromRole == "":
			fmt.Fprintf(&b, "%s waits for `%s`, which no part leaves.\n", to, e.Artifact)
		case e.ToRole == "":
			fmt.Fprintf(&b, "%s leaves `%s` for whoever comes.\n", from, e.Artifact)
		default:
			fmt.Fprintf(&b, "%s leaves `%s`; %s picks it up.\n", from, e.Artifact, strings.ToLower(to[:1])+to[1:])
		}
	}
	if len(p.edges) > 0 {
		b.WriteString("\n")
	}
	for _, part := range p.parts {
		fmt.Fprintf(&b, "%s plays %s", actor(everyNode(part.role)), part.name)
		if part.why != "" {
			fmt.Fprintf(&b, ": %s", part.why)
		}
		b.WriteString(".\n")
		for _, blk := range p.blocks {
			if e := blk.attrs["why"]; blk.part == part && e != nil && e.x == nil && e.lit.Type() == cty.String && !e.lit.IsNull() {
				fmt.Fprintf(&b, "  %s %s: %s.\n", blk.typ, blk.name, e.lit.AsString())
			}
		}
	}
	return b.String()
}

func actor(role string) string {
	if role == "*" {
		return "Every node"
	}
	return "The role *" + role + "*"
}
