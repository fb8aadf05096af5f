package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func limitCmd(a *app) *cobra.Command {
	var egress, ingress, class string
	var reset bool
	cmd := &cobra.Command{
		Use:   "limit",
		Short: "Cap what artifacts take of this node's links",
		Long: `Limit shows the caps on the bytes a second that artifacts take, or sets some. They hold at once, also for what is
under way, and over restarts, until meshd is started or reloaded with other settings (--egress, --ingress) or --reset.
Gossip, records and questions are small, are not counted, and never wait behind artifacts.

A RATE is bytes a second: 800KB, 1.5MiB, 8Mbit; none takes a cap away; the least is 32KiB. Without --class a cap is
on all links together. lan is loopback, private and link-local addresses, wan all others: to go easy on the line to
the world and use the own network in full, cap wan alone.`,
		Example: `  meshctl limit
  meshctl limit --egress 1MB --ingress 4MB
  meshctl limit --class wan --egress 8Mbit
  meshctl limit --egress none
  meshctl limit --reset`,
		Args: between(0, 0),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, _ []string) error {
		flags := cmd.Flags()
		change := control.LimitChange{Class: class, Reset: reset}
		for name, rate := range map[string]**int64{"egress": &change.Egress, "ingress": &change.Ingress} {
			if !flags.Changed(name) {
				continue
			}
			n, err := control.ParseRate(flags.Lookup(name).Value.String())
			if err != nil {
				return err
			}
			*rate = &n
		}
		ordered := change.Egress != nil || change.Ingress != nil
		var ask func(context.Context) ([]control.Limit, error)
		switch {
		case reset && (ordered || flags.Changed("class")):
			return control.Errorf(control.Usage, "--reset takes back all caps: leave the other flags out")
		case !reset && !ordered && flags.Changed("class"):
			return control.Errorf(control.Usage, "what about class %s? Give --egress RATE, --ingress RATE, or both", class)
		case reset || ordered:
			if err := change.Check(); err != nil {
				return err
			}
			ask = func(ctx context.Context) ([]control.Limit, error) { return c.SetLimit(ctx, change) }
		default:
			ask = c.Limits
		}
		items, err := ask(ctx)
		if err != nil {
			return err
		}
		text, err := render(a, limitListing(), items)
		if err == nil {
			_, err = a.stdout.Write(text)
		}
		return err
	})
	cmd.Flags().StringVar(&egress, "egress", "", "cap what goes out to this `RATE`, or none")
	cmd.Flags().StringVar(&ingress, "ingress", "", "cap what comes in to this `RATE`, or none")
	cmd.Flags().StringVar(&class, "class", control.ClassAll, "of which links: "+strings.Join(control.Classes(), ", "))
	cmd.Flags().BoolVar(&reset, "reset", false, "go back to the caps that meshd was started with")
	_ = cmd.RegisterFlagCompletionFunc("class", cobra.FixedCompletions(slices.Clone(control.Classes()), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func limitListing() listing[control.Limit] {
	type l = control.Limit
	return listing[l]{
		name: func(l l) string { return l.Class },
		columns: []column[l]{
			{"CLASS", false, func(l l) string { return l.Class }},
			{"EGRESS", false, func(l l) string { return control.RateText(l.EgressBytesPerSecond) }},
			{"INGRESS", false, func(l l) string { return control.RateText(l.IngressBytesPerSecond) }},
		},
	}
}
