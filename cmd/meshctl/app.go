package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

// An app is one run of meshctl.
type app struct {
	stdout, stderr io.Writer
	outTTY, errTTY bool
	color          bool // allowed at all; used on a terminal alone
	now            func() time.Time
	height         func() int // lines of the terminal; 0: not known

	// Set by flags.
	addr, dataDir string
	format        format
	noHeaders     bool
	timeout       time.Duration // 0: the client's own limits
	labels        []string
	watch         time.Duration // 0: once

	// started is set when the command line was understood: what fails before that is wrong usage.
	started bool
}

// run executes one command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) control.Code {
	root := newRoot(a)
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		return control.Interrupted
	}
	a.note("%v", err)
	if !a.started {
		return control.Usage
	}
	return control.CodeOf(err)
}

// note tells the operator something that is not data: each line on stderr with our name before it.
func (a *app) note(layout string, args ...any) {
	for line := range strings.SplitSeq(strings.TrimRight(fmt.Sprintf(layout, args...), "\n"), "\n") {
		fmt.Fprintf(a.stderr, "meshctl: %s\n", escape(line))
	}
}

// client returns the way to the daemon that the flags name.
func (a *app) client() (*control.Client, error) { return control.NewClient(a.addr, a.dataDir) }

// do makes a command's RunE: it marks that the command line was understood and puts --timeout on what follows.
func (a *app) do(f func(ctx context.Context, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		a.started = true
		ctx := cmd.Context()
		if a.timeout > 0 {
			late := control.Errorf(control.TimedOut, "not done in %v: ask again with a longer --timeout", a.timeout)
			limited, cancel := context.WithTimeoutCause(ctx, a.timeout, late)
			defer cancel()
			ctx = limited
		}
		return f(ctx, args)
	}
}

// ask is do for a command that needs the daemon.
func (a *app) ask(f func(ctx context.Context, c *control.Client, args []string) error) func(*cobra.Command, []string) error {
	return a.do(func(ctx context.Context, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return f(ctx, c, args)
	})
}

// newRoot builds the whole command tree.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "meshctl",
		Short: "Ask a meshd, and give it orders",
		Long: `meshctl talks to the meshd of this machine over its unix socket. It shows the mesh as that node sees it:
its members, the artifacts they offer, the promises they keep, and why things happened.

Without a daemon it checks, lays out and tells scores (meshctl policy check, fmt and story).`,
		Example: `  meshctl members
  meshctl promises --check
  meshctl publish app ./build
  meshctl why app -o json`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	group(root)
	if a.height == nil {
		a.height = func() int { return 0 }
	}
	root.SetFlagErrorFunc(flagError)
	a.format = "table"
	f := root.PersistentFlags()
	f.StringVar(&a.addr, "addr", "", "where the daemon listens: unix:///PATH or http://127.0.0.1:PORT (default $MESHCTL_ADDR)")
	f.StringVar(&a.dataDir, "data-dir", "", "data folder of the daemon, in place of --addr (default $MESHD_DATA_DIR)")
	f.VarP(&a.format, "output", "o", "table, wide, json, ndjson or name (default $MESHCTL_OUTPUT, else table)")
	f.BoolVar(&a.noHeaders, "no-headers", false, "leave the heading out of tables")
	f.DurationVar(&a.timeout, "timeout", 0, "give up after this long (default 30s for a question, no limit for what streams)")
	root.MarkFlagsMutuallyExclusive("addr", "data-dir")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if a.timeout < 0 || a.watch < 0 {
			return fmt.Errorf("a time cannot be negative")
		}
		if env := os.Getenv("MESHCTL_OUTPUT"); env != "" && !cmd.Flags().Changed("output") {
			if err := a.format.Set(env); err != nil {
				return fmt.Errorf("$MESHCTL_OUTPUT: %w", err)
			}
		}
		return nil
	}
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	root.AddCommand(
		membersCmd(a), artifactsCmd(a), promisesCmd(a), rolesCmd(a), storyCmd(a), eventsCmd(a), whyCmd(a),
		publishCmd(a), getCmd(a), withdrawCmd(a), retryCmd(a), pauseCmd(a), logsCmd(a), graphCmd(a), doctorCmd(a),
		inviteCmd(a), revokeCmd(a), forgetCmd(a), tagCmd(a), offlineCmd(a), limitCmd(a), bundleCmd(a), policyCmd(a), versionCmd(a),
	)
	root.AddCommand(topicCmds()...)
	return root
}

// group makes cmd a holder of sub-commands: alone it shows its help, with an unknown name it is an error.
func group(cmd *cobra.Command) {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(cmd, args[0])
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
}

func unknownCommand(cmd *cobra.Command, name string) error {
	hint := ""
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		hint = fmt.Sprintf(" (did you mean %q?)", near[0])
	}
	return fmt.Errorf("unknown command %q for %q%s: see %s --help", name, cmd.CommandPath(), hint, cmd.CommandPath())
}

// flagError says what a wrong flag was given to; a wrong command before it is the better thing to say.
func flagError(cmd *cobra.Command, err error) error {
	if rest := cmd.Flags().Args(); cmd.HasSubCommands() && len(rest) > 0 {
		return unknownCommand(cmd, rest[0])
	}
	return fmt.Errorf("%w: see %s --help", err, cmd.CommandPath())
}

// between takes from least to most arguments.
func between(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && len(args) <= most {
			return nil
		}
		use := strings.TrimSuffix(cmd.UseLine(), " [flags]")
		return fmt.Errorf("%d arguments given, want: %s (see %s --help)", len(args), use, cmd.CommandPath())
	}
}

// laterCmd stands for what SPEC 10 names and this version has not: it says so rather than "unknown".
func laterCmd(name string) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("%s is not yet supported by this version", cmd.CommandPath())
		},
	}
}
