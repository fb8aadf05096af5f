package main

import (
	"context"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func logsCmd(a *app) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs PROMISE",
		Short: "Show what a promise's command or process printed",
		Long: `Logs writes what the command, process or guest of a promise of this node printed, as far as the node keeps it.
The bytes are as they were printed. With --follow it goes on with what is printed next, until interrupted (exit 130) or
until the promise ends.`,
		Example: `  meshctl logs harvest.command.package
  meshctl logs 'children.guest.child["container_1"]'
  meshctl logs -f harvest.command.package`,
		Args:              between(1, 1),
		ValidArgsFunction: completeWith(a, promiseAddresses),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		return c.Logs(ctx, args[0], follow, a.stdout)
	})
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is printed next")
	return cmd
}
