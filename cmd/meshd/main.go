// Command meshd is one node of a mesh: see meshd --help.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"meshd/agent"
)

// Exit codes (SPEC 4).
const (
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 78
)

// version is set by the build: -ldflags "-X main.version=1.2.3"; else what Go knows of the build counts.
var version string

func main() {
	if version == "" {
		version = builtVersion(debug.ReadBuildInfo())
	}
	os.Exit(run(os.Args[1:]))
}

// builtVersion is the module's version, a release or a commit, as go build and go install write it down.
func builtVersion(info *debug.BuildInfo, ok bool) string {
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "0.1.0-dev"
	}
	return strings.TrimPrefix(info.Main.Version, "v")
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second interrupt ends the program at once
	}()
	root := rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	var quiet *quietError
	if !errors.As(err, &quiet) {
		fmt.Fprintf(os.Stderr, "meshd: %v\n", err)
	}
	switch {
	case errors.As(err, new(*usageError)):
		return exitUsage
	case errors.Is(err, agent.ErrConfig):
		return exitConfig
	}
	return exitFailed
}

// A usageError is a command line that can't be meant.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() + "; see meshd --help" }
func (e *usageError) Unwrap() error { return e.err }

// A quietError was told already.
type quietError struct{ err error }

func (e *quietError) Error() string { return e.err.Error() }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

func rootCommand() *cobra.Command {
	start := runCommand()
	root := &cobra.Command{
		Use:   "meshd",
		Short: "A node of a peer-to-peer mesh that keeps its own promises",
		Long: `meshd runs one node of a mesh of autonomous agents. Each node reads a signed score, works
out its own roles from its tags, keeps its promises, and hands what it makes to the others
as hash-addressed artifacts. Nobody is in charge.

First start needs one of
  meshd init            makes a new mesh with this machine as its first member
  meshd --join TOKEN    joins a mesh; meshctl invite makes the token`,
		Example: `  meshd demo
  meshd init --data-dir /tmp/m --name host --tag kind=parent
  meshd --data-dir /tmp/m --listen 127.0.0.1:0`,
		Args:              noArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE:              start.RunE,
	}
	root.Flags().AddFlagSet(start.Flags())
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err} })
	root.AddCommand(start, initCommand(), configCommand(), demoCommand(), imageCommand(), versionCommand())
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command or argument %q for %s", args[0], cmd.CommandPath())
	}
	return nil
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "meshd", version)
			return err
		},
	}
}
