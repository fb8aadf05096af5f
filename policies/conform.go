package policies

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// conform turns a value into what an attribute of this kind must be: lists and maps become tuples and
// objects of strings or numbers. Parts that are unknown stay so, but their types are checked. Null stays null.
func conform(k kind, v cty.Value) (cty.Value, error) {
	if v.IsNull() || v.Type() == cty.DynamicPseudoType || k == kindAny {
		return v, nil
	}
	switch k {
	case kindBool:
		return scalar(v, cty.Bool, "a bool")
	case kindInt:
		n, err := scalar(v, cty.Number, "a whole number")
		if err != nil || !n.IsKnown() {
			return n, err
		}
		if i, ok := whole(n); !ok || i < 0 || i >= 1<<31 {
			return n, errors.New("a whole number from 0 is needed")
		}
		return n, nil
	case kindInts:
		return conformList(v, kindInt)
	case kindStrings, kindRoles:
		return conformList(v, kindString)
	case kindPaths:
		return conformList(v, kindPath)
	case kindStringMap:
		return conformMap(v)
	case kindKeys:
		return v, nil // keysOf reads it
	}
	s, err := scalar(v, cty.String, "a text")
	if err != nil || !s.IsKnown() {
		return s, err
	}
	return s, checkText(k, s.AsString())
}

// checkText checks the kinds that are written as text.
func checkText(k kind, s string) (err error) {
	switch k {
	case kindDuration:
		_, err = parseDuration(s)
	case kindPercent:
		_, err = parsePercent(s)
	case kindSpan:
		_, _, err = parseSpan(s)
	case kindWindow:
		_, err = ParseWindow(s, "")
	case kindPath:
		err = checkPath(s)
	}
	return err
}

func scalar(v cty.Value, t cty.Type, what string) (cty.Value, error) {
	if !v.Type().IsPrimitiveType() {
		return v, fmt.Errorf("%s is needed, not %s", what, v.Type().FriendlyName())
	}
	if v.IsKnown() && v.Type() == cty.Number {
		if err := checkNumber(v); err != nil {
			return v, err
		}
	}
	out, err := convert.Convert(v, t)
	if err != nil {
		return v, fmt.Errorf("%s is needed, not %s", what, v.Type().FriendlyName())
	}
	return out, nil
}

func conformList(v cty.Value, item kind) (cty.Value, error) {
	if t := v.Type(); !t.IsTupleType() && !t.IsListType() && !t.IsSetType() {
		return v, fmt.Errorf("a list is needed, not %s", t.FriendlyName())
	}
	if !v.IsKnown() {
		return v, nil
	}
	items := v.AsValueSlice()
	for i, e := range items {
		if e.IsNull() {
			return v, fmt.Errorf("element %d of the list is null", i)
		}
		c, err := conform(item, e)
		if err != nil {
			return v, fmt.Errorf("element %d of the list: %w", i, err)
		}
		items[i] = c
	}
	return cty.TupleVal(items), nil
}

func conformMap(v cty.Value) (cty.Value, error) {
	if t := v.Type(); !t.IsObjectType() && !t.IsMapType() {
		return v, fmt.Errorf("a map of texts is needed, not %s", t.FriendlyName())
	}
	if !v.IsKnown() {
		return v, nil
	}
	attrs := v.AsValueMap()
	for _, name := range sortedKeys(attrs) {
		c, err := conform(kindString, attrs[name])
		if err != nil {
			return v, fmt.Errorf("%q of the map: %w", name, err)
		}
		if c.IsNull() {
			delete(attrs, name)
			continue
		}
		attrs[name] = c
	}
	if attrs == nil {
		attrs = map[string]cty.Value{}
	}
	return cty.ObjectVal(attrs), nil
}

// maxDuration bounds what a score may say: a hundred years.
const maxDuration = 876_000 * time.Hour

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxDuration {
		return 0, fmt.Errorf("%.40q is no duration (such as 10s, 5m, 1h30m)", s)
	}
	return d, nil
}

