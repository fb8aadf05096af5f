package policies

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// The fuel of POLICY.md: 1 a loop turn or template part, 1 per 64 bytes of text. HCL has no limit of its
// own: four nested loops over 200 would take 1.6e9 turns.
const (
	fuelEach    = 100_000    // of one expression
	fuelAll     = 20_000_000 // of all expressions of one Expand together, some seconds at worst
	fuelBytes   = 64         // bytes of text for 1
	maxNumber   = 1100       // binary exponent: a number beyond it costs memory and time to print
	maxProblem  = 300        // bytes of what is told of a failed expression
	meterName   = "\x00fuel" // cannot be written in a score
	outOfFuel   = "out of fuel: took more than the limit of 100000 loop turns, template parts and 64-byte pieces of text"
	outOfFuelIn = "out of fuel: all expressions together took more than the limit of 20000000 steps"
)

var (
	errFuel   = errors.New(outOfFuel)
	errNumber = errors.New("number is beyond the limit of 1e308")
)

// A meter counts the fuel of one evaluator. It belongs to one goroutine.
type meter struct {
	left  int // of this expression
	all   int // of the whole run
	spent bool
}

// meterType carries a meter through an evaluation context to the wrapped expressions.
var meterType = cty.Capsule("fuel", reflect.TypeFor[meter]())

// start gives one expression its fuel.
func (m *meter) start() { m.left, m.spent = fuelEach, false }

// take spends n, or says that there is no more.
func (m *meter) take(n int) error {
	if m == nil {
		return nil
	}
	m.left -= n
	m.all -= n
	if m.left < 0 || m.all < 0 {
		m.spent = true
	}
	if m.spent {
		return errFuel
	}
	return nil
}

// text charges a text by its length.
func (m *meter) text(s string) error { return m.take(len(s) / fuelBytes) }

