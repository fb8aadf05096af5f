package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func doctorCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is wrong with this node, and what to do",
		Long: `Doctor looks the node over: clock, port, peers, certificate and charter, forked logs, score, promises, free space,
quota, folder watches, peers that sent false bytes. Problems come first: something does not work. Then warnings: it will not
for long, or somebody else has to see to it. The exit code is 1 when there is a problem. A daemon that does not answer
is told with what to do about that, exit 3.`,
		Example: `  meshctl doctor
  meshctl doctor -l level=problem -o wide
  meshctl doctor -o json`,
		Args: between(0, 0),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, _ []string) error {
		var found []control.Trouble
		var err error
		if a.format == "table" && a.watch == 0 {
			found, err = prescribe(ctx, a, c)
		} else {
			found, err = list(ctx, a, troubleListing(), c.Doctor)
		}
		if err != nil {
			return err
		}
		problems := 0
		for _, t := range found {
			if t.Level == control.LevelProblem {
				problems++
			}
		}
		if problems > 0 {
			return control.Errorf(control.Failed, "%s found", count(problems, "problem"))
		}
		return nil
	})
	listFlags(a, cmd)
	return cmd
}

// prescribe writes each trouble and its remedy on lines of their own.
func prescribe(ctx context.Context, a *app, c *control.Client) ([]control.Trouble, error) {
	match, err := control.Labels[control.Trouble](a.labels)
	if err != nil {
		return nil, err
	}
	all, err := c.Doctor(ctx)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	found := []control.Trouble{}
	for _, t := range all {
		ok, err := match(t)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		found = append(found, t)
		line := fmt.Sprintf("%s  %s  %s: %s", t.Level, t.Check, escape(t.Subject), escape(t.Text))
		if a.color && a.outTTY {
			line = string(levelTone(t.Level)) + line + "\x1b[0m"
		}
		fmt.Fprintf(&out, "%s\n    do: %s\n", line, escape(t.Advice))
	}
	if len(found) == 0 {
		fmt.Fprintln(&out, "nothing is wrong")
	}
	_, err = a.stdout.Write(out.Bytes())
	return found, err
}

func levelTone(level string) tone {
	if level == control.LevelProblem {
		return alarm
	}
	return heed
}

func troubleListing() listing[control.Trouble] {
	type t = control.Trouble
	return listing[t]{
		name: func(t t) string { return t.Subject },
		tone: func(t t) tone { return levelTone(t.Level) },
		columns: []column[t]{
			{"LEVEL", false, func(t t) string { return t.Level }},
			{"CHECK", false, func(t t) string { return t.Check }},
			{"SUBJECT", false, func(t t) string { return t.Subject }},
			{"TEXT", false, func(t t) string { return t.Text }},
			{"ADVICE", true, func(t t) string { return t.Advice }},
		},
	}
}
