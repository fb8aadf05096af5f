package main

import (
	"context"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func versionCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of meshctl and of the daemon that answers",
		Long: `Version shows what this meshctl was built from and, when a daemon answers, the same of it, with the node and mesh it
is. That none answers is told and is no error.`,
		Example: `  meshctl version
  meshctl version -o json`,
		Args: between(0, 0),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, _ []string) error {
		versions := []control.Version{ownVersion()}
		daemon, err := c.Version(ctx)
		if err == nil {
			versions = append(versions, daemon)
		} else if ctx.Err() != nil {
			return err
		}
		text, renderErr := render(a, versionListing(), versions)
		if renderErr != nil {
			return renderErr
		}
		if _, werr := a.stdout.Write(text); werr != nil {
			return werr
		}
		if err != nil {
			a.note("%v", err)
		}
		return nil
	})
	return cmd
}

func ownVersion() control.Version {
	v := control.Version{Program: "meshctl", Version: "unknown", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Version = info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Revision = s.Value
		}
	}
	return v
}

func versionListing() listing[control.Version] {
	type v = control.Version
	return listing[v]{
		name: func(v v) string { return v.Program },
		columns: []column[v]{
			{"PROGRAM", false, func(v v) string { return v.Program }},
			{"VERSION", false, func(v v) string { return v.Version }},
			{"REVISION", true, func(v v) string { return v.Revision }},
			{"GO", false, func(v v) string { return v.Go }},
			{"PLATFORM", false, func(v v) string { return v.Platform }},
			{"NODE", false, func(v v) string { return v.Node }},
			{"ID", true, func(v v) string { return v.NodeID }},
			{"MESH", false, func(v v) string { return v.Mesh }},
		},
	}
}
