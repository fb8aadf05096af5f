package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"meshd/agent/control"
	"meshd/agent/promise"
	"meshd/mesh/bundle"
	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/policies"
)

// bundleTell is how many bytes pass between two lines of progress.
const bundleTell = 1 << 20

// ExportBundle: the records are the whole logs of whoever publishes what is carried, so that the other side can
// see that nothing was left out of them, and all that nodes say of themselves. With no pattern and no label it
// is all logs.
func (d door) ExportBundle(ctx context.Context, r control.BundleRequest, w io.Writer, progress func(control.Line)) (control.Bundle, error) {
	chosen, err := d.a.chooseBundle(r)
	if err != nil {
		return control.Bundle{}, err
	}
	if chosen, err = d.a.bringBundle(ctx, chosen, r.Held); err != nil {
		return control.Bundle{}, err
	}
	for _, o := range chosen {
		defer d.a.supply.startPull(o.ref.Root)() // kept until it is written
	}
	out := &counted{w: w}
	file, err := bundle.NewWriter(out, bundle.Head{Mesh: d.a.mesh.Charter().MeshID()})
	if err != nil {
		return control.Bundle{}, err
	}
	item := control.Bundle{Mesh: d.a.mesh.Charter().MeshName()}
	if err := d.a.mesh.Catalog().Pages(logsFor(r, chosen), bundle.PageRecords, bundle.PageBytes, func(page [][]byte) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return file.Records(page)
	}); err != nil {
		return control.Bundle{}, err
	}
	meter := newBundleMeter(progress)
	for _, o := range chosen {
		meter.total += o.ref.SizeBytes
	}
	for _, o := range chosen {
		record, err := d.a.recordOf(o)
		if err != nil {
			return control.Bundle{}, err
		}
		if err := file.Artifact(record, o.ref, d.a.store.Read, func(n int) error {
			meter.add(int64(n))
			return ctx.Err()
		}); err != nil {
			return control.Bundle{}, err
		}
		item.Artifacts = append(item.Artifacts, o.ref.Name+"@"+o.shown())
	}
	totals, err := file.Close()
	if err != nil {
		return control.Bundle{}, err
	}
	meter.end()
	item.Records, item.Chunks, item.SizeBytes = totals.Records, totals.Chunks, out.n
	d.a.journal.append(Entry{
		At: d.a.cfg.Wall(), Kind: aboutBundle, Subject: "export", Outcome: "exported",
		Text: fmt.Sprintf("%d records and %d artifacts", item.Records, len(item.Artifacts)), Cause: Cause{Text: "meshctl bundle export on " + d.a.name},
	})
	return item, d.a.journal.flush()
}

// logsFor says which logs go into a bundle.
func logsFor(r control.BundleRequest, chosen []offered) func(catalog.LogID) bool {
	if len(r.Patterns) == 0 && len(r.Labels) == 0 {
		return func(catalog.LogID) bool { return true }
	}
	by := map[id.Node]bool{}
	for _, o := range chosen {
		by[o.ref.Version.By] = true
	}
	return func(l catalog.LogID) bool { return l.Scope == catalog.ScopeNodes || by[l.Origin] }
}

// chooseBundle lists what r asks for, in the order of the file. What its publisher has no right to, nobody
// would take.
func (a *Agent) chooseBundle(r control.BundleRequest) ([]offered, error) {
	match, err := control.Labels[control.Artifact](r.Labels)
	if err != nil {
		return nil, err
	}
	for _, p := range r.Patterns {
		if strings.Contains(p, "=") {
			return nil, control.Errorf(control.Usage, "pattern %q: want the name of an artifact, * for one segment, ** for the rest; -l takes key=value", p)
		}
	}
	names, placed := door{a}.names(), a.placedBy()
	var out []offered
	offers := a.supply.offers("")
	score := a.loop.newestScore()
	for i, o := range offers {
		isScore := score != nil && o.ref == score.ref
		named := len(r.Patterns) == 0 || slices.ContainsFunc(r.Patterns, func(p string) bool { return policies.MatchName(p, o.ref.Name) })
		if !isScore && (!named || !r.All && superseded(offers, i)) || !a.supply.trusted(o) {
			continue
		}
		if !isScore && len(r.Labels) > 0 {
			if ok, err := match(door{a}.artifact(o, names, placed[o.ref.Name])); err != nil || !ok {
				if err != nil {
					return nil, err
				}
				continue
			}
		}
		out = append(out, o)
	}
	if len(r.Patterns)+len(r.Labels) > 0 && !slices.ContainsFunc(out, func(o offered) bool { return score == nil || o.ref != score.ref }) {
		return nil, control.Errorf(control.NotFound, "nobody who may offers what is asked for; meshctl artifacts lists what is offered")
	}
	return out, nil
}

// superseded reports whether a later one of offers, which are in order, is of the same name and publisher.
func superseded(offers []offered, i int) bool {
	o := offers[i].ref
	for _, later := range offers[i+1:] {
		switch {
		case later.ref.Name != o.Name:
			return false
		case later.ref.Version.By == o.Version.By:
			return true
		}
	}
	return false
}

// bringBundle pulls what is not here, or with held leaves it out.
func (a *Agent) bringBundle(ctx context.Context, chosen []offered, held bool) ([]offered, error) {
	var out []offered
	for _, o := range chosen {
		has, err := a.store.Has(o.ref.Root)
		if err != nil {
			return nil, err
		}
		if !has && held {
			continue
		}
		var waiting *promise.WaitingError
		switch err := a.supply.pull(ctx, o.ref); {
		case errors.As(err, &waiting):
			return nil, control.Errorf(control.TimedOut, "%s@%s: no node that has it answers now; --held exports what is here without it", o.ref.Name, o.shown())
		case err != nil:
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// recordOf is the signed record of an offer, as it is stored.
func (a *Agent) recordOf(o offered) ([]byte, error) {
	for _, r := range a.mesh.Catalog().LiveNamed(catalog.KindArtifact, o.ref.Name) {
		if ref, _, err := r.Ref(); err == nil && ref == o.ref {
			return r.Encode()
		}
	}
	return nil, fmt.Errorf("%s@%s was withdrawn just now: export again", o.ref.Name, o.shown())
}

// counted counts what passes to w.
type counted struct {
	w io.Writer
	n int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// A bundleMeter tells progress now and then.
type bundleMeter struct {
	tell        func(control.Line)
	done, total int64
	told        int64
}

func newBundleMeter(tell func(control.Line)) *bundleMeter {
	if tell == nil {
		tell = func(control.Line) {}
	}
	return &bundleMeter{tell: tell}
}

func (m *bundleMeter) add(n int64) {
	if m.done += n; m.done-m.told >= bundleTell {
		m.told = m.done
		m.tell(control.Line{Type: control.LineProgress, DoneBytes: m.done, TotalBytes: max(m.total, m.done)})
	}
}

func (m *bundleMeter) end() {
	m.tell(control.Line{Type: control.LineProgress, DoneBytes: m.done, TotalBytes: m.done})
}

// meshText is a mesh id as people see it.
func meshText(mesh [32]byte) string { return hex.EncodeToString(mesh[:8]) }
