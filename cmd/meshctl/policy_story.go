package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"meshd/agent/control"
	"meshd/policies"
)

func policyStoryCmd(a *app) *cobra.Command {
	var d drawing
	cmd := &cobra.Command{
		Use:   "story [DIR]",
		Short: "Tell a score as prose: who leaves what for whom",
		Long: `Story tells the pipeline of the score in DIR from its text alone, without a daemon; with no DIR, of the score that
this node plays. With -o json it is the graph: which role leaves which artifact for which role; "*" stands for every
node, "" for nobody in this score. --dot and --mermaid draw that graph; meshctl graph draws the live mesh.`,
		Example: `  meshctl policy story ./score
  meshctl policy story ./score --mermaid
  meshctl policy story ./score -o json`,
		Args: between(0, 1),
	}
	cmd.RunE = a.do(func(ctx context.Context, args []string) error {
		files, err := storyFiles(ctx, a, args)
		if err != nil {
			return err
		}
		p, err := policies.Compile(files)
		if err != nil {
			return fmt.Errorf("the score cannot be told before it is mended:\n%w", err)
		}
		if d.wanted() {
			_, err := a.stdout.Write(d.draw(flows(p.Graph(), nil, nil)))
			return err
		}
		if a.format == "json" || a.format == "ndjson" {
			text, err := render(a, listing[edge]{}, edges(p))
			if err == nil {
				_, err = a.stdout.Write(text)
			}
			return err
		}
		_, err = fmt.Fprintln(a.stdout, strings.TrimRight(p.Story(), "\n"))
		return err
	})
	d.flags(cmd)
	return cmd
}

// storyFiles reads the score of a folder, or asks the daemon for the one it plays.
func storyFiles(ctx context.Context, a *app, args []string) (map[string][]byte, error) {
	if len(args) == 1 {
		files, _, err := readScore(args[0])
		return files, err
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	score, err := c.Score(ctx)
	if err != nil {
		return nil, err
	}
	if score.State == "none" {
		return nil, control.Errorf(control.NotFound, "this node plays no score yet: publish one with meshctl policy publish DIR")
	}
	files := map[string][]byte{}
	for name, text := range score.Files {
		files[name] = []byte(text)
	}
	return files, nil
}

// An edge is the JSON of one policies.Edge.
type edge struct {
	FromRole string `json:"from_role"`
	Artifact string `json:"artifact"`
	ToRole   string `json:"to_role"`
}

func edges(p *policies.Program) []edge {
	out := []edge{}
	for _, e := range p.Graph() {
		out = append(out, edge{e.FromRole, e.Artifact, e.ToRole})
	}
	return out
}
