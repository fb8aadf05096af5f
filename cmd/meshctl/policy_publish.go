package main

import (
	"bytes"
	"context"

	"github.com/spf13/cobra"

	"meshd/agent/control"
	"meshd/policies"
)

func policyPublishCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "publish DIR",
		Short: "Put a score in force on every node",
		Long: `Publish checks the score in DIR, hands it to the daemon, which signs it, and spreads it: every node that hears of it
plays it when it is newer than its own. It works on a node whose key the charter lets set the score. A faulty score is
not sent. It prints the score as policy show does.`,
		Example: `  meshctl policy publish ./score
  meshctl policy publish ./score -o json`,
		Args: between(1, 1),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		files, tar, err := readScore(args[0])
		if err != nil {
			return err
		}
		found := policies.Vet(files)
		tellFindings(a, found)
		if found.HasErrors() {
			return control.Errorf(control.Failed, "score in %q is faulty and was not sent: mend it and check it with meshctl policy check", args[0])
		}
		score, err := c.PublishScore(ctx, bytes.NewReader(tar))
		if err != nil {
			return err
		}
		return printScore(a, score)
	})
	return cmd
}
