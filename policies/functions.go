package policies

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
)

// functionNames are the functions of POLICY.md; plainFunctionNames those that depend on nothing but their
// arguments, the only ones a template file may call.
var (
	plainFunctionNames = []string{
		"contains", "any", "all", "not", "keys", "values", "merge", "setunion", "setintersection", "setsubtract",
		"distinct", "sort", "length", "lookup", "flatten",
		"join", "split", "format", "replace", "lower", "upper", "trim", "match", "regex",
		"jsonencode", "jsondecode", "sha256", "base64encode", "can", "try", "coalesce", "semver_match",
	}
	functionNames = slices.Concat(plainFunctionNames, []string{"read", "template", "members", "count", "during"})
)

// library makes the functions of one evaluator: they spend its fuel.
//
// All arguments are taken as they are. cty would convert a tuple of n elements to a list in n*n steps, and
// the type of what comes out is only known from the value, so results are dynamic while unknown.
type library struct {
	fuel *meter
	out  map[string]function.Function
}

func (ev *evaluator) functions() map[string]function.Function {
	lib := library{fuel: ev.fuel, out: make(map[string]function.Function, len(functionNames))}
	lib.sets()
	lib.maps()
	lib.texts()
	lib.data()
	lib.attempts()
	ev.meshFunctions(&lib)
	return lib.out
}

// def adds a function of least to most arguments (most -1: any number). Unknown or null arguments do not
// reach body; what body returns is charged.
func (l *library) def(name string, least, most int, body func(args []cty.Value) (cty.Value, error)) {
	l.out[name] = dynamic(least, most, true, func(args []cty.Value) (cty.Value, error) {
		for i, a := range args {
			if a.IsNull() {
				return cty.NilVal, fmt.Errorf("argument %d of %s is null", i+1, name)
			}
			if !a.IsWhollyKnown() {
				return cty.DynamicVal, nil
			}
			if err := l.fuel.take(1); err != nil {
				return cty.NilVal, err
			}
		}
		v, err := body(args)
		if err != nil {
			return cty.NilVal, err
		}
		return v, l.fuel.value(v)
	})
}

// dynamic makes a function of untyped parameters. cty asks for the type before the value: it is not known,
// so that nothing is computed twice.
func dynamic(least, most int, unknown bool, body func([]cty.Value) (cty.Value, error)) function.Function {
	value := function.Parameter{
		Name: "value", Type: cty.DynamicPseudoType, AllowNull: true, AllowUnknown: unknown, AllowDynamicType: true,
	}
	spec := &function.Spec{
		VarParam: &value,
		Type:     function.StaticReturnType(cty.DynamicPseudoType),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if len(args) < least || most >= 0 && len(args) > most {
				return cty.NilVal, fmt.Errorf("takes %s arguments, not %d", counted(least, most), len(args))
			}
			return body(args)
		},
	}
	return function.New(spec)
}

func counted(least, most int) string {
	switch {
	case most < 0:
		return fmt.Sprintf("at least %d", least)
	case least == most:
		return fmt.Sprint(least)
	}
	return fmt.Sprintf("%d to %d", least, most)
}

// items returns the elements of a list, set, tuple.
func (l *library) items(v cty.Value) ([]cty.Value, error) {
	if t := v.Type(); !t.IsListType() && !t.IsSetType() && !t.IsTupleType() {
		return nil, fmt.Errorf("a list is needed, not %s", t.FriendlyName())
	}
	if err := l.fuel.take(v.LengthInt()); err != nil {
		return nil, err
	}
	return v.AsValueSlice(), nil
}

