package policies

import (
	"fmt"

	"github.com/zclconf/go-cty/cty"
)

// Allows tells whether the score lets somebody publish or pull an artifact, or admit a node of that name.
// right is "publish", "pull" or "admit"; publisher is the name of the node that publishes, or admits; holds
// says which roles the one who asks holds, judged by attested tags and names alone.
//
// With no access block members publish and pull, and only sponsors admit. The artifact "score" is never
// covered: the charter rules it. why words the rule or what is missing.
func (p *Program) Allows(right, artifact, publisher string, holds func(role string) bool) (ok bool, why string) {
	switch {
	case right != "publish" && right != "pull" && right != "admit":
		return false, fmt.Sprintf("there is no right %q", right)
	case !nodeName(publisher) && publisher != "":
		return false, fmt.Sprintf("%.80q is no node name", publisher) // a * in it would widen a pattern
	case artifact == "score" && right != "admit":
		return true, "the charter rules the score"
	case !p.hasAccess && right == "admit":
		return false, "the score has no access block: only sponsors admit"
	case !p.hasAccess:
		return true, "the score has no access block: every member may " + right
	}
	ev := newEvaluator(p, Env{})
	named := false
	for i := range p.rules {
		r := &p.rules[i]
		if r.right != right || !matchesAny(p.patterns(ev, r, publisher), artifact) {
			continue
		}
		named = true
		for _, role := range r.roles {
			if holds(role) {
				return true, fmt.Sprintf("role %s may %s %s (%s)", role, right, artifact, place(r.rng))
			}
		}
	}
	if named {
		return false, fmt.Sprintf("the score lets only other roles %s %s", right, artifact)
	}
	return false, fmt.Sprintf("the score lets nobody %s %s", right, artifact)
}

func matchesAny(patterns []string, name string) bool {
	for _, pattern := range patterns {
		if MatchName(pattern, name) {
			return true
		}
	}
	return false
}

// patterns evaluates the names of a rule for one publisher; what does not evaluate allows nothing.
func (p *Program) patterns(ev *evaluator, r *rule, publisher string) []string {
	res := ev.value(r.names, publisherVar(publisher))
	if !res.known() {
		return nil
	}
	v, err := conform(kindStrings, res.v)
	if err != nil || v.IsNull() {
		return nil
	}
	var out []string
	for _, e := range v.AsValueSlice() {
		out = append(out, e.AsString())
	}
	return out
}

func publisherVar(name string) map[string]cty.Value {
	return map[string]cty.Value{
		"publisher": cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal(name)}),
	}
}
