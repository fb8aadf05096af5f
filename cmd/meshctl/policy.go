package main

import (
	"bytes"
	"io"
	"os"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

func policyCmd(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check, publish and show the score",
		Long: `The score is the policy of the whole mesh: a folder of .hcl files. check, fmt and story read it as text and need no
daemon; publish signs it and puts it in force on every node; show shows what this node plays; diff tells what another
score would change here; rollback puts an earlier one in force again.`,
		Example: `  meshctl policy check ./score
  meshctl policy publish ./score
  meshctl policy show`,
	}
	group(cmd)
	cmd.AddCommand(policyCheckCmd(a), policyPublishCmd(a), policyShowCmd(a), policyStoryCmd(a), policyFmtCmd(a), policyDiffCmd(a), policyRollbackCmd(a))
	for _, name := range []string{"plan", "test"} {
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

// packFiles returns a folder that was never on disk as readScore returns one that is.
func packFiles(files map[string][]byte) ([]byte, error) {
	dir, err := os.MkdirTemp("", "meshctl-score-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	for name, text := range files {
		if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
			return nil, err
		}
		if err := root.WriteFile(name, text, 0o644); err != nil {
			return nil, err
		}
	}
	var tar bytes.Buffer
	err = control.Pack(&tar, dir, nil)
	return tar.Bytes(), err
}
