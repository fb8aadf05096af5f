package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"meshd/agent/control"
	"meshd/mesh"
	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/policies"
	"meshd/store/artifact"
)

const (
	handKeep     = 3               // versions kept of what was published by hand
	copiesWait   = 3 * time.Second // publish waits this long for copies to be made
	copiesLook   = 50 * time.Millisecond
	minInviteTTL = time.Second
	maxInviteTTL = 90 * 24 * time.Hour
	publishFiles = 1 << 20 // entries of one publish by hand
)

// door answers operators: see control.Backend for what each method promises.
type door struct{ a *Agent }

var _ control.Backend = door{}

func (d door) Members(context.Context) ([]control.Member, error) {
	nodes := d.a.listed()
	out := make([]control.Member, 0, len(nodes))
	for _, n := range nodes {
		kind := "member"
		if n.Leaf {
			kind = "leaf"
		}
		out = append(out, control.Member{
			Name: n.Name, ID: n.ID.String(), Status: n.Status, Kind: kind, Self: n.Self, Address: first1(n.Addrs),
			Tags: n.Tags, Roles: n.Roles, RTTSeconds: n.RTT.Seconds(),
			Promises: control.Counts{Kept: n.Counts[0], Repaired: n.Counts[1], Failed: n.Counts[2], Waiting: n.Counts[3], Drifted: n.Counts[4]},
			Score:    n.Score, Version: n.Version, Platform: n.Platform, LastSeen: n.LastSeen, Forked: n.Forked,
		})
	}
	d.a.tellAbsent(out, nodes)
	return out, nil
}

func (d door) Artifacts(_ context.Context, pattern string, all bool) ([]control.Artifact, error) {
	nodes := map[id.Node]string{}
	for _, n := range d.a.mesh.Nodes() {
		nodes[n.ID] = n.Name
	}
	placed, pulls := d.a.placedBy(), d.a.underway()
	var out []control.Artifact
	offers := d.a.supply.offers("")
	for i, o := range offers {
		if pattern != "" && !policies.MatchName(pattern, o.ref.Name) {
			continue
		}
		if !all && superseded(offers, i) {
			continue
		}
		item := d.artifact(o, nodes, placed[o.ref.Name])
		if p, ok := pulls[o.ref.Root]; ok && !item.Local {
			item.Pull = &p
		}
		out = append(out, item)
	}
	return out, nil
}

// underway tells how far pulls have come, by root.
func (a *Agent) underway() map[artifact.Digest]control.Pull {
	out := map[artifact.Digest]control.Pull{}
	for _, p := range a.mesh.Underway() {
		out[p.Root] = control.Pull{DoneBytes: p.DoneBytes, TotalBytes: p.TotalBytes, BytesPerSecond: p.BytesPerSecond, Nodes: p.Sources}
	}
	return out
}

// placedBy lists what nodes say of their wants, by artifact name.
func (a *Agent) placedBy() map[string]map[id.Node]catalog.PlacedBody {
	out := map[string]map[id.Node]catalog.PlacedBody{}
	gone := a.unlisted()
	for _, r := range a.mesh.Catalog().Live(catalog.ScopeMain, catalog.KindPlaced, "") {
		body, err := catalog.DecodePlaced(r.Body)
		if err != nil || gone[r.Log.Origin] {
			continue
		}
		if out[r.Name] == nil {
			out[r.Name] = map[id.Node]catalog.PlacedBody{}
		}
		out[r.Name][r.Log.Origin] = body
	}
	return out
}

func (d door) artifact(o offered, names map[id.Node]string, placed map[id.Node]catalog.PlacedBody) control.Artifact {
	name := func(n id.Node) string { return cmp.Or(names[n], n.Short()) }
	item := control.Artifact{
		Name: o.ref.Name, Version: o.shown(), Counter: o.body.Counter, Hash: o.ref.Tree.String(), SizeBytes: o.ref.SizeBytes,
		Publisher: name(o.ref.Version.By), PublisherID: o.ref.Version.By.String(), PublishedAt: o.at,
		Holders: []string{name(o.ref.Version.By)},
	}
	for n, body := range placed {
		item.Wanted = append(item.Wanted, name(n))
		if body.Tree == o.ref.Tree && n != o.ref.Version.By {
			item.Holders = append(item.Holders, name(n))
		}
	}
	slices.Sort(item.Wanted)
	slices.Sort(item.Holders)
	item.Local, _ = d.a.store.Has(o.ref.Root)
	if !item.Local {
		return item
	}
	if m, err := d.a.store.Head(o.ref.Root); err == nil {
		for _, in := range m.Of {
			item.Of = append(item.Of, control.Input{Name: in.Name, Version: fmt.Sprint(in.Version.Counter), Hash: in.Tree.String()})
		}
	}
	return item
}

func (d door) Promises(ctx context.Context, address, node string, all bool) ([]control.Promise, error) {
	var out []control.Promise
	for _, n := range d.a.mesh.Nodes() {
		switch {
		case all && !d.a.forgotten.hides(n), node == "" && n.Self, node != "" && (n.Name == node || n.ID.String() == node):
		default:
			continue
		}
		promises, err := d.promisesOf(ctx, n, address)
		if err != nil {
			if !all {
				return nil, err
			}
			promises = []control.Promise{{Node: n.Name, Outcome: "unknown", Reason: err.Error()}}
		}
		out = append(out, promises...)
	}
	if len(out) == 0 && node != "" && address == "" && !d.known(node) {
		return nil, control.Errorf(control.NotFound, "no node %q is known here; meshctl members lists them", node)
	}
	if len(out) == 0 && address != "" {
		return nil, control.Errorf(control.NotFound, "no promise %q; meshctl promises lists them", address)
	}
	return out, nil
}

