package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"meshd/agent/control"
)

// until looks again and again until look is content; ctx's end tells what it saw last. A promise of the
// parent that fails for a while ends it at once, by name.
func (d *demo) until(ctx context.Context, what string, look func() (ok bool, why string, err error)) error {
	ticker := time.NewTicker(lookTime)
	defer ticker.Stop()
	var sick time.Time
	for {
		ok, why, err := look()
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if ok {
			return nil
		}
		failed := d.failed(ctx)
		switch {
		case failed == "":
			sick = time.Time{}
		case sick.IsZero():
			sick = time.Now()
		case time.Since(sick) > sickTime:
			return fmt.Errorf("%s: %s", what, failed)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not in time: %s", what, why)
		case <-d.parent.Done():
			return fmt.Errorf("%s: the parent ended: %w\n%s", what, d.parent.Err(), d.parent.Tail())
		case <-ticker.C:
		}
	}
}

// failed names a promise of the parent that fails now; "" if none.
func (d *demo) failed(ctx context.Context) string {
	list, err := d.host.Promises(ctx, "", "", false)
	if err != nil {
		return ""
	}
	for _, p := range list {
		if p.Outcome == "failed" {
			return fmt.Sprintf("promise %s failed: %s", p.Address, p.Reason)
		}
	}
	return ""
}

func (d *demo) alive(ctx context.Context, n int) (bool, string, error) {
	list, err := d.host.Members(ctx)
	if err != nil {
		return false, "", err
	}
	alive := 0
	for _, m := range list {
		if m.Status == "alive" {
			alive++
		}
	}
	return alive == n, fmt.Sprintf("%d of %d are alive", alive, n), nil
}

func (d *demo) offered(ctx context.Context, name string, counter uint64) (bool, string, error) {
	list, err := d.host.Artifacts(ctx, name, false)
	if err != nil {
		return false, "", err
	}
	for _, a := range list {
		if a.Counter >= counter {
			return true, "", nil
		}
	}
	return false, fmt.Sprintf("no %s %d is offered", name, counter), nil
}

// allKept asks every node for its promises; a parent's word counts for its own alone.
func (d *demo) allKept(ctx context.Context) (bool, string, error) {
	list, err := d.host.Promises(ctx, "", "", true)
	if err != nil {
		return false, "", err
	}
	for _, p := range list {
		if p.Outcome != "kept" && p.Outcome != "repaired" {
			return false, fmt.Sprintf("%s on %s is %s: %s", p.Address, p.Node, p.Outcome, p.Reason), nil
		}
	}
	return len(list) > 0, "no promises yet", nil
}

func same(path string, want []byte) (bool, string, error) {
	got, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, path + " is missing", nil
	}
	return bytes.Equal(got, want), path + " differs", err
}

func appendLine(path, line string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, line)
	return errors.Join(err, f.Close())
}

func tableMembers(out io.Writer, list []control.Member) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\n  NAME\tSTATUS\tROLES\tADDRESS\tRTT\tPROMISES")
	for _, m := range list {
		p := m.Promises
		fmt.Fprintf(w, "  %s\t%s\t%s\t%s\t%.1fms\t%d kept, %d failed\n", m.Name, m.Status, join(m.Roles), m.Address,
			m.RTTSeconds*1000, p.Kept+p.Repaired, p.Failed)
	}
	return w.Flush()
}

func tableArtifacts(out io.Writer, list []control.Artifact) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\n  NAME\tVERSION\tHASH\tSIZE\tFROM")
	for _, a := range list {
		fmt.Fprintf(w, "  %s\t%s\t%.19s\t%d\t%s\n", a.Name, a.Version, a.Hash, a.SizeBytes, a.Publisher)
	}
	return w.Flush()
}

func tableWhy(out io.Writer, chain []control.StoryItem) error {
	fmt.Fprintln(out, "\n  Why package?")
	for _, it := range chain {
		if _, err := fmt.Fprintf(out, "    %s: %s %s %s\n", it.Node, it.Subject, it.Outcome, it.Text); err != nil {
			return err
		}
	}
	return nil
}

func join(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	s := list[0]
	for _, x := range list[1:] {
		s += "," + x
	}
	return s
}
