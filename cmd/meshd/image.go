package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"meshd/agent/promise"
)

func imageCommand() *cobra.Command {
	var engine string
	cmd := &cobra.Command{
		Use: "image [NAME]", Short: "Make a container image of this very program", Args: cobra.MaximumNArgs(1),
		Long: `image makes a container image, FROM scratch, that holds this program and the meshctl beside it,
and nothing else. It asks no registry. Guests of kind docker and podman run meshd:latest unless
the score names another image. The program must be linked statically (CGO_ENABLED=0).`,
		Example: `  meshd image
  meshd image meshd:1.2 --engine podman`,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := "meshd:latest"
			if len(args) > 0 {
				name = args[0]
			}
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			programs := []string{exe}
			ctl := filepath.Join(filepath.Dir(exe), "meshctl")
			if _, err := os.Stat(ctl); err == nil {
				programs = append(programs, ctl)
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			engines := promise.NewEngines()
			defer func() { _ = engines.Close() }()
			e, err := engines.Open(engine)
			if err != nil {
				return usagef("--engine: %v", err)
			}
			if err := e.Import(cmd.Context(), name, programs...); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), name)
			return err
		},
	}
	cmd.Flags().StringVar(&engine, "engine", "docker", "docker or podman")
	return cmd
}
