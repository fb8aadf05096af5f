package main

import (
	"bytes"
	"context"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func policyDiffCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "diff DIR",
		Short: "Tell what a score would change on this node",
		Long: `Diff compares the score in force with the one in DIR, as this node would play them now, with its tags and facts: which
promises would be added, removed or changed, and which roles it would gain or lose. Nothing is changed. A promise that
only has another why is not disturbed, and not listed. -o wide adds WHY.`,
		Example: `  meshctl policy diff ./score
  meshctl policy diff ./score -l change=removed
  meshctl policy diff ./score -o json`,
		Args: between(1, 1),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		_, tar, err := readScore(args[0])
		if err != nil {
			return err
		}
		_, err = list(ctx, a, changeListing(), func(ctx context.Context) ([]control.Change, error) {
			return c.DiffScore(ctx, bytes.NewReader(tar))
		})
		return err
	})
	labelFlag(a, cmd)
	return cmd
}

func changeListing() listing[control.Change] {
	type c = control.Change
	return listing[c]{
		name: func(c c) string { return c.Name },
		columns: []column[c]{
			{"CHANGE", false, func(c c) string { return c.Change }},
			{"KIND", false, func(c c) string { return c.Kind }},
			{"NAME", false, func(c c) string { return c.Name }},
			{"WHY", true, func(c c) string { return c.Why }},
			{"PROBLEM", false, func(c c) string { return c.Problem }},
		},
	}
}
