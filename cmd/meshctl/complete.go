package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

const completeLimit = time.Second // a shell waits for it

// completeWith offers the names that sources find, for the first argument. A daemon that does not answer offers none.
func completeWith(a *app, sources ...func(context.Context, *control.Client) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		c, err := a.client()
		if err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeLimit)
		defer cancel()
		names := []cobra.Completion{}
		for _, source := range sources {
			names = append(names, source(ctx, c)...)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func artifactNames(ctx context.Context, c *control.Client) []string {
	items, err := c.Artifacts(ctx, "", false)
	return namesOf(items, err, func(x control.Artifact) string { return x.Name })
}

func promiseAddresses(ctx context.Context, c *control.Client) []string {
	items, err := c.Promises(ctx, "", "", false)
	return namesOf(items, err, func(p control.Promise) string { return p.Address })
}

func nodeNames(ctx context.Context, c *control.Client) []string {
	items, err := c.Members(ctx)
	return namesOf(items, err, func(m control.Member) string { return m.Name })
}

func namesOf[T any](items []T, err error, name func(T) string) []string {
	if err != nil {
		return nil
	}
	names := make([]string, len(items))
	for i, item := range items {
		names[i] = escape(name(item))
	}
	return names
}
