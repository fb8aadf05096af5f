package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func offlineCmd(a *app) *cobra.Command {
	var d time.Duration
	var end bool
	cmd := &cobra.Command{
		Use:   "offline",
		Short: "Close all links of this node for a while",
		Long: `Offline has this node close every link and send and take no packet, as if its cable were pulled, for a while or
until meshctl offline --end. It goes on keeping what promises need no peer, and catches up when it is back.`,
		Example: `  meshctl offline --for 30s
  meshctl offline
  meshctl offline --end`,
		Args: between(0, 0),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, _ []string) error {
		if d < 0 {
			return control.Errorf(control.Usage, "--for %v: cannot be negative", d)
		}
		if err := c.Offline(ctx, d, !end); err != nil {
			return err
		}
		switch {
		case end:
			a.note("the node is back on line")
		case d == 0:
			a.note("the node is off line until meshctl offline --end")
		default:
			a.note("the node is off line for %v", d)
		}
		return nil
	})
	cmd.Flags().DurationVar(&d, "for", 0, "come back after this `DURATION`; 0 for not by itself")
	cmd.Flags().BoolVar(&end, "end", false, "come back now")
	cmd.MarkFlagsMutuallyExclusive("for", "end")
	return cmd
}
