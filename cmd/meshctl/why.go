package main

import (
	"bytes"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func whyCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "why ARTIFACT|PROMISE|NODE",
		Short: "Tell the chain of causes back to the change that began it",
		Long: `Why tells why an artifact, a promise or a node is as it is: first the thing itself, then each cause, across nodes,
to the change that somebody made and the node where it was made.`,
		Example: `  meshctl why package
  meshctl why harvest.command.package
  meshctl why container_2 -o json`,
		Args:              between(1, 1),
		ValidArgsFunction: completeWith(a, artifactNames, promiseAddresses, nodeNames),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		chain, err := c.Why(ctx, args[0])
		if err != nil {
			return err
		}
		if a.format != "table" {
			text, err := render(a, storyListing(a), chain)
			if err == nil {
				_, err = a.stdout.Write(text)
			}
			return err
		}
		_, err = a.stdout.Write(chainText(a, chain))
		return err
	})
	return cmd
}

// chainText writes one line a link, each cause under what it led to.
func chainText(a *app, chain []control.StoryItem) []byte {
	var out bytes.Buffer
	for i, s := range chain {
		because := ""
		if i > 0 {
			because = "because "
		}
		fmt.Fprintf(&out, "%s  %-12s  %s%s", clockText(a.now(), s.At), dash(escape(s.Node)), because, escape(s.Subject))
		if s.Outcome != "" {
			fmt.Fprintf(&out, " %s", escape(s.Outcome))
		}
		if s.Text != "" {
			fmt.Fprintf(&out, ": %s", escape(s.Text))
		}
		out.WriteByte('\n')
	}
	return out.Bytes()
}
