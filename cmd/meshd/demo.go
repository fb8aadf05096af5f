package main

import (
	"os"

	"github.com/spf13/cobra"

	"meshd/deploy/demo"
)

func demoCommand() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use: "demo", Short: "Play the postcard pipeline on this machine, with faults, in under 30 s", Args: noArgs,
		Long: `demo plays the pipeline of "Self-Repairing Deployment Pipelines" on this machine: a parent that
spawns three children, each a real meshd in a process of its own, on loopback and in a temporary
folder. It changes a job slip, kills a child, cuts one off, damages a result, and checks every
final state. Exit 0 only if all hold; nothing is left behind.

With --docker the children live in containers on the engine's own bridge, in an image made of
this program; the parent, a process, listens on the bridge's gateway alone. Containers are
removed and changed behind its back, and are made anew; one that it did not make is left alone.`,
		Example: `  meshd demo
  meshd demo --keep
  meshd demo --docker
  meshd demo -o ndjson`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Output != "text" && o.Output != "ndjson" {
				return usagef("-o %q: want text or ndjson", o.Output)
			}
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			o.Exe, o.Out = exe, cmd.OutOrStdout()
			return demo.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().BoolVar(&o.Keep, "keep", false, "keep the nodes running and the folder, and say how to talk to them")
	cmd.Flags().StringVarP(&o.Output, "output", "o", "text", "text or ndjson")
	cmd.Flags().BoolVar(&o.Docker, "docker", false, "children in containers; this program must be linked statically (CGO_ENABLED=0)")
	return cmd
}
