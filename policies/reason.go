package policies

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// maxReason bounds the text of one reason, in bytes.
const maxReason = 120

// A reason is the condition of a role taken apart at && || and !, so that it can be told which operands
// decided it.
type reason struct {
	op    string // "and", "or", "not"; "" for an operand
	kids  []*reason
	x     hclsyntax.Expression // of an operand
	text  string
	whole *expr // of the root: the condition itself, with the locals that it reads
}

func reasonOf(x hclsyntax.Expression, src []byte) *reason {
	switch e := x.(type) {
	case *hclsyntax.ParenthesesExpr:
		return reasonOf(e.Expression, src)
	case *hclsyntax.UnaryOpExpr:
		if e.Op == hclsyntax.OpLogicalNot {
			return &reason{op: "not", kids: []*reason{reasonOf(e.Val, src)}}
		}
	case *hclsyntax.BinaryOpExpr:
		switch e.Op {
		case hclsyntax.OpLogicalAnd:
			return &reason{op: "and", kids: []*reason{reasonOf(e.LHS, src), reasonOf(e.RHS, src)}}
		case hclsyntax.OpLogicalOr:
			return &reason{op: "or", kids: []*reason{reasonOf(e.LHS, src), reasonOf(e.RHS, src)}}
		}
	}
	return &reason{x: x, text: sourceText(x, src)}
}

func sourceText(x hclsyntax.Expression, src []byte) string {
	rng := x.Range()
	if !rng.CanSliceBytes(src) {
		return "the condition"
	}
	text := strings.Join(strings.Fields(string(rng.SliceBytes(src))), " ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "..."
	}
	return text
}

// reasons words the operands that made the condition what it came to.
func (ev *evaluator) reasons(r *reason, holds bool) []string {
	if r == nil {
		return nil
	}
	ctx := ev.ctx
	if r.whole != nil && len(r.whole.locals) > 0 {
		local, fault := ev.localObject(r.whole.locals)
		if fault != "" {
			return nil
		}
		ctx = ctx.NewChild()
		ctx.Variables = map[string]cty.Value{"local": local}
	}
	var out []string
	seen := map[string]bool{}
	ev.fuel.start()
	ev.decided(r, holds, ctx, func(s string) {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	})
	return out
}

// decided walks to the operands that account for the outcome: all of an && that holds, the false ones of
// one that does not, and the other way round for ||.
func (ev *evaluator) decided(r *reason, outcome bool, ctx *hcl.EvalContext, tell func(string)) {
	switch r.op {
	case "not":
		ev.decided(r.kids[0], !outcome, ctx, tell)
	case "and", "or":
		for _, kid := range r.kids {
			if v, ok := ev.truth(kid, ctx); ok && v == outcome {
				ev.decided(kid, outcome, ctx, tell)
			}
		}
	default:
		tell(ev.word(r, outcome, ctx))
	}
}

// truth evaluates one node of the tree; false when it is unknown or fails.
func (ev *evaluator) truth(r *reason, ctx *hcl.EvalContext) (value, ok bool) {
	switch r.op {
	case "not":
		v, ok := ev.truth(r.kids[0], ctx)
		return !v, ok
	case "and", "or":
		unknown := false
		for _, kid := range r.kids {
			v, ok := ev.truth(kid, ctx)
			if ok && v == (r.op == "or") {
				return v, true
			}
			unknown = unknown || !ok
		}
		return r.op == "and", !unknown
	}
	v, diags := r.x.Value(ctx)
	if diags.HasErrors() || !v.IsKnown() || v.IsNull() {
		return false, false
	}
	b, err := boolean(v)
	return b, err == nil
}

// word tells one operand: tag.kind is "parent".
func (ev *evaluator) word(r *reason, outcome bool, ctx *hcl.EvalContext) string {
	switch e := r.x.(type) {
	case *hclsyntax.BinaryOpExpr:
		if name, value, ok := compared(e, ctx); ok && (e.Op == hclsyntax.OpEqual || e.Op == hclsyntax.OpNotEqual) {
			got := shown(name, ctx)
			if (e.Op == hclsyntax.OpEqual) == outcome {
				return fmt.Sprintf("%s is %s", nameText(name), got)
			}
			return fmt.Sprintf("%s is %s, not %s", nameText(name), got, shown(value, ctx))
		}
	case *hclsyntax.FunctionCallExpr:
		if e.Name == "contains" && len(e.Args) == 2 {
			list, item := nameText(e.Args[0]), nameText(e.Args[1])
			if list != "" && item != "" {
				is := map[bool]string{true: "is in", false: "is not in"}[outcome]
				return fmt.Sprintf("%s %s %s %s", item, shown(e.Args[1], ctx), is, list)
			}
		}
	default:
		if name, ok := strings.CutPrefix(nameText(e), "role."); ok {
			return map[bool]string{true: "role " + name + " holds", false: "role " + name + " does not hold"}[outcome]
		}
	}
	return fmt.Sprintf("%s is %t", r.text, outcome)
}

// compared finds the named side of a comparison.
func compared(e *hclsyntax.BinaryOpExpr, ctx *hcl.EvalContext) (name, value hclsyntax.Expression, ok bool) {
	if nameText(e.LHS) != "" {
		return e.LHS, e.RHS, true
	}
	return e.RHS, e.LHS, nameText(e.RHS) != ""
}

// nameText returns an expression that is a plain name as text, "" for any other.
func nameText(x hclsyntax.Expression) string {
	if m, ok := x.(metered); ok {
		x = m.Expression
	}
	t, ok := x.(*hclsyntax.ScopeTraversalExpr)
	if !ok {
		return ""
	}
	words := []string{t.Traversal.RootName()}
	for _, s := range t.Traversal[1:] {
		switch s := s.(type) {
		case hcl.TraverseAttr:
			words = append(words, s.Name)
		default:
			return ""
		}
	}
	return strings.Join(words, ".")
}

func shown(x hclsyntax.Expression, ctx *hcl.EvalContext) string {
	v, diags := x.Value(ctx)
	if diags.HasErrors() || !v.IsWhollyKnown() || v.IsNull() {
		return "not known"
	}
	switch v.Type() {
	case cty.String:
		s := v.AsString()
		if len(s) > maxReason {
			s = strings.ToValidUTF8(s[:maxReason], "") + "..."
		}
		return fmt.Sprintf("%q", s)
	case cty.Number:
		return v.AsBigFloat().Text('g', 12)
	case cty.Bool:
		return fmt.Sprint(v.True())
	}
	return "something else"
}
