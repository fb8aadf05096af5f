package main

import (
	"context"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"meshd/agent/control"
	"meshd/policies"
)

func graphCmd(a *app) *cobra.Command {
	var d drawing
	cmd := &cobra.Command{
		Use:   "graph",
		Short: "Draw the live mesh: roles, the nodes that play them, artifacts, who waits",
		Long: `Graph tells which role leaves which artifact for which role, by the score in force, and as the mesh is now: the nodes
that play the roles, how many nodes have the artifact of those that want it (HAVE), and which of them still wait. "*"
stands for every node, - for nobody. Artifacts that no score knows stand last. --dot and --mermaid draw it; meshctl
policy story draws a score from its text alone.`,
		Example: `  meshctl graph
  meshctl graph --dot > mesh.dot
  meshctl graph --mermaid
  meshctl graph -o json`,
		Args: between(0, 0),
	}
	cmd.RunE = a.ask(func(ctx context.Context, c *control.Client, _ []string) error {
		ask := func(ctx context.Context) ([]flow, error) { return liveFlows(ctx, c) }
		if !d.wanted() {
			_, err := list(ctx, a, flowListing(), ask)
			return err
		}
		flows, err := ask(ctx)
		if err != nil {
			return err
		}
		_, err = a.stdout.Write(d.draw(flows))
		return err
	})
	listFlags(a, cmd)
	d.flags(cmd)
	return cmd
}

// A flow is one artifact, or a pattern of them, on its way from a role to a role.
type flow struct {
	FromRole  string   `json:"from_role"` // "*": every node; "": nobody in the score
	FromNodes []string `json:"from_nodes"`
	Artifact  string   `json:"artifact"`
	ToRole    string   `json:"to_role"`
	ToNodes   []string `json:"to_nodes"`
	Have      int      `json:"have"`    // wants that are met, of
	Want      int      `json:"want"`    // all wants
	Waiting   []string `json:"waiting"` // nodes that want it and have it not
}

func flowListing() listing[flow] {
	return listing[flow]{
		name: func(f flow) string { return f.Artifact },
		tone: func(f flow) tone {
			if len(f.Waiting) > 0 {
				return heed
			}
			return plain
		},
		columns: []column[flow]{
			{"FROM", false, func(f flow) string { return f.FromRole }},
			{"FROM NODES", true, func(f flow) string { return commas(f.FromNodes) }},
			{"ARTIFACT", false, func(f flow) string { return f.Artifact }},
			{"TO", false, func(f flow) string { return f.ToRole }},
			{"TO NODES", true, func(f flow) string { return commas(f.ToNodes) }},
			{"HAVE", false, func(f flow) string { return f.have() }},
			{"WAITING", false, func(f flow) string { return commas(f.Waiting) }},
		},
	}
}

func (f flow) have() string {
	if f.Want == 0 {
		return "-"
	}
	return strconv.Itoa(f.Have) + "/" + strconv.Itoa(f.Want)
}

// liveFlows asks for all that a graph is made of.
func liveFlows(ctx context.Context, c *control.Client) ([]flow, error) {
	score, err := c.Score(ctx)
	if err != nil {
		return nil, err
	}
	var edges []policies.Edge
	if score.State != "none" {
		files := map[string][]byte{}
		for name, text := range score.Files {
			files[name] = []byte(text)
		}
		p, err := policies.Compile(files)
		if err != nil {
			return nil, control.Errorf(control.Failed, "this meshctl can not read the score in force, as an older one cannot read a newer:\n%v", err)
		}
		edges = p.Graph()
	}
	members, err := c.Members(ctx)
	if err != nil {
		return nil, err
	}
	artifacts, err := c.Artifacts(ctx, "", false)
	if err != nil {
		return nil, err
	}
	return flows(edges, members, artifacts), nil
}

// flows joins what the score says with who is there and who has what.
func flows(edges []policies.Edge, members []control.Member, artifacts []control.Artifact) []flow {
	out := []flow{}
	told := map[string]bool{scoreArtifact: true} // every node wants it by itself
	for _, e := range edges {
		f := flow{FromRole: e.FromRole, Artifact: e.Artifact, ToRole: e.ToRole, FromNodes: playing(members, e.FromRole), ToNodes: playing(members, e.ToRole)}
		waiting := map[string]bool{}
		for _, x := range artifacts {
			if x.Name != e.Artifact && !policies.MatchName(e.Artifact, x.Name) {
				continue
			}
			told[x.Name] = true
			f.count(x, waiting, func(node string) bool { return slices.Contains(f.ToNodes, node) })
		}
		f.Waiting = append([]string{}, slices.Sorted(maps.Keys(waiting))...)
		out = append(out, f)
	}
	for _, x := range artifacts {
		if told[x.Name] {
			continue
		}
		f := flow{Artifact: x.Name, FromNodes: []string{x.Publisher}, ToNodes: append([]string{}, x.Wanted...)}
		waiting := map[string]bool{}
		f.count(x, waiting, func(string) bool { return true })
		f.Waiting = append([]string{}, slices.Sorted(maps.Keys(waiting))...)
		out = append(out, f)
	}
	return out
}

// count adds the wants of one artifact, of the nodes that take part.
func (f *flow) count(x control.Artifact, waiting map[string]bool, part func(node string) bool) {
	for _, node := range x.Wanted {
		switch {
		case !part(node):
			continue
		case slices.Contains(x.Holders, node):
			f.Have++
		default:
			waiting[node] = true
		}
		f.Want++
	}
}

// playing lists the nodes that say they hold a role.
func playing(members []control.Member, role string) []string {
	out := []string{}
	for _, m := range members {
		if role == "*" || role != "" && slices.Contains(m.Roles, role) {
			out = append(out, m.Name)
		}
	}
	return out
}
