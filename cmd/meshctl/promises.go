package main

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func promisesCmd(a *app) *cobra.Command {
	var node string
	var all, check, strict bool
	cmd := &cobra.Command{
		Use:   "promises [ADDRESS]",
		Short: "Show the promises of a node and how they stand",
		Long: `Promises shows what this node promised by the roles it plays: kept, repaired, failed, waiting or drifted.

With --check the exit code says whether all is well: 10 when one failed or drifted, with --strict also when one waits.
-o wide adds NODE, TYPE, REPAIRS and WHY.`,
		Example: `  meshctl promises
  meshctl promises --node container_2
  meshctl promises --all -l outcome=failed
  meshctl promises 'prepare.file.feed["container_1"]' -o json
  meshctl promises --check && echo all is well`,
		Args:              between(0, 1),
		ValidArgsFunction: completeWith(a, promiseAddresses),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, args []string) error {
		if check && a.watch > 0 {
			return control.Errorf(control.Usage, "--check looks once: leave --watch out")
		}
		items, err := list(ctx, a, promiseListing(a, all), func(ctx context.Context) ([]control.Promise, error) {
			return c.Promises(ctx, optional(args), node, all)
		})
		if err != nil || !(check || strict) {
			return err
		}
		return checkPromises(items, strict)
	})
	f := cmd.Flags()
	f.StringVar(&node, "node", "", "those of the node with this `NAME`, asked over the mesh")
	f.BoolVar(&all, "all", false, "those of every node that can be asked")
	f.BoolVar(&check, "check", false, "exit 10 if a promise failed or drifted")
	f.BoolVar(&strict, "strict", false, "like --check, and also exit 10 if a promise waits")
	cmd.MarkFlagsMutuallyExclusive("node", "all")
	_ = cmd.RegisterFlagCompletionFunc("node", completeWith(a, nodeNames))
	listFlags(a, cmd)
	return cmd
}

func promiseListing(a *app, all bool) listing[control.Promise] {
	type p = control.Promise
	return listing[p]{
		name: func(p p) string { return p.Address },
		tone: func(p p) tone { return outcomeTone(p.Outcome) },
		columns: []column[p]{
			{"NODE", !all, func(p p) string { return p.Node }},
			{"ADDRESS", false, func(p p) string { return p.Address }},
			{"TYPE", true, func(p p) string { return p.Type }},
			{"OUTCOME", false, func(p p) string { return p.Outcome }},
			{"SINCE", false, func(p p) string { return agoText(a.now(), p.Since) }},
			{"CHECKED", false, func(p p) string { return agoText(a.now(), p.CheckedAt) }},
			{"REPAIRS", true, func(p p) string { return strconv.Itoa(p.Repairs) }},
			{"WHY", true, func(p p) string { return p.Why }},
			{"REASON", false, func(p p) string { return p.Reason }},
		},
	}
}

// checkPromises is the verdict of --check.
func checkPromises(items []control.Promise, strict bool) error {
	n := map[string]int{}
	for _, p := range items {
		n[p.Outcome]++
	}
	// Not looked at yet is no promise kept, but time mends it: it counts as waiting.
	waiting := n["waiting"] + n["unknown"]
	if n["failed"]+n["drifted"] == 0 && (!strict || waiting == 0) {
		return nil
	}
	return control.Errorf(control.NotKept, "of %d promises %d failed, %d drifted, %d wait: meshctl why ADDRESS tells more",
		len(items), n["failed"], n["drifted"], waiting)
}
