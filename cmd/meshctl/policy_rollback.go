package main

import (
	"bytes"
	"context"
	"slices"

	"github.com/Masterminds/semver/v3"
	"github.com/spf13/cobra"

	"meshd/agent/control"
	"meshd/policies"
)

const scoreArtifact = "score"

func policyRollbackCmd(a *app) *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use:   "rollback",
		Short: "Put an earlier score in force again, under a new version",
		Long: `Rollback publishes the score that was in force before this one anew: its files as they were, with a version above
every one that the mesh has seen, since nodes refuse an older version for ever. Done twice it undoes itself. With --to
it takes the score of that version; meshctl artifacts score --all lists those that are still kept. It works on a node
whose key the charter lets set the score, and prints the score as policy show does.`,
		Example: `  meshctl policy rollback
  meshctl policy rollback --to 1.0.0`,
		Args: between(0, 0),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, _ []string) error {
		now, err := c.Score(ctx)
		if err != nil {
			return err
		}
		kept, err := c.Artifacts(ctx, scoreArtifact, true)
		if err != nil {
			return err
		}
		from, next, err := chooseRollback(now, kept, to)
		if err != nil {
			return err
		}
		tar, err := reversion(ctx, c, from, next)
		if err != nil {
			return err
		}
		score, err := c.PublishScore(ctx, bytes.NewReader(tar))
		if err != nil {
			return err
		}
		a.note("score %s is in force again as %s", from, next)
		return printScore(a, score)
	})
	cmd.Flags().StringVar(&to, "to", "", "the `VERSION` to go back to (default: the one before that in force)")
	_ = cmd.RegisterFlagCompletionFunc("to", func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return liveNames(a, cmd, scoreVersions)
	})
	return cmd
}

// chooseRollback says which of the kept scores to go back to, and the version to give it. A faulty score that the
// nodes refused counts as the newest: they would not look at one below it.
func chooseRollback(now control.Score, kept []control.Artifact, to string) (from, next string, err error) {
	if now.State == "none" {
		return "", "", control.Errorf(control.NotFound, "this node plays no score yet: publish one with meshctl policy publish DIR")
	}
	inForce, err := semver.NewVersion(now.Version)
	if err != nil {
		return "", "", control.Errorf(control.Failed, "the score in force has version %q, which is no semver: publish the earlier one by hand", now.Version)
	}
	top := inForce
	versions := []*semver.Version{}
	for _, x := range kept {
		v, err := semver.NewVersion(x.Version)
		if x.Name != scoreArtifact || err != nil {
			continue
		}
		versions = append(versions, v)
		if v.GreaterThan(top) {
			top = v
		}
	}
	slices.SortFunc(versions, func(x, y *semver.Version) int { return y.Compare(x) })
	for _, v := range versions {
		if (to == "" && v.LessThan(inForce)) || (to != "" && v.Original() == to) {
			up := top.IncPatch()
			return v.Original(), up.String(), nil
		}
	}
	if to != "" {
		return "", "", control.Errorf(control.NotFound, "score %s is not kept any more: meshctl artifacts score --all lists those that are", to)
	}
	return "", "", control.Errorf(control.NotFound, "no score before %s is kept any more: publish it from where it was written, under a new version", now.Version)
}

// reversion fetches a score and returns it as tar, with another version.
func reversion(ctx context.Context, c *control.Client, from, next string) ([]byte, error) {
	var tar bytes.Buffer
	if err := c.Get(ctx, scoreArtifact+"@"+from, &tar, nil); err != nil {
		return nil, err
	}
	files, err := control.Files(&tar, control.ScoreLimits())
	if err != nil {
		return nil, err
	}
	if files, err = policies.WithVersion(files, next); err != nil {
		return nil, err
	}
	if _, err := policies.Compile(files); err != nil {
		return nil, control.Errorf(control.Failed, "score %s can not be played again:\n%v", from, err)
	}
	return packFiles(files)
}
