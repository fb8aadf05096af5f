package main

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"meshd/agent"
	"meshd/agent/control"
)

func initCommand() *cobra.Command {
	var dataDir, name string
	var tags []string
	cmd := &cobra.Command{
		Use: "init", Short: "Make a new mesh with this machine as its first member", Args: noArgs,
		Long: `init makes a mesh: its charter, its root key, and this node as first member, whose key may
sponsor newcomers, set the score, publish and revoke. Name and tags are attested in the
node's certificate. It refuses a folder that already has a node.`,
		Example: `  meshd init --data-dir /tmp/m --name host --tag kind=parent`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := fromEnvironment(cmd.Flags(), origins{}); err != nil {
				return err
			}
			attested, err := parseTags(tags)
			if err != nil {
				return err
			}
			if name == "" {
				if name, err = hostName(); err != nil {
					return err
				}
			}
			dir, err := dataFolder(dataDir)
			if err != nil {
				return err
			}
			node, err := agent.InitNode(dir, name, attested, time.Now())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), `mesh %s, node %s (%s)

Move %s to a safe place offline: nothing in daily work needs it.
Next: meshd --data-dir %s
      meshctl --data-dir %s policy publish DIR
      meshctl --data-dir %s invite
`, node.Charter.MeshName(), name, node.Identity.ID(), filepath.Join(dir, "root.key"), dir, dir, dir)
			return err
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", control.DefaultDataDir(), "where this node will live")
	cmd.Flags().StringVar(&name, "name", "", "name of this node (default: host name)")
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "attest a tag, KEY=VALUE (repeatable)")
	return cmd
}
