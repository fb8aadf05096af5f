package main

import (
	"os"

	"github.com/spf13/cobra"

	"meshd/deploy/demo"
)

func demoCommand() *cobra.Command {
	var o demo.Options
	var docker bool
	cmd := &cobra.Command{
		Use: "demo", Short: "Play the postcard pipeline on this machine, with faults, in under 30 s", Args: noArgs,
		Long: `demo plays the pipeline of "Self-Repairing Deployment Pipelines" on this machine: a parent that
spawns three children, each a real meshd in a process of its own, on loopback and in a temporary
folder. It changes a job slip, kills a child, cuts one off, damages a result, and checks every
final state. Exit 0 only if all hold; nothing is left behind.`,
		Example: `  meshd demo
  meshd demo --keep
  meshd demo -o ndjson`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if docker {
				return usagef("--docker is not yet supported by this version")
			}
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
	cmd.Flags().BoolVar(&docker, "docker", false, "children in containers (not yet supported)")
	return cmd
}
