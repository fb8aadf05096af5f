package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// A drawing is what --dot and --mermaid ask for.
type drawing struct{ dot, mermaid bool }

func (d *drawing) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&d.dot, "dot", false, "draw it for Graphviz")
	cmd.Flags().BoolVar(&d.mermaid, "mermaid", false, "draw it for Mermaid")
	cmd.MarkFlagsMutuallyExclusive("dot", "mermaid")
}

func (d *drawing) wanted() bool { return d.dot || d.mermaid }

// draw writes roles as boxes with the nodes that play them, artifacts between them, and an arrow for each way. Where
// somebody waits the arrow says who.
func (d *drawing) draw(flows []flow) []byte {
	p := &picture{ids: map[string]string{}, dot: d.dot}
	p.line("digraph mesh {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];", "flowchart LR")
	for _, f := range flows {
		from := p.role(f.FromRole, f.FromNodes)
		thing := p.artifact(f.Artifact)
		to := p.role(f.ToRole, f.ToNodes)
		if from != "" {
			p.arrow(from, thing, "", false)
		}
		if to != "" {
			label := ""
			if f.Want > 0 {
				label = f.have()
			}
			if len(f.Waiting) > 0 {
				label += ", waiting: " + strings.Join(f.Waiting, " ")
			}
			p.arrow(thing, to, label, len(f.Waiting) > 0)
		}
	}
	p.line("}", "")
	return p.out.Bytes()
}

// A picture is a graph that is being written.
type picture struct {
	out   bytes.Buffer
	dot   bool
	ids   map[string]string // what is drawn, by what it is
	drawn map[string]bool   // arrows
}

func (p *picture) line(dot, mermaid string) {
	text := mermaid
	if p.dot {
		text = dot
	}
	if text != "" {
		fmt.Fprintln(&p.out, text)
	}
}

// role draws the box of a role once; nobody has none, but the nodes that act without a role.
func (p *picture) role(name string, nodes []string) string {
	title := name
	switch {
	case name == "*":
		title = "every node"
	case name == "" && len(nodes) == 0:
		return ""
	case name == "":
		title = "no role"
	}
	return p.node("role "+name+" "+strings.Join(nodes, " "), title, nodes, "box", "[", "]")
}

func (p *picture) artifact(name string) string {
	return p.node("artifact "+name, name, nil, "ellipse", "([", "])")
}

func (p *picture) node(key, title string, lines []string, shape, open, end string) string {
	if id, ok := p.ids[key]; ok {
		return id
	}
	id := fmt.Sprintf("n%d", len(p.ids))
	p.ids[key] = id
	p.line(
		fmt.Sprintf("  %s [shape=%s label=%s];", id, shape, quoteDot(append([]string{title}, lines...))),
		fmt.Sprintf("  %s%s%s%s", id, open, quoteMermaid(append([]string{title}, lines...)), end))
	return id
}

func (p *picture) arrow(from, to, label string, waits bool) {
	key := from + " " + to + " " + label
	if p.drawn[key] {
		return
	}
	if p.drawn == nil {
		p.drawn = map[string]bool{}
	}
	p.drawn[key] = true
	attrs, shaft, text := "", "-->", ""
	if label != "" {
		attrs, text = "label="+quoteDot([]string{label}), "|"+quoteMermaid([]string{label})+"|"
	}
	if waits {
		attrs, shaft = attrs+" style=dashed color=red", "-.->"
	}
	if attrs != "" {
		attrs = " [" + attrs + "]"
	}
	p.line(fmt.Sprintf("  %s -> %s%s;", from, to, attrs), fmt.Sprintf("  %s %s%s %s", from, shaft, text, to))
}

func quoteDot(lines []string) string {
	for i, l := range lines {
		lines[i] = strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(escape(l))
	}
	return `"` + strings.Join(lines, `\n`) + `"`
}

func quoteMermaid(lines []string) string {
	for i, l := range lines {
		lines[i] = strings.NewReplacer("#", "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;", "`", "#96;").Replace(escape(l))
	}
	return `"` + strings.Join(lines, "<br/>") + `"`
}
