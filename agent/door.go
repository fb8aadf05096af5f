package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"meshd/agent/control"
	"meshd/agent/promise"
	"meshd/mesh"
	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/policies"
	"meshd/roles"
	"meshd/store"
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
	nodes := d.a.mesh.Nodes()
	out := make([]control.Member, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, control.Member{
			Name: n.Name, ID: n.ID.String(), Status: n.Status, Kind: "member", Self: n.Self, Address: first1(n.Addrs),
			Tags: n.Tags, Roles: n.Roles, RTTSeconds: n.RTT.Seconds(),
			Promises: control.Counts{Kept: n.Counts[0], Repaired: n.Counts[1], Failed: n.Counts[2], Waiting: n.Counts[3], Drifted: n.Counts[4]},
			Score:    n.Score, Version: n.Version, Platform: n.Platform, LastSeen: n.LastSeen,
		})
	}
	return out, nil
}

func (d door) Artifacts(_ context.Context, pattern string, all bool) ([]control.Artifact, error) {
	nodes := map[id.Node]string{}
	for _, n := range d.a.mesh.Nodes() {
		nodes[n.ID] = n.Name
	}
	placed := d.a.placedBy()
	var out []control.Artifact
	offers := d.a.supply.offers("")
	for i, o := range offers {
		if pattern != "" && !policies.MatchName(pattern, o.ref.Name) {
			continue
		}
		superseded := slices.ContainsFunc(offers[i+1:], func(later offered) bool {
			return later.ref.Name == o.ref.Name && later.ref.Version.By == o.ref.Version.By
		})
		if superseded && !all {
			continue
		}
		out = append(out, d.artifact(o, nodes, placed[o.ref.Name]))
	}
	return out, nil
}

