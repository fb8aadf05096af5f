package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func tagCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tag",
		Short: "Change what this node says of itself",
		Long: `A node's tags decide which roles it plays. Those in its certificate are attested and stay; the others it declares, and
they can be changed while it runs.`,
		Example: `  meshctl tag set site=oslo`,
	}
	group(cmd)
	cmd.AddCommand(tagSetCmd(a))
	return cmd
}

func tagSetCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set KEY=VALUE...",
		Short: "Declare tags of this node; an empty value takes one away",
		Long: `Set declares tags of this node. They are kept over restarts; roles follow at once, and the other nodes hear of them. An
empty value takes a tag away: to a score an absent tag is "". Tags that the certificate attests, or that meshd was
started with, are refused. It prints all tags of the node.`,
		Example: `  meshctl tag set site=oslo shift=night
  meshctl tag set shift=
  meshctl tag set site=oslo -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return between(1, 1)(cmd, args)
			}
			return nil
		},
		ValidArgsFunction: completeTags(a),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		tags, err := parseTags(args)
		if err != nil {
			return err
		}
		all, err := c.SetTags(ctx, tags)
		if err != nil {
			return err
		}
		return printTags(a, all)
	})
	return cmd
}

// parseTags reads key=value, each key once.
func parseTags(args []string) (map[string]string, error) {
	tags := map[string]string{}
	for _, tag := range args {
		key, value, ok := strings.Cut(tag, "=")
		if _, twice := tags[key]; !ok || key == "" || twice {
			return nil, control.Errorf(control.Usage, "tag %q: want key=value, each key once", tag)
		}
		tags[key] = value
	}
	return tags, nil
}

// A tagItem is one tag of the node.
type tagItem struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

func printTags(a *app, tags map[string]string) error {
	items := []tagItem{}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		items = append(items, tagItem{k, tags[k]})
	}
	text, err := render(a, listing[tagItem]{
		name: func(t tagItem) string { return t.Key },
		columns: []column[tagItem]{
			{"KEY", false, func(t tagItem) string { return t.Key }},
			{"VALUE", false, func(t tagItem) string { return t.Value }},
		},
	}, items)
	if err == nil {
		_, err = fmt.Fprintf(a.stdout, "%s", text)
	}
	return err
}
