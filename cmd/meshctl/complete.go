package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

const completeLimit = time.Second // a shell waits for it

// A source finds live names to complete with.
type source func(context.Context, *control.Client) []string

// completeWith offers the names that sources find, for the first argument. A daemon that does not answer offers none.
func completeWith(a *app, sources ...source) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return liveNames(a, cmd, sources...)
	}
}

// liveNames asks the daemon, for a short while.
func liveNames(a *app, cmd *cobra.Command, sources ...source) ([]cobra.Completion, cobra.ShellCompDirective) {
	c, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeLimit)
	defer cancel()
	names := []cobra.Completion{}
	for _, find := range sources {
		names = append(names, find(ctx, c)...)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeTags offers the tags that this node has, as KEY=, but for those that are given already.
func completeTags(a *app) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		names, _ := liveNames(a, cmd, ownTags)
		names = slices.DeleteFunc(names, func(name string) bool {
			return slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, name) })
		})
		return names, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
}

func ownTags(ctx context.Context, c *control.Client) []string {
	var tags []string
	items, err := c.Members(ctx)
	for _, m := range items {
		for k := range m.Tags {
			if err == nil && m.Self {
				tags = append(tags, escape(k)+"=")
			}
		}
	}
	slices.Sort(tags)
	return tags
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

func absentNodes(ctx context.Context, c *control.Client) []string {
	items, err := c.Members(ctx)
	items = slices.DeleteFunc(items, func(m control.Member) bool { return m.Self || m.Status == "alive" || m.Status == "suspect" })
	return namesOf(items, err, func(m control.Member) string { return m.Name })
}

func scoreVersions(ctx context.Context, c *control.Client) []string {
	items, err := c.Artifacts(ctx, scoreArtifact, true)
	return namesOf(items, err, func(x control.Artifact) string { return x.Version })
}

// namesOf lists names, each once.
func namesOf[T any](items []T, err error, name func(T) string) []string {
	if err != nil {
		return nil
	}
	names := []string{}
	for _, item := range items {
		if n := escape(name(item)); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}
