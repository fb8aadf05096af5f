package main

import (
	"bytes"
	"io"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func policyCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check, publish and show the score",
		Long: `The score is the policy of the whole mesh: a folder of .hcl files. check and story read it as text and need no daemon;
publish signs it and puts it in force on every node; show shows what this node plays.`,
		Example: `  meshctl policy check ./score
  meshctl policy publish ./score
  meshctl policy show`,
	}
	group(cmd)
	cmd.AddCommand(policyCheckCmd(a), policyPublishCmd(a), policyShowCmd(a), policyStoryCmd(a))
	for _, name := range []string{"fmt", "plan", "test", "diff", "rollback"} {
		cmd.AddCommand(laterCmd(name))
	}
	return cmd
}

// hidden reports whether a file is left out of a score: what begins with a dot belongs to editors and version control.
func hidden(name string) bool { return strings.HasPrefix(path.Base(name), ".") }

// readScore reads a folder as the daemon will: what is checked is what is sent. tar is the folder once more.
func readScore(dir string) (files map[string][]byte, tar []byte, err error) {
	var sent bytes.Buffer
	err = sendTree(dir, hidden, func(r io.Reader) error {
		files, err = control.Files(io.TeeReader(r, &sent), control.ScoreLimits())
		return err
	})
	return files, sent.Bytes(), err
}
