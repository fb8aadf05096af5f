package main

import (
	"context"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func revokeCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke NODE",
		Short: "Expel a node for ever",
		Long: `Revoke expels the node of this name or id: its key is refused by every node that hears of it, and its connections
are closed. There is no way back for the key; the machine may join again with a new invite.`,
		Example:           `  meshctl revoke till-7`,
		Args:              between(1, 1),
		ValidArgsFunction: completeWith(a, nodeNames),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		if err := c.Revoke(ctx, args[0]); err != nil {
			return err
		}
		a.note("%s is revoked", args[0])
		return nil
	})
	return cmd
}
