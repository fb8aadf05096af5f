package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func storyCmd(a *app) *cobra.Command {
	var since time.Duration
	cmd := &cobra.Command{
		Use:   "story",
		Short: "Tell what happened, and because of what",
		Long: `Story tells what this node did and saw, oldest first, from its journal: it is the same after a restart. The journal
is bounded; without --since all of it is told. -o wide adds ID, KIND and CAUSE (the ID of what led to it).`,
		Example: `  meshctl story --since 10m
  meshctl story -l subject=package
  meshctl story -o ndjson`,
		Args: between(0, 0),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, _ []string) error {
		if since < 0 {
			return control.Errorf(control.Usage, "--since cannot be negative")
		}
		_, err := list(ctx, a, storyListing(a), func(ctx context.Context) ([]control.StoryItem, error) {
			return c.Story(ctx, since, nil)
		})
		return err
	})
	cmd.Flags().DurationVar(&since, "since", 0, "only the last `DURATION`, as 90s, 10m or 24h")
	listFlags(a, cmd)
	return cmd
}

func storyListing(a *app) listing[control.StoryItem] {
	type s = control.StoryItem
	return listing[s]{
		name: func(s s) string { return s.ID },
		tone: func(s s) tone { return outcomeTone(s.Outcome) },
		columns: []column[s]{
			{"AT", false, func(s s) string { return clockText(a.now(), s.At) }},
			{"ID", true, func(s s) string { return s.ID }},
			{"NODE", false, func(s s) string { return s.Node }},
			{"KIND", true, func(s s) string { return s.Kind }},
			{"SUBJECT", false, func(s s) string { return s.Subject }},
			{"OUTCOME", false, func(s s) string { return s.Outcome }},
			{"CAUSE", true, func(s s) string { return s.Cause }},
			{"TEXT", false, func(s s) string { return s.Text }},
		},
	}
}
