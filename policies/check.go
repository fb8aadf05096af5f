package policies

import (
	"fmt"
	"path"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// A made thing is a path or artifact name that a promise makes, as far as the text tells.
type madeBy struct {
	i    instance
	sure bool // neither its part nor the promise has a condition beside the role
}

// checker plays the score on a node of which nothing is known, and tells what is wrong whatever node it is.
type checker struct {
	*binder
	ev   *evaluator
	made map[string][]madeBy

	published []offer // artifacts
	wanted    []offer // wants
}

// An offer is the name of an artifact or the pattern of a want, as far as the text tells.
type offer struct {
	b       *block
	pattern string
}

// check is the last stage: everything that needs a bound and linked score.
func (b *binder) check() {
	c := &checker{binder: b, ev: newEvaluator(b.p, Env{}), made: map[string][]madeBy{}}
	for _, name := range b.p.roleOrder {
		c.condition("role "+name, b.p.roles[name].when)
	}
	for _, p := range b.p.parts {
		if e := p.attrs["when"]; e != nil {
			c.condition("part "+p.name, e)
		}
		c.reach(p)
	}
	c.attestedRoles()
	instances := 0
	for _, blk := range b.p.blocks {
		instances += c.block(blk, maxPromises-instances)
	}
	c.doubles()
	c.rights()
	c.flow()
	c.settle()
}

// condition checks that a when can be a bool.
func (c *checker) condition(what string, e *expr) {
	res := c.ev.value(e, nil)
	if res.fault != "" {
		c.r.warnf(e.rng, what+" will stay unknown", "%s", c.bare(e, res.fault))
		return
	}
	if v, err := conform(kindBool, res.v); err != nil {
		c.r.errorf(e.rng, "", "when: %s", err.Error())
	} else if v.IsNull() {
		c.r.errorf(e.rng, "", "when: a bool is needed, not null")
	}
}

// bare takes the place off a fault that is told at the same place.
func (c *checker) bare(e *expr, fault string) string {
	return strings.TrimPrefix(fault, place(e.rng)+": ")
}

// reach warns of parts that nobody can play.
func (c *checker) reach(p *part) {
	if r := c.p.roles[p.role]; r != nil {
		if pr, fault := boolOf(r.when, c.ev.value(r.when, nil)); fault == "" && pr.is == no {
			c.r.warnf(p.rng, "", "part %q can be reached by no node: role %q is always false", p.name, p.role)
			return
		}
	}
	if e := p.attrs["when"]; e != nil {
		if pr, fault := boolOf(e, c.ev.value(e, nil)); fault == "" && pr.is == no {
			c.r.warnf(p.rng, "", "part %q can be reached by no node: its when is always false", p.name)
		}
	}
}

// attestedRoles refuses from and access on roles that hang on more than tags and names: nobody else could
// judge who holds them.
func (c *checker) attestedRoles() {
	for _, r := range c.p.rules {
		for _, name := range r.roles {
			if why := c.unattested(name); why != "" {
				c.r.errorf(r.given.rng, "let the role follow from tag.*, node.name and node.id alone",
					"access cannot rest on role %q: it hangs on %s, which nobody attests", name, why)
			}
		}
	}
	for _, blk := range c.p.blocks {
		e := blk.attrs["from"]
		if e == nil || blk.typ != "want" {
			continue
		}
		name := c.roleName(c.ev, e)
		if why := c.unattested(name); why != "" {
			c.r.errorf(e.rng, "let the role follow from tag.*, node.name and node.id alone",
				"from cannot rest on role %q: it hangs on %s, which nobody attests", name, why)
		}
	}
}

// unattested returns the first name that a role reads, through others too, and no certificate attests.
func (c *checker) unattested(name string) string {
	r := c.p.roles[name]
	if r == nil {
		return ""
	}
	for _, read := range r.when.reads {
		root, rest, _ := strings.Cut(read, ".")
		switch {
		case root == "tag" || read == "node.name" || read == "node.id":
		case root == "role":
			if why := c.unattested(rest); why != "" {
				return why
			}
		default:
			return waitingName(read)
		}
	}
	return ""
}

// block checks the promises of one block as far as the text tells, and returns how many it looked at.
func (c *checker) block(blk *block, limit int) int {
	ks := c.ev.keysOf(blk)
	if e := blk.attrs["for_each"]; e != nil && ks.is.fault != "" {
		if c.ev.value(e, nil).fault != "" {
			c.r.warnf(e.rng, string(blk.address())+" will fail", "%s", c.bare(e, ks.is.fault))
		} else {
			c.r.errorf(e.rng, "", "%s", c.bare(e, ks.is.fault))
		}
		return 0
	}
	if e := blk.attrs["when"]; e != nil && blk.attrs["for_each"] == nil {
		c.condition(string(blk.address()), e)
	}
	keys := ks.keys
	if ks.is.is != yes {
		keys = []string{""} // each.* is unknown, all else is checked
	}
	if len(keys) > limit {
		c.r.errorf(blk.rng, "", "the score makes more promises than the limit of %d", maxPromises)
		return 0
	}
	for _, key := range keys {
		c.instance(instance{b: blk, key: key}, ks.is.is == yes)
	}
	return len(keys)
}

// instance evaluates all attributes of one promise. What an expression does wrong is a warning, for it
// fails its promise only; what a value is wrong for is an error.
func (c *checker) instance(i instance, keyed bool) {
	vs := values{spec: i.b.spec, attrs: map[string]cty.Value{}}
	whole := keyed
	for _, name := range i.b.names {
		e, as := i.b.attrs[name], i.b.attrSpec(name)
		res := c.ev.value(e, c.ev.extra(i, e))
		if res.fault != "" {
			c.r.warnf(e.rng, string(i.address())+" will fail", "%s", c.bare(e, res.fault))
			whole = false
			continue
		}
		v, err := as.accept(res.v)
		switch {
		case err != nil:
			hint := ""
			if as.oneOf != nil && v.IsKnown() && !v.IsNull() && v.Type() == cty.String {
				hint = nearest("", v.AsString(), as.oneOf)
			}
			c.r.errorf(e.rng, hint, "%s: %s", name, err.Error())
			whole = false
		case !v.IsWhollyKnown():
			whole = false
		default:
			vs.attrs[name] = v
		}
	}
	if whole {
		var p Promise
		err := p.common(vs)
		if err == nil {
			err = c.ev.fill(&p, i, vs)
		}
		if err != nil {
			c.r.errorf(i.b.rng, "", "%s: %s", i.address(), err.Error())
		}
	}
	c.makes(i, vs)
	c.offers(i, vs)
}

// makes records the path or name that one promise makes, when the text tells it.
func (c *checker) makes(i instance, vs values) {
	what := ""
	switch i.b.typ {
	case "file":
		if vs.has("path") {
			what = "file:" + path.Clean(vs.str("path"))
		}
	case "want":
		if vs.has("place") && !strings.Contains(vs.str("place"), "${artifact.") {
			what = "file:" + path.Clean(vs.str("place"))
		}
	case "artifact":
		switch {
		case vs.has("name"):
			what = "artifact:" + vs.str("name")
		case i.b.attrs["name"] == nil:
			what = "artifact:" + i.b.name
		}
	}
	if what == "" {
		return
	}
	sure := i.b.part.attrs["when"] == nil && i.b.attrs["when"] == nil
	c.made[what] = append(c.made[what], madeBy{i: i, sure: sure})
}

// doubles refuses one path or name that two promises surely make on one node, and remembers who makes what.
func (c *checker) doubles() {
	for what, makers := range c.made {
		sure := map[string]madeBy{} // by role
		for _, m := range makers {
			if !m.sure {
				continue
			}
			prev, double := sure[""]
			if role := m.i.b.part.role; !double {
				if prev, double = sure[role]; !double && role == "" {
					for _, prev = range sure {
						double = true
					}
				}
				sure[role] = m
			}
			if double {
				kind, name, _ := strings.Cut(what, ":")
				c.r.errorf(m.i.b.rng, "one of them must go, or have a when", "%s %q is promised twice: by %s, and by %s at %s",
					strings.Replace(kind, "file", "path", 1), name, m.i.address(), prev.i.address(), place(prev.i.b.rng))
				break
			}
		}
		if len(makers) == 1 || makers[0].sure {
			c.p.fixed[what] = makers[0].i
		}
	}
}

// offers records what an artifact is called, or a want looks for: where the text does not tell, as a pattern.
func (c *checker) offers(i instance, vs values) {
	if i.b.typ != "artifact" && i.b.typ != "want" {
		return
	}
	o := offer{b: i.b, pattern: i.b.name}
	if e := i.b.attrs["name"]; e != nil {
		if vs.has("name") {
			o.pattern = vs.str("name")
		} else {
			o.pattern = c.ev.glob(i, e)
		}
	}
	if i.b.typ == "artifact" {
		c.published = append(c.published, o)
	} else {
		c.wanted = append(c.wanted, o)
	}
}

// settle drops what only the check needed.
func (c *checker) settle() {
	for i := range c.p.rules {
		c.p.rules[i].given = nil
	}
}

func waitingName(read string) string {
	switch root, rest, _ := strings.Cut(read, "."); {
	case root == "members":
		return fmt.Sprintf("members or count of %q", rest)
	case read == NameTime:
		return "the clock"
	}
	return read
}
