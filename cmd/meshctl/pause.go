package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func pauseCmd(a *app) *cobra.Command {
	var d time.Duration
	var end bool
	cmd := &cobra.Command{
		Use:   "pause [PROMISE] --for DURATION",
		Short: "Keep this node's hands off a promise for a while",
		Long: `Pause has this node change nothing for a promise, or for any of its promises when none is named: to repair by hand, or
to look at a fault before it is gone. The node goes on looking. What is untrue is told as drifted, here and to the
others, with the reason; what needs it waits. The pause outlives a restart of meshd, and ends by itself.

A PROMISE without its key covers all keys. A promise that the score ends during the pause ends as always.`,
		Example: `  meshctl pause harvest.command.package --for 30m
  meshctl pause --for 1h
  meshctl pause harvest.command.package --end`,
		Args:              between(0, 1),
		ValidArgsFunction: completeWith(a, promiseAddresses),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		switch {
		case !end && d <= 0:
			return control.Errorf(control.Usage, "pause for how long? Give --for DURATION, as 30m or 2h, or --end")
		case end:
			d = 0
		}
		if err := c.Pause(ctx, optional(args), d); err != nil {
			return err
		}
		what := "this node"
		if len(args) > 0 {
			what = args[0]
		}
		if end {
			a.note("%s is paused no longer", what)
		} else {
			a.note("%s is paused for %v: meshctl pause --end ends it before", what, d)
		}
		return nil
	})
	cmd.Flags().DurationVar(&d, "for", 0, "how long: a `DURATION` as 90s, 30m or 2h")
	cmd.Flags().BoolVar(&end, "end", false, "end it now")
	cmd.MarkFlagsMutuallyExclusive("for", "end")
	return cmd
}
