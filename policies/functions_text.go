package policies

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/bmatcuk/doublestar/v4"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/customdecode"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// maxPattern bounds a regular expression and a glob, in bytes.
const maxPattern = 4096

// maxBraces bounds the {a,b} of one glob: each doubles the ways to match.
const maxBraces = 6

// maxWidth bounds a width or precision of format.
const maxWidth = 1000

func (l *library) text(name string, n int, body func(s []string) (cty.Value, error)) {
	l.def(name, n, n, func(args []cty.Value) (cty.Value, error) {
		s, err := l.strs(args)
		if err != nil {
			return cty.NilVal, err
		}
		return body(s)
	})
}

func (l *library) texts() {
	l.def("join", 2, -1, l.joinArgs)
	l.def("format", 1, -1, l.format)
	l.text("split", 2, func(s []string) (cty.Value, error) {
		if err := l.fuel.take(strings.Count(s[1], s[0])); err != nil {
			return cty.NilVal, err
		}
		return stringsVal(strings.Split(s[1], s[0])), nil
	})
	l.text("replace", 3, func(s []string) (cty.Value, error) {
		n := strings.Count(s[0], s[1])
		if err := l.room(len(s[0]) + n*(len(s[2])-len(s[1]))); err != nil {
			return cty.NilVal, err
		}
		return cty.StringVal(strings.ReplaceAll(s[0], s[1], s[2])), nil
	})
	l.text("lower", 1, func(s []string) (cty.Value, error) { return cty.StringVal(strings.ToLower(s[0])), nil })
	l.text("upper", 1, func(s []string) (cty.Value, error) { return cty.StringVal(strings.ToUpper(s[0])), nil })
	l.def("trim", 1, 2, func(args []cty.Value) (cty.Value, error) {
		s, err := l.strs(args)
		if err != nil {
			return cty.NilVal, err
		}
		if len(s) == 1 {
			return cty.StringVal(strings.TrimSpace(s[0])), nil
		}
		return cty.StringVal(strings.Trim(s[0], s[1])), nil
	})
	l.text("match", 2, func(s []string) (cty.Value, error) {
		if err := checkGlob(s[0]); err != nil {
			return cty.NilVal, err
		}
		ok, err := doublestar.Match(s[0], s[1])
		return cty.BoolVal(ok), err
	})
	l.text("regex", 2, func(s []string) (cty.Value, error) {
		re, err := compileRegexp(s[0])
		if err != nil {
			return cty.NilVal, err
		}
		if err := l.fuel.take(len(s[0]) * len(s[1]) / (fuelBytes * fuelBytes)); err != nil {
			return cty.NilVal, err
		}
		found := re.FindStringSubmatch(s[1])
		switch {
		case found == nil:
			return cty.NilVal, fmt.Errorf("regex %.80q finds nothing in %.80q", s[0], s[1])
		case len(found) == 1:
			return cty.StringVal(found[0]), nil
		default:
			return stringsVal(found[1:]), nil
		}
	})
	l.text("semver_match", 2, func(s []string) (cty.Value, error) {
		v, err := semver.NewVersion(s[0])
		if err != nil {
			return cty.NilVal, fmt.Errorf("version %.80q: %w", s[0], err)
		}
		c, err := semver.NewConstraint(s[1])
		if err != nil {
			return cty.NilVal, fmt.Errorf("constraint %.80q: %w", s[1], err)
		}
		return cty.BoolVal(c.Check(v)), nil
	})
}

// checkGlob refuses globs that are no globs, and those whose braces would be tried in too many ways.
func checkGlob(pattern string) error {
	switch {
	case len(pattern) > maxPattern:
		return fmt.Errorf("glob has %d bytes, more than the limit of %d", len(pattern), maxPattern)
	case strings.Count(pattern, "{") > maxBraces:
		return fmt.Errorf("glob %.80q has more than the limit of %d braces", pattern, maxBraces)
	case !doublestar.ValidatePattern(pattern):
		return fmt.Errorf("glob %.80q is malformed", pattern)
	}
	return nil
}

func compileRegexp(pattern string) (*regexp.Regexp, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("regular expression has %d bytes, more than the limit of %d", len(pattern), maxPattern)
	}
	return regexp.Compile(pattern)
}

// format knows %s, %q, %d, %v, %f and %% with flags and a width.
func (l *library) format(args []cty.Value) (cty.Value, error) {
	layout, err := l.str(args[0])
	if err != nil {
		return cty.NilVal, err
	}
	var b strings.Builder
	rest := args[1:]
	for {
		i := strings.IndexByte(layout, '%')
		if i < 0 {
			break
		}
		b.WriteString(layout[:i])
		verb, n, err := scanVerb(layout[i:])
		if err != nil {
			return cty.NilVal, err
		}
		layout = layout[i+n:]
		if verb == "%%" {
			b.WriteByte('%')
			continue
		}
		if len(rest) == 0 {
			return cty.NilVal, fmt.Errorf("format has nothing for %q", verb)
		}
		s, err := l.verb(verb, rest[0])
		if err != nil {
			return cty.NilVal, err
		}
		if err := l.room(b.Len() + len(s)); err != nil {
			return cty.NilVal, err
		}
		b.WriteString(s)
		rest = rest[1:]
	}
	if len(rest) > 0 {
		return cty.NilVal, fmt.Errorf("format has %d values too many", len(rest))
	}
	b.WriteString(layout)
	return cty.StringVal(b.String()), nil
}

