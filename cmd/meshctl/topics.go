package main

import "github.com/spf13/cobra"

// topicCmds are pages of help that belong to no command.
func topicCmds() []*cobra.Command {
	return []*cobra.Command{
		{
			Use:   "exit-codes",
			Short: "What the exit codes mean",
			Long: `meshctl exits with

  0    it worked
  1    it failed; meshctl doctor: there is a problem
  2    wrong usage: an unknown command or flag, a wrong argument, something not yet supported
  3    the daemon cannot be reached
  4    not found: no such artifact, promise or node
  5    timed out
  10   meshctl promises --check: a promise is not kept
  130  interrupted

After an error stdout is empty, unless a stream had begun or the code is a verdict on what is shown (promises --check,
doctor, policy check -o json, policy fmt --check); the reason is on stderr.`,
		},
		{
			Use:   "environment",
			Short: "The environment variables meshctl reads",
			Long: `A flag goes before the environment, the environment before the default.

  MESHCTL_ADDR     where the daemon listens, as --addr
  MESHD_DATA_DIR   data folder of the daemon, as --data-dir
  MESHCTL_OUTPUT   table, wide, json, ndjson or name, as --output
  NO_COLOR         when set, no colours; they are only ever used on a terminal

Without any of them meshctl looks for /run/meshd/meshd.sock and for meshd.sock in the default data folder:
/var/lib/meshd for root, else $XDG_STATE_HOME/meshd.`,
		},
		{
			Use:   "formatting",
			Short: "The output formats",
			Long: `  -o table    columns for people; - stands for nothing; control characters are escaped
  -o wide     more columns
  -o json     {"apiVersion":"meshd/v1","items":[...]}
  -o ndjson   one item a line
  -o name     names alone, one a line

JSON fields are snake_case and only ever added. Times are RFC 3339 in UTC, durations are numbers that end in _seconds,
sizes end in _bytes, lists are never null. publish and get write lines of type "progress" first with -o ndjson. Rows
come sorted. -l key=value keeps items with that tag or field.`,
		},
	}
}