// strings returns the elements of a list as texts.
func (l *library) strings(v cty.Value) ([]string, error) {
	items, err := l.items(v)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(items))
	for i, item := range items {
		if out[i], err = l.str(item); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// str returns a string, number or bool as text.
func (l *library) str(v cty.Value) (string, error) {
	if v.IsNull() || !v.IsKnown() || !v.Type().IsPrimitiveType() {
		return "", fmt.Errorf("a text is needed, not %s", v.Type().FriendlyName())
	}
	if err := l.fuel.value(v); err != nil {
		return "", err
	}
	s, err := convert.Convert(v, cty.String)
	if err != nil {
		return "", err
	}
	return s.AsString(), nil
}

func (l *library) strs(args []cty.Value) ([]string, error) {
	out := make([]string, len(args))
	for i, a := range args {
		s, err := l.str(a)
		if err != nil {
			return nil, fmt.Errorf("argument %d: %w", i+1, err)
		}
		out[i] = s
	}
	return out, nil
}

func boolean(v cty.Value) (bool, error) {
	b, err := convert.Convert(v, cty.Bool)
	if err != nil || b.IsNull() || !b.IsKnown() {
		return false, fmt.Errorf("a bool is needed, not %s", v.Type().FriendlyName())
	}
	return b.True(), nil
}

// same compares two values that may differ in type; both were charged.
func (l *library) same(a, b cty.Value) bool {
	if a.Type().IsPrimitiveType() && b.Type().IsPrimitiveType() && a.Type() != b.Type() {
		x, errX := l.str(a)
		y, errY := l.str(b)
		return errX == nil && errY == nil && x == y
	}
	return a.RawEquals(b)
}

func stringsVal(list []string) cty.Value {
	if len(list) == 0 {
		return cty.ListValEmpty(cty.String)
	}
	out := make([]cty.Value, len(list))
	for i, s := range list {
		out[i] = cty.StringVal(s)
	}
	return cty.ListVal(out)
}

func (l *library) sets() {
	l.def("contains", 2, 2, func(args []cty.Value) (cty.Value, error) {
		items, err := l.items(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		for _, item := range items {
			if err := l.fuel.value(item); err != nil {
				return cty.NilVal, err
			}
			if l.same(item, args[1]) {
				return cty.True, nil
			}
		}
		return cty.False, nil
	})
	l.setAlgebra()
	l.def("distinct", 1, 1, func(args []cty.Value) (cty.Value, error) {
		list, err := l.strings(args[0])
		return stringsVal(unique(list)), err
	})
	l.def("sort", 1, 1, func(args []cty.Value) (cty.Value, error) {
		list, err := l.strings(args[0])
		slices.Sort(list)
		return stringsVal(list), err
	})
	l.def("length", 1, 1, func(args []cty.Value) (cty.Value, error) {
		switch v := args[0]; {
		case v.Type() == cty.String:
			return cty.NumberIntVal(int64(len([]rune(v.AsString())))), nil
		case v.CanIterateElements():
			return cty.NumberIntVal(int64(v.LengthInt())), nil
		default:
			return cty.NilVal, errors.New("length takes a list, a map or a text")
		}
	})
	l.def("flatten", 1, 1, func(args []cty.Value) (cty.Value, error) {
		out, err := l.flatten(nil, args[0])
		if err != nil {
			return cty.NilVal, err
		}
		return cty.TupleVal(out), nil
	})
}

func (l *library) flatten(out []cty.Value, v cty.Value) ([]cty.Value, error) {
	items, err := l.items(v)
	for _, item := range items {
		if err := l.fuel.take(1); err != nil {
			return nil, err
		}
		if t := item.Type(); t.IsListType() || t.IsSetType() || t.IsTupleType() {
			if out, err = l.flatten(out, item); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, item)
	}
	return out, err
}

func unique(list []string) []string {
	seen := make(map[string]bool, len(list))
	return slices.DeleteFunc(list, func(s string) bool {
		double := seen[s]
		seen[s] = true
		return double
	})
}

// setAlgebra are the functions on texts as sets: sorted, without doubles. And any, all, not, which are
// logic in three values: an unknown decides nothing, and nothing hides what is certain.
func (l *library) setAlgebra() {
	algebra := func(name string, keep func(first, later int, sets int) bool) {
		l.def(name, 1, -1, func(args []cty.Value) (cty.Value, error) {
			first, later := map[string]int{}, map[string]int{}
			for i, a := range args {
				list, err := l.strings(a)
				if err != nil {
					return cty.NilVal, err
				}
				for _, s := range unique(list) {
					if i == 0 {
						first[s]++
					} else {
						later[s]++
					}
				}
			}
			var out []string
			for s := range first {
				if keep(1, later[s], len(args)) {
					out = append(out, s)
				}
			}
			for s, n := range later {
				if first[s] == 0 && keep(0, n, len(args)) {
					out = append(out, s)
				}
			}
			slices.Sort(out)
			return stringsVal(out), nil
		})
	}
	algebra("setunion", func(int, int, int) bool { return true })
	algebra("setintersection", func(first, later, sets int) bool { return first+later == sets })
	algebra("setsubtract", func(first, later, _ int) bool { return first == 1 && later == 0 })
	l.out["any"] = dynamic(1, -1, true, func(args []cty.Value) (cty.Value, error) { return l.quantify(args, true) })
	l.out["all"] = dynamic(1, -1, true, func(args []cty.Value) (cty.Value, error) { return l.quantify(args, false) })
	l.out["not"] = dynamic(1, 1, true, func(args []cty.Value) (cty.Value, error) {
		if !args[0].IsKnown() {
			return cty.UnknownVal(cty.Bool), nil
		}
		b, err := boolean(args[0])
		return cty.BoolVal(!b), err
	})
}

// quantify is any (decides = true) and all (decides = false), over lists and single bools.
func (l *library) quantify(args []cty.Value, decides bool) (cty.Value, error) {
	unknown := false
	for _, a := range args {
		items := []cty.Value{a}
		if a.IsKnown() && a.CanIterateElements() {
			var err error
			if items, err = l.items(a); err != nil {
				return cty.NilVal, err
			}
		}
		for _, item := range items {
			if !item.IsKnown() {
				unknown = true
				continue
			}
			b, err := boolean(item)
			if err != nil {
				return cty.NilVal, err
			}
			if b == decides {
				return cty.BoolVal(decides), nil
			}
		}
	}
	if unknown {
		return cty.UnknownVal(cty.Bool), nil
	}
	return cty.BoolVal(!decides), nil
}

func (l *library) maps() {
	l.def("keys", 1, 1, func(args []cty.Value) (cty.Value, error) {
		m, err := l.entries(args[0])
		return stringsVal(sortedKeys(m)), err
	})
	l.def("values", 1, 1, func(args []cty.Value) (cty.Value, error) {
		m, err := l.entries(args[0])
		out := make([]cty.Value, 0, len(m))
		for _, k := range sortedKeys(m) {
			out = append(out, m[k])
		}
		return cty.TupleVal(out), err
	})
	l.def("merge", 1, -1, func(args []cty.Value) (cty.Value, error) {
		out := map[string]cty.Value{}
		for _, a := range args {
			m, err := l.entries(a)
			if err != nil {
				return cty.NilVal, err
			}
			for k, v := range m {
				out[k] = v
			}
		}
		return cty.ObjectVal(out), nil
	})
	l.def("lookup", 2, 3, func(args []cty.Value) (cty.Value, error) {
		m, err := l.entries(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		key, err := l.str(args[1])
		if err != nil {
			return cty.NilVal, err
		}
		if v, ok := m[key]; ok {
			return v, nil
		}
		if len(args) < 3 {
			return cty.NilVal, fmt.Errorf("lookup finds no %q and has no default", key)
		}
		return args[2], nil
	})
}

func (l *library) entries(v cty.Value) (map[string]cty.Value, error) {
	if t := v.Type(); !t.IsMapType() && !t.IsObjectType() {
		return nil, fmt.Errorf("a map is needed, not %s", t.FriendlyName())
	}
	if v.Type().IsMapType() || len(v.Type().AttributeTypes()) > 0 {
		if err := l.fuel.take(v.LengthInt()); err != nil {
			return nil, err
		}
	}
	return v.AsValueMap(), nil
}

// whole returns a number as an int64, if it is one.
func whole(v cty.Value) (int64, bool) {
	if v.Type() != cty.Number || v.IsNull() || !v.IsKnown() {
		return 0, false
	}
	n, acc := v.AsBigFloat().Int64()
	return n, acc == big.Exact
}

func sortedKeys(m map[string]cty.Value) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

var errTextLong = errors.New("text is longer than its fuel")

// room refuses a text before it is built.
func (l *library) room(sizeBytes int) error {
	if sizeBytes < 0 || l.fuel != nil && sizeBytes/fuelBytes > l.fuel.left {
		l.fuel.spent = l.fuel != nil
		return errTextLong
	}
	return nil
}

func joined(list []string, sep string) int {
	n := len(sep) * max(len(list)-1, 0)
	for _, s := range list {
		n += len(s)
	}
	return n
}

func (l *library) joinArgs(args []cty.Value) (cty.Value, error) {
	sep, err := l.str(args[0])
	if err != nil {
		return cty.NilVal, err
	}
	var list []string
	for _, a := range args[1:] {
		more, err := l.strings(a)
		if err != nil {
			return cty.NilVal, err
		}
		list = append(list, more...)
	}
	if err := l.room(joined(list, sep)); err != nil {
		return cty.NilVal, err
	}
	return cty.StringVal(strings.Join(list, sep)), nil
}
