package main

import (
	"context"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func retryCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "retry PROMISE",
		Short: "Look at a promise of this node now, whatever its backoff",
		Long: `Retry has this node look at a promise at once. It does not wait for the outcome: see meshctl promises, or
meshctl events --follow.`,
		Example:           `  meshctl retry harvest.command.package`,
		Args:              between(1, 1),
		ValidArgsFunction: completeWith(a, promiseAddresses),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		if err := c.Retry(ctx, args[0]); err != nil {
			return err
		}
		a.note("%s will be looked at now", args[0])
		return nil
	})
	return cmd
}
