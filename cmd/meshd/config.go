package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"meshd/agent"
)

const (
	maxConfigBytes = 64 << 10
	nearName       = 3 // a name that differs in more letters was not meant
)

// origins say where each setting came from: flag name to words. What is not in it is the default.
type origins map[string]string

// settle gives each flag its value: from the command line, else the environment, else the configuration
// file, else its default. A faulty file is an error of the configuration, with file and line.
func settle(flags *pflag.FlagSet) (origins, error) {
	from := origins{}
	flags.Visit(func(f *pflag.Flag) { from[f.Name] = "flag --" + f.Name })
	if err := fromEnvironment(flags, from); err != nil {
		return nil, err
	}
	config := flags.Lookup("config")
	if config == nil || config.Value.String() == "" {
		return from, nil
	}
	return from, fromFile(config.Value.String(), flags, from)
}

// fromEnvironment fills flags that were not given from MESHD_DATA_DIR and the like. A list is separated by commas.
func fromEnvironment(flags *pflag.FlagSet, from origins) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		name := "MESHD_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value, set := os.LookupEnv(name)
		if f.Changed || !set || value == "" {
			return
		}
		values := []string{value}
		if _, list := f.Value.(pflag.SliceValue); list {
			values = strings.Split(value, ",")
		}
		for _, v := range values {
			if err := flags.Set(f.Name, v); err != nil {
				errs = append(errs, usagef("%s=%q: %v", name, value, err))
			}
		}
		from[f.Name] = "environment " + name
	})
	return errors.Join(errs...)
}

// fromFile fills the flags that nobody set from a file of NAME = VALUE, names as of the flags.
func fromFile(path string, flags *pflag.FlagSet, from origins) error {
	text, err := readConfig(path)
	if err != nil {
		return fmt.Errorf("%w: read the configuration: %w", agent.ErrConfig, err)
	}
	file, diags := hclsyntax.ParseConfig(text, path, hcl.InitialPos)
	if diags.HasErrors() {
		return inConfig(diags)
	}
	attributes, diags := file.Body.JustAttributes()
	if diags.HasErrors() {
		return inConfig(diags)
	}
	var errs []error
	for _, a := range byPlace(attributes) {
		f := flags.Lookup(a.Name)
		switch {
		case f == nil || f.Name == "config" || f.Name == "help" || f.Name == "origin":
			errs = append(errs, at(a.NameRange, "unknown name %q%s", a.Name, nearest(a.Name, flags)))
		case from[f.Name] == "":
			if err := setFrom(f, a, flags); err != nil {
				errs = append(errs, err)
			}
			from[f.Name] = fmt.Sprintf("file %s:%d", path, a.NameRange.Start.Line)
		}
	}
	return errors.Join(errs...)
}

func readConfig(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err == nil && len(text) > maxConfigBytes {
		err = fmt.Errorf("%s: over %d bytes", path, maxConfigBytes)
	}
	return text, err
}

func byPlace(attributes hcl.Attributes) []*hcl.Attribute {
	var list []*hcl.Attribute
	for _, a := range attributes {
		list = append(list, a)
	}
	slices.SortFunc(list, func(a, b *hcl.Attribute) int { return a.NameRange.Start.Byte - b.NameRange.Start.Byte })
	return list
}

// at words what is wrong in the file, and where.
func at(r hcl.Range, format string, args ...any) error {
	return fmt.Errorf("%w: %s:%d: %s", agent.ErrConfig, r.Filename, r.Start.Line, fmt.Sprintf(format, args...))
}

func inConfig(diags hcl.Diagnostics) error {
	d := diags[0]
	if d.Subject == nil {
		return fmt.Errorf("%w: %s", agent.ErrConfig, d.Summary)
	}
	return at(*d.Subject, "%s: %s", strings.ToLower(d.Summary), d.Detail)
}

