package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"meshd/agent/control"
)

const watchEvery = 2 * time.Second

// listFlags adds the flags that commands with a list share.
func listFlags(a *app, cmd *cobra.Command) {
	labelFlag(a, cmd)
	cmd.Flags().DurationVar(&a.watch, "watch", 0, "go on showing it, anew every 2s or `EVERY` (--watch=5s), until interrupted")
	cmd.Flags().Lookup("watch").NoOptDefVal = watchEvery.String()
}

func labelFlag(a *app, cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&a.labels, "label", "l", nil, "only items with this `key=value`: a tag, or a field of -o json; all of several")
}

// list asks once, or with --watch again and again, and prints what the labels leave.
func list[T any](ctx context.Context, a *app, l listing[T], ask func(context.Context) ([]T, error)) ([]T, error) {
	match, err := control.Labels[T](a.labels)
	if err != nil {
		return nil, err
	}
	if a.watch > 0 && (a.format == "json" || a.format == "name") {
		return nil, control.Errorf(control.Usage, "--watch cannot go on in format %q: use -o ndjson", a.format)
	}
	shown := map[string]bool{}
	for {
		items, err := ask(ctx)
		if err != nil {
			return nil, err
		}
		kept := []T{}
		for _, item := range items {
			ok, err := match(item)
			if err != nil {
				return nil, err
			}
			if ok {
				kept = append(kept, item)
			}
		}
		text, err := render(a, l, kept)
		if err != nil {
			return nil, err
		}
		if a.watch == 0 {
			_, err = a.stdout.Write(text)
			return kept, err
		}
		if shown, err = a.redraw(text, shown); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(a.watch):
		}
	}
}

// screenful writes text over what a terminal shows: line by line, so that it does not flicker, and no more lines than
// there are (0: not known), so that the first ones stay in sight.
func screenful(text []byte, height int) []byte {
	lines := bytes.SplitAfter(text, []byte("\n"))
	lines = lines[:len(lines)-1] // what follows the last line's end
	var out bytes.Buffer
	out.WriteString("\x1b[H")
	rest := 0
	if height > 1 && len(lines) >= height {
		keep := height - 2 // the line that says so, and the one that the cursor is on
		rest, lines = len(lines)-keep, lines[:keep]
	}
	for _, line := range lines {
		out.Write(bytes.TrimSuffix(line, []byte("\n")))
		out.WriteString("\x1b[K\n")
	}
	if rest > 0 {
		fmt.Fprintf(&out, "and %d more\x1b[K\n", rest)
	}
	out.WriteString("\x1b[J")
	return out.Bytes()
}

// redraw shows text in place of what a terminal showed; elsewhere it appends the lines that were not there the last time.
func (a *app) redraw(text []byte, before map[string]bool) (map[string]bool, error) {
	if a.outTTY && a.format != "ndjson" {
		_, err := a.stdout.Write(screenful(text, a.height()))
		return before, err
	}
	now := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		now[line] = true
		if before[line] {
			continue
		}
		if _, err := fmt.Fprint(a.stdout, line); err != nil {
			return nil, err
		}
	}
	return now, nil
}
