package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func rolesCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "roles",
		Short: "Show which roles this node plays, and because of what",
		Long: `Roles shows each role of the score in force: whether this node holds it, and the tags and facts that decided so.
HELD is "unknown" while a fact it hangs on has not been gathered. -o wide adds WHY, from the score.`,
		Example: `  meshctl roles
  meshctl roles -l held=true -o name
  meshctl roles -o json`,
		Args: between(0, 0),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, _ []string) error {
		_, err := list(ctx, a, roleListing(), c.Roles)
		return err
	})
	listFlags(a, cmd)
	return cmd
}

func roleListing() listing[control.Role] {
	type r = control.Role
	return listing[r]{
		name: func(r r) string { return r.Name },
		columns: []column[r]{
			{"NAME", false, func(r r) string { return r.Name }},
			{"HELD", false, func(r r) string {
				switch {
				case r.Unknown:
					return "unknown"
				case r.Held:
					return "yes"
				}
				return "no"
			}},
			{"WHY", true, func(r r) string { return r.Why }},
			{"BECAUSE", false, func(r r) string { return strings.Join(r.Because, "; ") }},
		},
	}
}