// scanVerb returns the verb that s begins with, and its length.
func scanVerb(s string) (string, int, error) {
	n := 1
	for n < len(s) && strings.ContainsRune("+-# 0", rune(s[n])) {
		n++
	}
	for _, part := range []bool{false, true} {
		if part && n < len(s) && s[n] == '.' {
			n++
		}
		from := n
		for n < len(s) && s[n] >= '0' && s[n] <= '9' {
			n++
		}
		if w, _ := strconv.Atoi(s[from:n]); n-from > 4 || w > maxWidth {
			return "", 0, fmt.Errorf("format has a width beyond the limit of %d", maxWidth)
		}
	}
	if n >= len(s) || !strings.ContainsRune("sqdvf%", rune(s[n])) {
		return "", 0, errors.New("format knows %s, %q, %d, %v, %f and %%")
	}
	return s[:n+1], n + 1, nil
}

func (l *library) verb(verb string, v cty.Value) (string, error) {
	switch verb[len(verb)-1] {
	case 'd':
		n, ok := whole(v)
		if !ok {
			return "", fmt.Errorf("format %q needs a whole number", verb)
		}
		return fmt.Sprintf(verb, n), nil
	case 'f':
		if v.Type() != cty.Number {
			return "", fmt.Errorf("format %q needs a number", verb)
		}
		f, _ := v.AsBigFloat().Float64()
		return fmt.Sprintf(verb, f), nil
	default:
		s, err := l.str(v)
		return fmt.Sprintf(verb, s), err
	}
}

func (l *library) data() {
	l.def("jsonencode", 1, 1, func(args []cty.Value) (cty.Value, error) {
		if err := l.fuel.value(args[0]); err != nil {
			return cty.NilVal, err
		}
		b, err := ctyjson.Marshal(args[0], args[0].Type())
		return cty.StringVal(string(b)), err
	})
	l.text("jsondecode", 1, func(s []string) (cty.Value, error) {
		if err := jsonDepth(s[0]); err != nil {
			return cty.NilVal, err
		}
		t, err := ctyjson.ImpliedType([]byte(s[0]))
		if err != nil {
			return cty.NilVal, err
		}
		return ctyjson.Unmarshal([]byte(s[0]), t)
	})
	l.text("sha256", 1, func(s []string) (cty.Value, error) {
		sum := sha256.Sum256([]byte(s[0]))
		return cty.StringVal(hex.EncodeToString(sum[:])), nil
	})
	l.text("base64encode", 1, func(s []string) (cty.Value, error) {
		return cty.StringVal(base64.StdEncoding.EncodeToString([]byte(s[0]))), nil
	})
}

// jsonDepth refuses JSON that is nested deeper than a score may be; brackets in texts count too.
func jsonDepth(s string) error {
	depth := 0
	for i := range len(s) {
		switch s[i] {
		case '[', '{':
			if depth++; depth > maxNesting {
				return fmt.Errorf("JSON is nested deeper than the limit of %d", maxNesting)
			}
		case ']', '}':
			depth--
		}
	}
	return nil
}

// attempts are can, try and coalesce. The ones of HCL evaluate each argument twice, and so 2^64 times when
// nested 64 deep.
func (l *library) attempts() {
	l.out["try"] = closures(func(args []cty.Value) (cty.Value, error) {
		var last hcl.Diagnostics
		for _, a := range args {
			v, diags := customdecode.ExpressionClosureFromVal(a).Value()
			switch {
			case diags.HasErrors():
				last = diags
			case !v.IsWhollyKnown():
				return cty.DynamicVal, nil // it may still fail when it is known
			default:
				return v, nil
			}
		}
		if last != nil {
			return cty.NilVal, fmt.Errorf("no argument of try succeeds, the last one: %s", plainDiag(last[0]))
		}
		return cty.NilVal, errors.New("try takes at least 1 argument")
	})
	l.out["can"] = closures(func(args []cty.Value) (cty.Value, error) {
		if len(args) != 1 {
			return cty.NilVal, fmt.Errorf("can takes 1 argument, not %d", len(args))
		}
		v, diags := customdecode.ExpressionClosureFromVal(args[0]).Value()
		switch {
		case diags.HasErrors():
			return cty.False, nil
		case !v.IsWhollyKnown():
			return cty.UnknownVal(cty.Bool), nil
		}
		return cty.True, nil
	})
	l.out["coalesce"] = dynamic(1, -1, true, func(args []cty.Value) (cty.Value, error) {
		for _, a := range args {
			if !a.IsKnown() {
				return cty.DynamicVal, nil
			}
			if !a.IsNull() && !(a.Type() == cty.String && a.AsString() == "") {
				return a, nil
			}
		}
		return cty.NilVal, errors.New("coalesce finds no value that is neither null nor empty")
	})
}

func closures(body func([]cty.Value) (cty.Value, error)) function.Function {
	return function.New(&function.Spec{
		VarParam: &function.Parameter{Name: "expression", Type: customdecode.ExpressionClosureType},
		Type:     function.StaticReturnType(cty.DynamicPseudoType),
		Impl:     func(args []cty.Value, _ cty.Type) (cty.Value, error) { return body(args) },
	})
}
