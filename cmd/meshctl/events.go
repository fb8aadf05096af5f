package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func eventsCmd(a *app) *cobra.Command {
	var since time.Duration
	var follow bool
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happens, as it happens",
		Long: `Events shows the story one line an item: with --follow it goes on until interrupted (exit 130).
--since says how far back to begin; the default is the last minute.`,
		Example: `  meshctl events --follow
  meshctl events --since 1h
  meshctl events --follow -o ndjson`,
		Args: between(0, 0),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, _ []string) error {
		if since < 0 {
			return control.Errorf(control.Usage, "--since cannot be negative")
		}
		if !follow {
			_, err := list(ctx, a, storyListing(a), func(ctx context.Context) ([]control.StoryItem, error) {
				return c.Story(ctx, since, nil)
			})
			return err
		}
		if a.format == "json" {
			return control.Errorf(control.Usage, "--follow cannot go on in format %q: use -o ndjson", a.format)
		}
		return followEvents(ctx, a, c, since)
	})
	f := cmd.Flags()
	f.DurationVar(&since, "since", time.Minute, "begin this `DURATION` ago; 0 for all that is kept")
	f.BoolVarP(&follow, "follow", "f", false, "go on with what happens next")
	f.StringArrayVarP(&a.labels, "label", "l", nil, "only items with this `key=value`, by the fields of -o ndjson; all of several")
	return cmd
}

func followEvents(ctx context.Context, a *app, c *control.Client, since time.Duration) error {
	match, err := control.Labels[control.StoryItem](a.labels)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	_, err = c.Story(ctx, since, func(s control.StoryItem) error {
		if ok, err := match(s); err != nil || !ok {
			return err
		}
		switch a.format {
		case "ndjson":
			return enc.Encode(s)
		case "name":
			_, err := fmt.Fprintln(a.stdout, escape(s.ID))
			return err
		}
		_, err := fmt.Fprintln(a.stdout, eventLine(a, s))
		return err
	})
	return err
}

// eventLine writes one item with fixed widths: a stream cannot wait to see how wide its columns get.
func eventLine(a *app, s control.StoryItem) string {
	line := fmt.Sprintf("%s  %-12s  %-9s  %s", clockText(a.now(), s.At), dash(escape(s.Node)), dash(escape(s.Outcome)), escape(s.Subject))
	if s.Text != "" {
		line += ": " + escape(s.Text)
	}
	if t := outcomeTone(s.Outcome); t != plain && a.color && a.outTTY {
		line = string(t) + line + "\x1b[0m"
	}
	return line
}
