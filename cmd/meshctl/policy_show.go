package main

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func policyShowCmd(a *app) *cobra.Command {
	var text bool
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the score that this node plays",
		Long: `Show tells which score is in force on this node and since when, and on stderr why a newer one was refused. With --text
it writes the files of the score, each after a comment with its name. -o json has both.`,
		Example: `  meshctl policy show
  meshctl policy show --text
  meshctl policy show -o json`,
		Args: between(0, 0),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, _ []string) error {
		score, err := c.Score(ctx)
		if err != nil {
			return err
		}
		if text {
			_, err := a.stdout.Write(scoreText(score))
			return err
		}
		return printScore(a, score)
	})
	cmd.Flags().BoolVar(&text, "text", false, "write the files themselves")
	return cmd
}

func printScore(a *app, score control.Score) error {
	text, err := render(a, scoreListing(a), []control.Score{score})
	if err != nil {
		return err
	}
	if _, err := a.stdout.Write(text); err != nil {
		return err
	}
	if score.Problem != "" {
		a.note("%s", score.Problem)
	}
	return nil
}

func scoreListing(a *app) listing[control.Score] {
	type s = control.Score
	return listing[s]{
		name: func(s s) string { return s.Name },
		tone: func(s s) tone { return outcomeTone(s.State) },
		columns: []column[s]{
			{"NAME", false, func(s s) string { return s.Name }},
			{"VERSION", false, func(s s) string { return s.Version }},
			{"HASH", false, func(s s) string { return shortHash(s.Hash) }},
			{"STATE", false, func(s s) string { return s.State }},
			{"FILES", false, func(s s) string { return strconv.Itoa(len(s.Files)) }},
			{"SINCE", false, func(s s) string { return agoText(a.now(), s.Since) }},
			{"WHY", true, func(s s) string { return s.Why }},
		},
	}
}

func scoreText(score control.Score) []byte {
	var out bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(score.Files)) {
		fmt.Fprintf(&out, "# %s\n%s", escape(name), score.Files[name])
		if b := out.Bytes(); b[len(b)-1] != '\n' {
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}
