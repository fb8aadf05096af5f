package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func artifactsCmd(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "artifacts [PATTERN]",
		Short: "Show what the nodes offer",
		Long: `Artifacts shows the latest version of each name and publisher, as far as this node has heard. In PATTERN * stands
for one segment of a name and ** for any number.

HASH is that of the content alone: equal content has an equal hash, whoever made it. HAVE says how many of the nodes
that want the artifact have it, - when none wants it. -o wide adds HOLDERS, all nodes known to have it.

With --watch HERE tells what this node has of each: a bar, the rate, from how many nodes, and the time left while it is
on its way. With -o ndjson that is the field "pull".`,
		Example: `  meshctl artifacts
  meshctl artifacts 'postcard/*'
  meshctl artifacts --all -l publisher=host
  meshctl artifacts --watch=1s
  meshctl artifacts -o json`,
		Args:              between(0, 1),
		ValidArgsFunction: completeWith(a, artifactNames),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		_, err := list(ctx, a, artifactListing(a), func(ctx context.Context) ([]control.Artifact, error) {
			return c.Artifacts(ctx, optional(args), all)
		})
		return err
	})
	cmd.Flags().BoolVar(&all, "all", false, "every version that is still offered")
	listFlags(a, cmd)
	return cmd
}

func artifactListing(a *app) listing[control.Artifact] {
	type art = control.Artifact
	l := listing[art]{
		name: func(x art) string { return x.Name },
		columns: []column[art]{
			{"NAME", false, func(x art) string { return x.Name }},
			{"VERSION", false, func(x art) string { return x.Version }},
			{"HASH", false, func(x art) string {
				if a.format == "wide" {
					return x.Hash
				}
				return shortHash(x.Hash)
			}},
			{"SIZE", false, func(x art) string { return sizeText(x.SizeBytes) }},
			{"FROM", false, func(x art) string { return x.Publisher }},
			{"HAVE", false, haveText},
			{"HOLDERS", true, func(x art) string { return commas(x.Holders) }},
			{"AGE", false, func(x art) string { return agoText(a.now(), x.PublishedAt) }},
		},
	}
	if a.watch > 0 {
		l.columns = append(l.columns, column[art]{"HERE", false, pullText})
	}
	return l
}

// haveText writes how many of those that want it have it.
func haveText(x control.Artifact) string {
	if len(x.Wanted) == 0 {
		return "-"
	}
	have := 0
	for _, node := range x.Wanted {
		if slices.Contains(x.Holders, node) {
			have++
		}
	}
	return fmt.Sprintf("%d/%d", have, len(x.Wanted))
}

// optional returns the first argument, or "".
func optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