// parsePercent reads "10%" as 0.1.
func parsePercent(s string) (float64, error) {
	digits, ok := strings.CutSuffix(s, "%")
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(n >= 0 && n <= 100) {
		return 0, fmt.Errorf("%.40q is no share (such as 10%%)", s)
	}
	return n / 100, nil
}

// parseSpan reads "1s..1m".
func parseSpan(s string) (from, to time.Duration, err error) {
	a, b, ok := strings.Cut(s, "..")
	if !ok {
		return 0, 0, fmt.Errorf("%.40q is no span (such as 1s..1m)", s)
	}
	if from, err = parseDuration(a); err != nil {
		return 0, 0, err
	}
	if to, err = parseDuration(b); err != nil {
		return 0, 0, err
	}
	if from == 0 || from > to {
		return 0, 0, fmt.Errorf("%.40q is no span: it begins above 0 and does not fall", s)
	}
	return from, to, nil
}

// maxPath bounds a path, in bytes.
const maxPath = 4096

// checkPath refuses relative paths that leave the work folder. Links are the keeper's concern.
func checkPath(p string) error {
	switch {
	case p == "":
		return errors.New("path is empty")
	case len(p) > maxPath:
		return fmt.Errorf("path has %d bytes, more than the limit of %d", len(p), maxPath)
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("path %q has a control character", p)
	case path.IsAbs(p):
		return nil
	case slices.Contains(strings.Split(p, "/"), ".."):
		return fmt.Errorf("path %q leaves the work folder: .. is refused in relative paths", p)
	}
	return nil
}

// prefixOf returns the literal path that a glob or a late name begins with: "results/*" is "results".
func prefixOf(pattern string) string {
	i := strings.IndexAny(pattern, "*?[{")
	if j := strings.Index(pattern, "${artifact."); j >= 0 && (i < 0 || j < i) {
		i = j
	}
	if i >= 0 {
		pattern = pattern[:strings.LastIndex(pattern[:i], "/")+1]
		if pattern == "" {
			pattern = "."
		}
	}
	return path.Clean(pattern)
}

// under reports whether p is dir or lies below it; both are clean.
func under(p, dir string) bool {
	return p == dir || dir == "." && !path.IsAbs(p) || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// values are the attributes of one instance, known and conformed.
type values struct {
	spec  *blockSpec
	attrs map[string]cty.Value
}

func (vs values) has(name string) bool {
	v, ok := vs.attrs[name]
	return ok && !v.IsNull()
}

func (vs values) def(name string) string {
	spec, last := vs.spec, name
	if outer, inner, ok := strings.Cut(name, "."); ok {
		spec, last = vs.spec.block(outer), inner
	}
	return spec.attr(last).def
}

func (vs values) str(name string) string {
	if !vs.has(name) {
		return vs.def(name)
	}
	return vs.attrs[name].AsString()
}

func (vs values) bool(name string) bool {
	if !vs.has(name) {
		return vs.def(name) == "true"
	}
	return vs.attrs[name].True()
}

func (vs values) int(name string) int {
	if !vs.has(name) {
		n, _ := strconv.Atoi(vs.def(name))
		return n
	}
	n, _ := whole(vs.attrs[name])
	return int(n)
}

func (vs values) ints(name string) []int {
	if !vs.has(name) {
		n, _ := strconv.Atoi(vs.def(name))
		return []int{n}
	}
	var out []int
	for _, v := range vs.attrs[name].AsValueSlice() {
		n, _ := whole(v)
		out = append(out, int(n))
	}
	return out
}

func (vs values) duration(name string) time.Duration {
	d, _ := parseDuration(vs.str(name)) // checked by conform; "" is 0
	return d
}

func (vs values) strs(name string) []string {
	if !vs.has(name) {
		return nil
	}
	var out []string
	for _, v := range vs.attrs[name].AsValueSlice() {
		out = append(out, v.AsString())
	}
	return out
}

func (vs values) dict(name string) map[string]string {
	if !vs.has(name) {
		return nil
	}
	out := map[string]string{}
	for k, v := range vs.attrs[name].AsValueMap() {
		out[k] = v.AsString()
	}
	return out
}