// placedBy lists what nodes say of their wants, by artifact name.
func (a *Agent) placedBy() map[string]map[id.Node]catalog.PlacedBody {
	out := map[string]map[id.Node]catalog.PlacedBody{}
	for _, r := range a.mesh.Catalog().Live(catalog.ScopeMain, catalog.KindPlaced, "") {
		body, err := catalog.DecodePlaced(r.Body)
		if err != nil {
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
	if m, err := d.a.store.Manifest(o.ref.Root); err == nil {
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
		case all, node == "" && n.Self, node != "" && (n.Name == node || n.ID.String() == node):
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

// stage unpacks what an operator sends into a folder of this node's own, and removes it afterwards.
func (d door) stage(tar io.Reader, then func(path string) error) error {
	tmp := filepath.Join(d.a.cfg.Node.Dir, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(tmp, "publish-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "content")
	if err := control.Unpack(tar, path, control.Limits{Entries: publishFiles}); err != nil {
		return err
	}
	return then(path)
}

func (d door) Publish(ctx context.Context, name, version string, tar io.Reader, progress func(control.Line)) (control.Artifact, error) {
	if name == scoreName {
		return control.Artifact{}, control.Errorf(control.Usage, "the name %q belongs to the score; publish one with meshctl policy publish DIR", scoreName)
	}
	if err := artifact.CheckName(name); err != nil {
		return control.Artifact{}, control.Errorf(control.Usage, "%v", err)
	}
	if !d.a.supply.mayPublish(d.a.mesh.Self(), name, "") {
		return control.Artifact{}, control.Errorf(control.Failed, "neither the charter nor the score's access lets this node publish %q; nobody would take it", name)
	}
	if version != "" {
		for _, o := range d.a.supply.named(name) {
			if o.body.Semver == version && o.ref.Version.By == d.a.mesh.Self() {
				return control.Artifact{}, control.Errorf(control.Failed, "%s %s is published already (hash %s); give another version", name, version, o.ref.Tree.Short())
			}
		}
	}
	var of offered
	err := d.stage(tar, func(path string) (err error) {
		of, err = d.a.supply.offer(ctx, name, version, handKeep, store.AddOptions{Path: path}, Cause{Text: "meshctl publish on " + d.a.name})
		return err
	})
	if err != nil {
		return control.Artifact{}, err
	}
	item := d.artifact(of, d.names(), d.a.placedBy()[name])
	for _, n := range d.waitCopies(ctx, of) {
		if holder := d.a.nameOf(n); !slices.Contains(item.Holders, holder) {
			item.Holders = append(item.Holders, holder)
		}
	}
	slices.Sort(item.Holders)
	if progress != nil {
		progress(control.Line{Type: control.LineProgress, DoneBytes: of.ref.SizeBytes, TotalBytes: of.ref.SizeBytes})
	}
	return item, nil
}

func (d door) names() map[id.Node]string {
	out := map[id.Node]string{}
	for _, n := range d.a.mesh.Nodes() {
		out[n.ID] = n.Name
	}
	return out
}

// copiesOf is who should hold o besides its publisher.
func (a *Agent) copiesOf(o offered) []id.Node {
	v := a.view.Load()
	var may []id.Node
	for n := range a.mesh.Alive() {
		cert, ok := a.mesh.Catalog().Cert(n)
		if !ok || n == o.ref.Version.By {
			continue
		}
		if v != nil && v.program != nil && o.ref.Name != scoreName {
			if ok, _ := v.program.Allows("pull", o.ref.Name, cert.Name, roles.Attested(v.program, cert.Name, cert.Tags)); !ok {
				continue
			}
		}
		may = append(may, n)
	}
	ranked := id.Rank(o.ref.Root[:], may)
	return ranked[:min(len(ranked), mesh.Copies)]
}

// waitCopies waits for the copies to be made, a little while, and returns who has them.
func (d door) waitCopies(ctx context.Context, o offered) []id.Node {
	ctx, cancel := context.WithTimeout(ctx, copiesWait)
	defer cancel()
	wait := d.a.copiesOf(o)
	var have []id.Node
	for len(wait) > 0 {
		wait = slices.DeleteFunc(wait, func(n id.Node) bool {
			answer, err := d.a.mesh.Ask(ctx, n, mesh.Question{Kind: mesh.AskHave, Subject: o.ref.Root.String()})
			if err == nil && answer.Has {
				have = append(have, n)
				return true
			}
			return false
		})
		select {
		case <-ctx.Done():
			return have
		case <-time.After(copiesLook):
		}
	}
	return have
}

func (d door) Get(ctx context.Context, ref string, w io.Writer, progress func(control.Line)) error {
	name, version, pinned := strings.Cut(ref, "@")
	var best *offered
	for _, o := range d.a.supply.named(name) {
		if (!pinned || o.shown() == version || fmt.Sprint(o.body.Counter) == version) && d.a.supply.trusted(o) {
			best = &o
		}
	}
	if best == nil {
		return control.Errorf(control.NotFound, "nobody who may publishes %q; meshctl artifacts lists what is offered", ref)
	}
	if err := d.a.store.Expect(best.ref.Root); err != nil {
		return err
	}
	report := func(done, total int64) {
		if progress != nil {
			progress(control.Line{Type: control.LineProgress, DoneBytes: done, TotalBytes: total})
		}
	}
	if err := d.a.supply.pullTelling(ctx, best.ref, report); err != nil {
		var w *promise.WaitingError
		if errors.As(err, &w) {
			return control.Errorf(control.TimedOut, "%s: no node that has it answers now", ref)
		}
		return err
	}
	tmp := filepath.Join(d.a.cfg.Node.Dir, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(tmp, "get-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	o := store.PlaceOptions{Base: dir, Path: "content"}
	if err := d.a.store.Place(ctx, best.ref.Root, o); err != nil {
		return err
	}
	defer func() { _ = d.a.store.Unplace(context.WithoutCancel(ctx), o) }()
	real, err := filepath.EvalSymlinks(filepath.Join(dir, "content"))
	if err != nil {
		return err
	}
	return control.Pack(w, real, nil)
}

func (d door) Withdraw(ctx context.Context, name string) error {
	if _, ok := d.a.supply.ownNewest(name); !ok {
		return control.Errorf(control.NotFound, "this node offers no %q; only its publisher withdraws an artifact", name)
	}
	b, err := catalog.EncodeWithdraw(catalog.WithdrawBody{})
	if err != nil {
		return err
	}
	d.a.journal.append(Entry{
		At: d.a.cfg.Wall(), Kind: aboutArtifact, Subject: name, Outcome: "withdrawn", Cause: Cause{Text: "meshctl withdraw on " + d.a.name},
	})
	if err := d.a.journal.flush(); err != nil {
		return err
	}
	_, err = d.a.mesh.Publish(ctx, catalog.KindWithdraw, name, b, 0)
	return err
}

func (d door) Retry(ctx context.Context, address string) error {
	var found bool
	err := d.a.loop.do(ctx, func() {
		for _, in := range d.a.loop.instances {
			if matches(in.p.Address, address) {
				found = true
				in.failures = 0
				in.settle = time.Time{}
				d.a.loop.wake(in, Cause{Text: "meshctl retry"})
			}
		}
	})
	if err == nil && !found {
		err = control.Errorf(control.NotFound, "no promise %q on this node; meshctl promises lists them", address)
	}
	return err
}

// matches reports whether address is that promise, or all keys of it.
func matches(a policies.Address, address string) bool {
	return string(a) == address || strings.HasPrefix(string(a), address+"[")
}

func (d door) Logs(ctx context.Context, address string, w io.Writer) error {
	var known bool
	if err := d.a.loop.do(ctx, func() {
		for a := range d.a.loop.instances {
			known = known || string(a) == address
		}
	}); err != nil {
		return err
	}
	path := promise.LogPath(d.a.cfg.Node.Dir, policies.Address(address))
	any := false
	for _, p := range []string{path + ".1", path} {
		f, err := os.Open(p)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		any = true
		_, err = io.Copy(w, f)
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	if !any && !known {
		return control.Errorf(control.NotFound, "no promise %q on this node; meshctl promises lists them", address)
	}
	return nil // kept quietly: it printed nothing
}

func (d door) Invite(ctx context.Context, r control.InviteRequest) (string, error) {
	ttl := time.Duration(r.TTLSeconds) * time.Second
	if ttl < minInviteTTL || ttl > maxInviteTTL {
		return "", control.Errorf(control.Usage, "invite: ttl %v: want %v to %v", ttl, minInviteTTL, maxInviteTTL)
	}
	if r.Name != "" {
		if err := CheckName(r.Name); err != nil {
			return "", control.Errorf(control.Usage, "%v", err)
		}
	}
	return d.a.mesh.Invite(ctx, mesh.InviteRequest{Name: r.Name, Tags: r.Tags, TTL: ttl, Uses: r.Uses, Replace: r.Replace})
}

func (d door) Revoke(_ context.Context, node string) error {
	err := d.a.mesh.Revoke(node, "meshctl revoke on "+d.a.name)
	if errors.Is(err, mesh.ErrNotFound) {
		return control.Errorf(control.NotFound, "%v; meshctl members lists the nodes", err)
	}
	return err
}

func (d door) PublishScore(ctx context.Context, tar io.Reader) (control.Score, error) {
	if !d.a.mesh.Charter().IsScoreKey(d.a.mesh.Self()) {
		return control.Score{}, control.Errorf(control.Failed, "the charter does not let this node's key set the score; do it on the node that ran init")
	}
	var item control.Score
	err := d.stage(tar, func(path string) error {
		files, err := ReadFolder(path)
		if err != nil {
			return err
		}
		program, err := policies.Compile(files)
		if err != nil {
			return control.Errorf(control.Failed, "%v", err)
		}
		if err := d.a.newerScore(program); err != nil {
			return err
		}
		of, err := d.a.supply.offer(ctx, scoreName, program.Score().Version, scoreKeep, store.AddOptions{Path: path}, Cause{Text: "meshctl policy publish on " + d.a.name})
		if err != nil {
			return err
		}
		d.a.loop.post(func() { d.a.loop.considerScore(context.WithoutCancel(ctx)) })
		item = scoreItem(program.Score(), of.at, files)
		return nil
	})
	return item, err
}

// newerScore refuses a version below the one in force, which no node would play.
func (a *Agent) newerScore(p *policies.Program) error {
	v := a.view.Load()
	if v == nil || v.inForce == nil {
		return nil
	}
	next := scoreState{Semver: p.Score().Version, Counter: v.inForce.Counter + 1}
	if next.compare(*v.inForce) < 0 {
		return control.Errorf(control.Failed, "score %s is older than %s, which is in force; raise its version", next.Semver, v.inForce.Semver)
	}
	if v.program != nil && next.Semver == v.inForce.Semver && v.program.Score().Hash != p.Score().Hash {
		return control.Errorf(control.Failed, "another score of version %s is in force; raise the version", next.Semver)
	}
	return nil
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

func (d door) Offline(_ context.Context, for_ time.Duration, on bool) error {
	d.a.setOffline(for_, on)
	return nil
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