// nearest proposes the flag that may have been meant.
func nearest(name string, flags *pflag.FlagSet) string {
	best, least := "", nearName+1
	flags.VisitAll(func(f *pflag.Flag) {
		if d := levenshtein.Distance(name, f.Name, nil); d < least && f.Name != "config" {
			best, least = f.Name, d
		}
	})
	if best == "" {
		return "; meshd config show lists the names"
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

func setFrom(f *pflag.Flag, a *hcl.Attribute, flags *pflag.FlagSet) error {
	value, diags := a.Expr.Value(nil)
	if diags.HasErrors() {
		return inConfig(diags)
	}
	values, err := words(value)
	if err != nil {
		return at(a.NameRange, "%s: %v", a.Name, err)
	}
	if _, list := f.Value.(pflag.SliceValue); !list && len(values) != 1 {
		return at(a.NameRange, "%s: want one value", a.Name)
	}
	for _, v := range values {
		if err := flags.Set(f.Name, v); err != nil {
			return at(a.NameRange, "%s: %v", a.Name, err)
		}
	}
	return nil
}

// words turns a value of the file into what would be typed behind a flag: a list is several, and so is an
// object, as KEY=VALUE.
func words(v cty.Value) ([]string, error) {
	switch {
	case v.IsNull() || !v.IsKnown():
		return nil, errors.New("want a value")
	case v.Type().IsObjectType():
		var out []string
		for key, item := range v.AsValueMap() {
			one, err := words(item)
			if err != nil || len(one) != 1 {
				return nil, fmt.Errorf("%q: want a text", key)
			}
			out = append(out, key+"="+one[0])
		}
		slices.Sort(out)
		return out, nil
	case v.Type().IsTupleType():
		var out []string
		for _, item := range v.AsValueSlice() {
			one, err := words(item)
			if err != nil {
				return nil, err
			}
			out = append(out, one...)
		}
		return out, nil
	}
	text, err := convert.Convert(v, cty.String)
	if err != nil {
		return nil, err
	}
	return []string{text.AsString()}, nil
}

func configCommand() *cobra.Command {
	var origin bool
	parent := &cobra.Command{Use: "config", Short: "Look at the settings that a start would have", Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		return usagef("config: want config show")
	}}
	show := &cobra.Command{
		Use: "show", Short: "Print every setting, and where it comes from", Args: noArgs,
		Long: `show takes the flags of meshd run, reads environment and configuration file as a start would,
and prints the outcome as a configuration file. A setting comes from its flag, else from the
environment (--data-dir is MESHD_DATA_DIR; lists with commas), else from the file, else it is
the default. --origin says which.`,
		Example: `  meshd config show
  meshd config show --origin
  MESHD_LISTEN=127.0.0.1:0 meshd config show --origin --log-level warn`,
	}
	node := &options{}
	node.flags(show.Flags())
	show.Flags().BoolVar(&origin, "origin", false, "say where each value comes from")
	show.RunE = func(cmd *cobra.Command, _ []string) error {
		from, err := settle(cmd.Flags())
		if err != nil {
			return err
		}
		return showConfig(cmd.OutOrStdout(), cmd.Flags(), from, origin)
	}
	parent.AddCommand(show)
	return parent
}

func showConfig(out io.Writer, flags *pflag.FlagSet, from origins, origin bool) error {
	var lines []string
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name == "origin" || f.Name == "help" || f.Name == "config" {
			return
		}
		line := fmt.Sprintf("%-13s = %s", f.Name, shown(f))
		if origin {
			where := from[f.Name]
			if where == "" {
				where = "default"
			}
			line = fmt.Sprintf("%-56s # %s", line, where)
		}
		lines = append(lines, line)
	})
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}

// shown is a flag's value as the file has it. A token admits whoever reads it, so it is not told.
func shown(f *pflag.Flag) string {
	switch v := f.Value.(type) {
	case pflag.SliceValue:
		list := v.GetSlice()
		for i, s := range list {
			list[i] = quoted(s)
		}
		return "[" + strings.Join(list, ", ") + "]"
	default:
		text := v.String()
		if f.Value.Type() == "bool" {
			return text
		}
		if f.Name == "join" && text != "" && text != "-" && !strings.HasPrefix(text, "@") {
			text = "(a token)"
		}
		return quoted(text)
	}
}

// quoted is s as an HCL string.
func quoted(s string) string {
	s = strconv.Quote(s)
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(s)
}
