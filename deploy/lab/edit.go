package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"meshd/agent/control"
	"meshd/deploy/demo"
)

const (
	edits    = 20
	editTime = 20 * time.Second // for one edit to come to its package
)

// stages are the steps from an edited job slip to the new package, as the journals tell them.
var stages = []struct{ name, node, subject string }{
	{"edit to feed artifact", "host", `prepare.artifact.feed["CHILD"]`},
	{"to the child's job", "CHILD", "work.want.job"},
	{"to the child's result", "CHILD", "work.file.result"},
	{"to the postcard", "CHILD", "work.artifact.postcard"},
	{"to the reply", "host", `harvest.want.replies["CHILD"]`},
	{"to the package file", "host", "harvest.command.package"},
	{"to the package artifact", "host", "harvest.artifact.package"},
}

// measureEdits edits job slips at the parent and waits for the parent's new package, over two hops.
func measureEdits(ctx context.Context, l *lab) (_ []figure, err error) {
	m, err := l.newPostcards(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	total := figure{name: "edit at the parent to new package, two hops", unit: "ms", target: 500}
	split := make([]figure, len(stages))
	for i, s := range stages {
		split[i] = figure{name: "  of it " + s.name, unit: "ms"}
	}
	for i := range edits {
		took, parts, err := m.edit(ctx, children[i%len(children)], fmt.Sprintf("Please write about day %d", i))
		if err != nil {
			return nil, fmt.Errorf("edit %d: %w", i+1, err)
		}
		total.values = append(total.values, took)
		for k, ms := range parts {
			split[k].values = append(split[k].values, ms)
		}
		if err := m.allKept(ctx); err != nil {
			return nil, err
		}
	}
	return append([]figure{total}, split...), nil
}

// edit appends one line to a slip; it returns the time until the package that holds it is offered, and how
// long each stage took (ms).
func (m *mesh) edit(ctx context.Context, child, line string) (took float64, parts []float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, editTime)
	defer cancel()
	host := m.nodes[0].door
	began := time.Now()
	if err := appendLine(m.path("host", "work", "feeds", child+"_feed.txt"), line); err != nil {
		return 0, nil, err
	}
	errFound := errors.New("found")
	var heard time.Time
	_, err = host.Story(ctx, editTime, func(i control.StoryItem) error {
		if i.Subject != "harvest.artifact.package" || i.At.Before(began) {
			return nil
		}
		heard = time.Now()
		cards, err := demo.ReadTarball(m.path("host", "work", "package.tgz"))
		if err != nil {
			return err
		}
		if strings.Contains(cards["results/reply_from_"+child], line) {
			return errFound
		}
		return nil
	})
	if !errors.Is(err, errFound) {
		return 0, nil, fmt.Errorf("no package with the line: %w", err)
	}
	parts, err = m.stagesOf(ctx, child, began)
	return heard.Sub(began).Seconds() * 1000, parts, err
}

// stagesOf reads the journals of parent and child for when each stage was done.
func (m *mesh) stagesOf(ctx context.Context, child string, began time.Time) ([]float64, error) {
	door, err := control.NewClient("", m.path("host", "guests", child))
	if err != nil {
		return nil, err
	}
	done := map[string]time.Time{}
	for node, c := range map[string]*control.Client{"host": m.nodes[0].door, "CHILD": door} {
		items, err := c.Story(ctx, editTime, nil)
		if err != nil {
			return nil, err
		}
		for _, i := range items {
			key := node + " " + strings.ReplaceAll(i.Subject, child, "CHILD")
			if _, known := done[key]; !known && i.Outcome == "repaired" && i.At.After(began) {
				done[key] = i.At
			}
		}
	}
	var parts []float64
	last := began
	for _, s := range stages {
		at, ok := done[s.node+" "+s.subject]
		if !ok {
			return nil, fmt.Errorf("the journal of %s tells nothing of %s", s.node, s.subject)
		}
		parts = append(parts, at.Sub(last).Seconds()*1000)
		last = at
	}
	return parts, nil
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	return errors.Join(err, f.Close())
}