// value charges everything in v and refuses numbers that nobody can print.
func (m *meter) value(v cty.Value) error {
	if err := m.take(1); err != nil {
		return err
	}
	if v == cty.NilVal || !v.IsKnown() || v.IsNull() || v.IsMarked() {
		return nil
	}
	switch t := v.Type(); {
	case t == cty.String:
		return m.text(v.AsString())
	case t == cty.Number:
		return checkNumber(v)
	case t.IsObjectType() || t.IsMapType() || t.IsTupleType() || t.IsListType() || t.IsSetType():
		for it := v.ElementIterator(); it.Next(); {
			if _, e := it.Element(); true {
				if err := m.value(e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func checkNumber(v cty.Value) error {
	f := v.AsBigFloat()
	if exp := f.MantExp(nil); f.IsInf() || exp > maxNumber || exp < -maxNumber {
		return errNumber
	}
	return nil
}

// meterOf finds the meter of a context: it lies in the outermost one.
func meterOf(ctx *hcl.EvalContext) *meter {
	for ; ctx != nil; ctx = ctx.Parent() {
		if v, ok := ctx.Variables[meterName]; ok {
			return v.EncapsulatedValue().(*meter)
		}
	}
	return nil
}

// A metered expression spends fuel for its value. It embeds the expression that it stands for, and so its
// unexported methods too; hclsyntax.Variables sees nothing through it.
type metered struct {
	hclsyntax.Expression
	turns   bool // charge one for each element: the collection of a loop
	deep    bool // charge everything inside: what is going to be compared or unified
	numeric bool // an operand of arithmetic: text becomes a number here, where its size is checked
}

func (m metered) Value(ctx *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	fuel := meterOf(ctx)
	if fuel != nil && fuel.spent {
		return cty.DynamicVal, m.fail(errFuel)
	}
	v, diags := m.Expression.Value(ctx)
	if diags.HasErrors() {
		return v, diags[:1]
	}
	if v.IsNull() || !v.IsKnown() || v.IsMarked() {
		return v, diags
	}
	if m.numeric && v.Type() == cty.String {
		n, err := convert.Convert(v, cty.Number)
		if err != nil {
			return cty.DynamicVal, m.fail(err)
		}
		v = n
	}
	var err error
	switch t := v.Type(); {
	case m.deep || t.IsPrimitiveType():
		err = fuel.value(v)
	case m.turns && v.CanIterateElements():
		err = fuel.take(1 + v.LengthInt())
	default:
		err = fuel.take(1)
	}
	if err != nil {
		return cty.DynamicVal, m.fail(err)
	}
	return v, diags
}

func (m metered) fail(err error) hcl.Diagnostics {
	rng := m.Range()
	return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: err.Error(), Subject: &rng}}
}

// meterAll builds the meters into an expression, once, at compile. The nodes are gathered first, for the
// walk does not see what lies behind a wrapper.
func meterAll(x hclsyntax.Expression) {
	var nodes []hclsyntax.Node
	_ = hclsyntax.VisitAll(x, func(n hclsyntax.Node) hcl.Diagnostics {
		nodes = append(nodes, n)
		return nil
	})
	for _, n := range nodes {
		meterNode(n)
	}
}

func meterNode(n hclsyntax.Node) {
	wrap := func(x *hclsyntax.Expression, m metered) {
		if *x != nil {
			m.Expression = *x
			*x = m
		}
	}
	switch e := n.(type) {
	case *hclsyntax.ForExpr:
		wrap(&e.CollExpr, metered{turns: true})
		wrap(&e.KeyExpr, metered{})
		wrap(&e.ValExpr, metered{})
		wrap(&e.CondExpr, metered{})
	case *hclsyntax.SplatExpr:
		wrap(&e.Source, metered{turns: true})
		wrap(&e.Each, metered{})
	case *hclsyntax.TemplateExpr:
		for i := range e.Parts {
			wrap(&e.Parts[i], metered{})
		}
	case *hclsyntax.TemplateJoinExpr:
		wrap(&e.Tuple, metered{deep: true})
	case *hclsyntax.BinaryOpExpr:
		equality := e.Op == hclsyntax.OpEqual || e.Op == hclsyntax.OpNotEqual
		logic := e.Op == hclsyntax.OpLogicalAnd || e.Op == hclsyntax.OpLogicalOr
		wrap(&e.LHS, metered{deep: equality, numeric: !equality && !logic})
		wrap(&e.RHS, metered{deep: equality, numeric: !equality && !logic})
	case *hclsyntax.UnaryOpExpr:
		wrap(&e.Val, metered{numeric: e.Op == hclsyntax.OpNegate})
	case *hclsyntax.ConditionalExpr:
		wrap(&e.Condition, metered{})
		wrap(&e.TrueResult, metered{deep: true})
		wrap(&e.FalseResult, metered{deep: true})
	case *hclsyntax.IndexExpr:
		wrap(&e.Key, metered{})
	case *hclsyntax.ObjectConsKeyExpr:
		if e.ForceNonLiteral {
			wrap(&e.Wrapped, metered{})
		}
	case *hclsyntax.FunctionCallExpr:
		for i := range e.Args {
			if e.Name != "can" && e.Name != "try" {
				wrap(&e.Args[i], metered{})
			}
		}
	}
}

// fuelDiag words what an evaluation failed of: one line with its place.
func fuelDiag(m *meter, rng hcl.Range, diags hcl.Diagnostics) string {
	switch {
	case m.all < 0:
		return fmt.Sprintf("%s: %s", place(rng), outOfFuelIn)
	case m.spent:
		return fmt.Sprintf("%s: %s", place(rng), outOfFuel)
	}
	for _, d := range diags {
		if d.Severity == hcl.DiagError {
			if d.Subject != nil {
				rng = *d.Subject
			}
			text := plainDiag(d)
			if len(text) > maxProblem {
				text = strings.ToValidUTF8(text[:maxProblem], "") + "..."
			}
			return fmt.Sprintf("%s: %s", place(rng), text)
		}
	}
	return place(rng) + ": cannot be evaluated"
}
