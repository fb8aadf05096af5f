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

func membersCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "members",
		Short: "Show the nodes of the mesh as this node sees them",
		Long: `Members shows every node that this node has heard of, itself included. Nodes that are away stay listed.

STATUS is alive, suspect, left, failed or asleep; forked beside it marks a node whose key is in two places or whose
disk went back in time (meshctl doctor says more). PROMISES counts those kept or repaired of all that the node plays.
SEEN is the age of what we know: a node writes its roles and promises itself, and others pass them on.
-o wide adds ID, KIND (member or leaf), TAGS, VERSION and PLATFORM, and of nodes that are away HAD, what they had in place
of what they want, and WAITING, what has come since or they lacked then. It is kept for them for 90 days wherever it is
held, in copies without end.`,
		Example: `  meshctl members
  meshctl members -l kind=parent -o wide
  meshctl members -l status=failed -o wide
  meshctl members --watch
  meshctl members -o json`,
		Args: between(0, 0),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, _ []string) error {
		_, err := list(ctx, a, memberListing(a), c.Members)
		return err
	})
	listFlags(a, cmd)
	return cmd
}

func memberListing(a *app) listing[control.Member] {
	type m = control.Member
	return listing[m]{
		name: func(m m) string { return m.Name },
		tone: func(m m) tone { return outcomeTone(m.Status) },
		columns: []column[m]{
			{"NAME", false, func(m m) string { return m.Name }},
			{"ID", true, func(m m) string { return m.ID }},
			{"STATUS", false, statusText},
			{"KIND", true, func(m m) string { return m.Kind }},
			{"ROLES", false, func(m m) string { return commas(m.Roles) }},
			{"ADDRESS", false, func(m m) string { return m.Address }},
			{"RTT", false, func(m m) string { return rttText(m.RTTSeconds) }},
			{"PROMISES", false, func(m m) string { return countsText(m.Promises) }},
			{"SCORE", false, func(m m) string { return m.Score }},
			{"TAGS", true, func(m m) string { return tagsText(m.Tags) }},
			{"VERSION", true, func(m m) string { return m.Version }},
			{"PLATFORM", true, func(m m) string { return m.Platform }},
			{"HAD", true, func(m m) string { return commas(versions(m.Placed)) }},
			{"WAITING", true, waitingText},
			{"SEEN", false, func(m m) string { return agoText(a.now(), m.LastSeen) }},
		},
	}
}

// versions writes artifacts as NAME@VERSION.
func versions(list []control.Input) []string {
	out := make([]string, 0, len(list))
	for _, in := range list {
		out = append(out, in.Name+"@"+in.Version)
	}
	return out
}

// waitingText writes what waits for a member that is away, and how large it is.
func waitingText(m control.Member) string {
	if len(m.Waiting) == 0 {
		return ""
	}
	names := make([]string, 0, len(m.Waiting))
	for _, w := range m.Waiting {
		names = append(names, w.Name+"@"+w.Version)
	}
	return fmt.Sprintf("%s (%s)", commas(names), sizeText(m.WaitingBytes))
}

// statusText adds to the status what people must see.
func statusText(m control.Member) string {
	if m.Forked {
		return m.Status + ",forked"
	}
	return m.Status
}

// countsText writes how many promises hold of how many there are.
func countsText(c control.Counts) string {
	good := c.Kept + c.Repaired
	return fmt.Sprintf("%d/%d", good, good+c.Failed+c.Waiting+c.Drifted)
}

// tagsText writes tags sorted by key.
func tagsText(tags map[string]string) string {
	pairs := []string{}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		pairs = append(pairs, k+"="+tags[k])
	}
	return strings.Join(pairs, ",")
}
