package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"meshd/agent/control"
	"meshd/policies"
)

func policyCheckCmd(a *app) *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "check DIR",
		Short: "Check a score as text",
		Long: `Check reads the score in DIR and tells every error and warning with file, line and column, on stderr; with -o json
as items on stdout. It needs no daemon. The exit code is 1 for a score that would be refused, with --strict also for
warnings.`,
		Example: `  meshctl policy check ./score
  meshctl policy check --strict ./score
  meshctl policy check ./score -o json`,
		Args: between(1, 1),
	}
	cmd.RunE = a.do(func(_ context.Context, args []string) error {
		files, _, err := readScore(args[0])
		if err != nil {
			return err
		}
		found := policies.Vet(files)
		if a.format == "json" || a.format == "ndjson" {
			text, err := render(a, listing[finding]{}, findings(found))
			if err != nil {
				return err
			}
			if _, err := a.stdout.Write(text); err != nil {
				return err
			}
		} else {
			tellFindings(a, found)
		}
		return verdict(a, args[0], files, found, strict)
	})
	cmd.Flags().BoolVar(&strict, "strict", false, "exit 1 for warnings too")
	return cmd
}

// A finding is the JSON of one policies.Diagnostic.
type finding struct {
	Severity string `json:"severity"` // error, warning
	File     string `json:"file"`
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Summary  string `json:"summary"`
	Hint     string `json:"hint"`
}

func findings(found policies.Diagnostics) []finding {
	out := []finding{}
	for _, d := range found {
		word := "error"
		if d.Severity == policies.SeverityWarning {
			word = "warning"
		}
		out = append(out, finding{word, d.File, d.Line, d.Column, d.Summary, d.Hint})
	}
	return out
}

// tellFindings writes one line each, with no prefix of ours: editors read FILE:LINE:COLUMN at a line's start.
func tellFindings(a *app, found policies.Diagnostics) {
	for _, d := range found {
		fmt.Fprintln(a.stderr, escape(d.String()))
	}
}

// verdict sums the findings up: an error when the score would be refused.
func verdict(a *app, dir string, files map[string][]byte, found policies.Diagnostics, strict bool) error {
	errs := 0
	for _, d := range found {
		if d.Severity == policies.SeverityError {
			errs++
		}
	}
	warnings := len(found) - errs
	if errs > 0 || (strict && warnings > 0) {
		return control.Errorf(control.Failed, "score in %q: %s and %s", dir, count(errs, "error"), count(warnings, "warning"))
	}
	p, err := policies.Compile(files)
	if err != nil {
		return err
	}
	if a.format == "table" || a.format == "wide" {
		_, err = fmt.Fprintf(a.stdout, "%s %s: no error, %s\n", escape(p.Score().Name), escape(dash(p.Score().Version)), count(warnings, "warning"))
	}
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