func (d door) known(node string) bool {
	return slices.ContainsFunc(d.a.mesh.Nodes(), func(n mesh.Node) bool { return n.Name == node || n.ID.String() == node })
}

func (d door) promisesOf(ctx context.Context, n mesh.Node, address string) ([]control.Promise, error) {
	var list []mesh.Promise
	if n.Self {
		var err error
		if list, err = d.a.ownPromises(ctx, policies.Address(address)); err != nil {
			return nil, err
		}
	} else {
		answer, err := d.a.mesh.Ask(ctx, n.ID, mesh.Question{Kind: mesh.AskPromises, Subject: address})
		if err == nil && answer.Problem != "" {
			err = errors.New(answer.Problem)
		}
		if err != nil {
			return nil, control.Errorf(control.Unreachable, "node %s can't be asked: %v", n.Name, err)
		}
		list = answer.Promises
	}
	out := make([]control.Promise, 0, len(list))
	for _, p := range list {
		out = append(out, control.Promise{
			Node: n.Name, Address: p.Address, Type: p.Type, Outcome: p.Outcome, Reason: p.Reason, Why: p.Why,
			Since: fromMillis(p.Since), CheckedAt: fromMillis(p.Checked), Repairs: int(p.Repairs),
		})
	}
	return out, nil
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func (d door) Roles(ctx context.Context) ([]control.Role, error) {
	var out []control.Role
	var missing bool
	err := d.a.loop.do(ctx, func() {
		if missing = d.a.loop.program == nil; missing {
			return
		}
		for _, name := range d.a.loop.program.RoleNames() {
			h := d.a.loop.held[name]
			out = append(out, control.Role{
				Name: name, Held: h.Holds, Unknown: h.Unknown, Why: d.a.loop.program.RoleWhy(name), Because: h.Because,
			})
		}
	})
	if missing {
		return nil, control.Errorf(control.NotFound, "%v", errNoScore)
	}
	d.tellUnplayed(out)
	slices.SortFunc(out, func(x, y control.Role) int { return strings.Compare(x.Name, y.Name) })
	return out, err
}

// tellUnplayed says of each role that no live member plays that it is so: legal, and worth knowing.
func (d door) tellUnplayed(list []control.Role) {
	played := map[string]bool{}
	for _, n := range d.a.mesh.Nodes() {
		for _, r := range n.Roles {
			played[r] = played[r] || n.Alive
		}
	}
	for i, r := range list {
		if !r.Held && !played[r.Name] {
			list[i].Because = append(slices.Clone(r.Because), "no live member plays it yet")
		}
	}
}

func (d door) Story(ctx context.Context, since time.Duration, follow func(control.StoryItem) error) ([]control.StoryItem, error) {
	var from time.Time
	if since > 0 {
		from = d.a.cfg.Wall().Add(-since)
	}
	if follow == nil {
		return d.a.story(from, 0), nil
	}
	kick, stop := d.a.journal.subscribe()
	defer stop()
	var last uint64
	for {
		for _, e := range d.a.journal.since(from, last) {
			last = e.ID
			if err := follow(d.a.item(e)); err != nil {
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-d.a.stopping:
			return nil, errStopping
		case <-kick:
		}
	}
}

func (a *Agent) story(from time.Time, after uint64) []control.StoryItem {
	entries := a.journal.since(from, after)
	out := make([]control.StoryItem, 0, len(entries))
	for _, e := range entries {
		out = append(out, a.item(e))
	}
	return out
}

// item words one record, and names the record that caused it, wherever that is.
func (a *Agent) item(e Entry) control.StoryItem {
	it := items(a.told([]Entry{e}))[0]
	if e.Cause.Entry != 0 {
		node := a.name
		if e.Cause.Node != "" {
			node = a.nameOfHex(e.Cause.Node)
		}
		it.Cause = fmt.Sprintf("%s/%d", node, e.Cause.Entry)
	}
	return it
}

func (d door) Why(ctx context.Context, subject string) ([]control.StoryItem, error) {
	return d.a.why(ctx, subject)
}

func (d door) names() map[id.Node]string {
	out := map[id.Node]string{}
	for _, n := range d.a.mesh.Nodes() {
		out[n.ID] = n.Name
	}
	return out
}

func scoreItem(s policies.Score, at time.Time, files map[string][]byte) control.Score {
	item := control.Score{Name: s.Name, Version: s.Version, Hash: s.Hash, Why: s.Why, Since: at, State: stateInForce, Files: map[string]string{}}
	for name, b := range files {
		item.Files[name] = string(b)
	}
	return item
}

func (d door) Score(context.Context) (control.Score, error) {
	v := d.a.view.Load()
	if v == nil || v.program == nil || v.inForce == nil {
		item := control.Score{State: stateNone}
		if v != nil && v.refused != nil {
			item.State, item.Version, item.Problem = stateRefused, v.refused.Semver, v.refused.Problem
		}
		return item, nil
	}
	item := scoreItem(v.program.Score(), v.inForce.Since, v.inForce.Files)
	if v.refused != nil && v.refused.compare(*v.inForce) > 0 {
		item.Problem = fmt.Sprintf("a newer score %s is refused: %s", v.refused.Semver, v.refused.Problem)
	}
	return item, nil
}

func (d door) Version(context.Context) (control.Version, error) {
	v := control.Version{
		Program: "meshd", Version: d.a.cfg.Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
		PID: os.Getpid(), Node: d.a.name, NodeID: d.a.mesh.Self().String(), Mesh: d.a.mesh.Charter().MeshName(),
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				v.Revision = s.Value
			}
		}
	}
	return v, nil
}
