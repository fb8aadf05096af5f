package main

import (
	"context"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func withdrawCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "withdraw NAME",
		Short: "End this node's offer of an artifact",
		Long: `Withdraw ends the offer of every version of NAME that this node published. Nodes where a want placed it by a pattern
remove it; a plain file or folder that was placed stays. It is no error for others to publish the same name.`,
		Example:           `  meshctl withdraw app`,
		Args:              between(1, 1),
		ValidArgsFunction: completeWith(a, artifactNames),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		if err := c.Withdraw(ctx, args[0]); err != nil {
			return err
		}
		a.note("%s is withdrawn", args[0])
		return nil
	})
	return cmd
}
