package main

import (
	"context"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func forgetCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "forget NODE",
		Short: "Leave an absent node out of the lists here",
		Long: `Forget has this node list an absent node no longer, nor count what it wants. It is not expelled: when it is heard of
again it is listed again. The other nodes go on listing it. To expel a node for ever: meshctl revoke.`,
		Example:           `  meshctl forget container_1`,
		Args:              between(1, 1),
		ValidArgsFunction: completeWith(a, absentNodes),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		if err := c.Forget(ctx, args[0]); err != nil {
			return err
		}
		a.note("%s is forgotten here", args[0])
		return nil
	})
	return cmd
}
