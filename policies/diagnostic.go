package policies

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// Severity says whether a finding stops the score. The zero value is an error.
type Severity uint8

// An error refuses the whole score; a warning is told and the score plays.
const (
	SeverityError Severity = iota
	SeverityWarning
)

// What one check tells is bounded: a broken file can yield one finding a line, and a name of a million letters.
const (
	maxDiagnostics   = 100
	maxFindingLength = 600 // bytes of a summary, and of a hint
)

// A Diagnostic is one finding about the text of a score, at its place.
type Diagnostic struct {
	Severity Severity
	File     string // name in the bundle, "" when the finding is about the whole bundle
	Line     int    // from 1; 0 when there is no place
	Column   int    // from 1, in characters
	Summary  string // what is wrong, lower case, no full stop
	Hint     string // what to do next, "" when there is nothing to say
}

// String returns one line: FILE:LINE:COLUMN: SUMMARY (HINT).
func (d Diagnostic) String() string {
	var b strings.Builder
	if d.File != "" {
		fmt.Fprintf(&b, "%s:%d:%d: ", d.File, d.Line, d.Column)
	}
	if d.Severity == SeverityWarning {
		b.WriteString("warning: ")
	}
	b.WriteString(d.Summary)
	if d.Hint != "" {
		fmt.Fprintf(&b, " (%s)", d.Hint)
	}
	return b.String()
}

// Diagnostics are findings sorted by file, line, column. As an error they read one line each.
type Diagnostics []Diagnostic

// Error returns the findings, one a line.
func (ds Diagnostics) Error() string {
	lines := make([]string, len(ds))
	for i, d := range ds {
		lines[i] = d.String()
	}
	return strings.Join(lines, "\n")
}

// HasErrors reports whether one of the findings refuses the score.
func (ds Diagnostics) HasErrors() bool {
	return slices.ContainsFunc(ds, func(d Diagnostic) bool { return d.Severity == SeverityError })
}

// errors returns the findings without the warnings.
func (ds Diagnostics) errors() Diagnostics {
	var out Diagnostics
	for _, d := range ds {
		if d.Severity == SeverityError {
			out = append(out, d)
		}
	}
	return out
}

// report collects findings; its methods are called from one goroutine.
type report struct {
	found Diagnostics
	seen  map[Diagnostic]bool
	more  int // findings beyond maxDiagnostics
}

func (r *report) add(d Diagnostic) {
	d.Summary, d.Hint = clip(d.Summary), clip(d.Hint)
	if r.seen == nil {
		r.seen = map[Diagnostic]bool{}
	}
	if r.seen[d] {
		return
	}
	if len(r.found) >= maxDiagnostics && (d.Severity == SeverityWarning || r.found.HasErrors()) {
		r.more++
		return
	}
	r.seen[d] = true
	r.found = append(r.found, d)
}

// clip cuts a text that is too long to be read anyway.
func clip(s string) string {
	if len(s) <= maxFindingLength {
		return s
	}
	return strings.ToValidUTF8(s[:maxFindingLength], "") + "..."
}

func at(sev Severity, rng hcl.Range, hint, format string, args ...any) Diagnostic {
	return Diagnostic{
		Severity: sev, File: rng.Filename, Line: rng.Start.Line, Column: rng.Start.Column,
		Summary: fmt.Sprintf(format, args...), Hint: hint,
	}
}

func (r *report) errorf(rng hcl.Range, hint, format string, args ...any) {
	r.add(at(SeverityError, rng, hint, format, args...))
}

func (r *report) warnf(rng hcl.Range, hint, format string, args ...any) {
	r.add(at(SeverityWarning, rng, hint, format, args...))
}

// syntax takes over what the HCL parser found.
func (r *report) syntax(diags hcl.Diagnostics) {
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		var rng hcl.Range
		if d.Subject != nil {
			rng = *d.Subject
		}
		r.errorf(rng, "", "%s", plainDiag(d))
	}
}

// plainDiag words an HCL diagnostic in the house style: one line, lower case, no full stop.
func plainDiag(d *hcl.Diagnostic) string {
	text := d.Summary
	if d.Detail != "" {
		text += ": " + d.Detail
	}
	if rest, ok := strings.CutPrefix(d.Detail, "Call to function "); ok {
		text = rest // "join" failed: ...
	}
	text = strings.TrimRight(strings.Join(strings.Fields(text), " "), ".")
	return lowerFirst(text)
}

func lowerFirst(s string) string {
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && (s[1] < 'A' || s[1] > 'Z') {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

// sorted ends the collection.
func (r *report) sorted() Diagnostics {
	slices.SortStableFunc(r.found, func(a, b Diagnostic) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Summary, b.Summary))
	})
	if r.more > 0 {
		r.found = append(r.found, Diagnostic{
			Severity: SeverityWarning,
			Summary:  fmt.Sprintf("%d more findings are not shown", r.more), Hint: "mend these first",
		})
	}
	return r.found
}
