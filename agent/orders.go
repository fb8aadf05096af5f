package agent

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Masterminds/semver/v3"

	"meshd/agent/control"
	"meshd/agent/promise"
	"meshd/mesh"
	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/policies"
	"meshd/store"
	"meshd/store/artifact"
)

// stage unpacks what an operator sends into a folder of this node's own, and removes it afterwards.
func (d door) stage(stream io.Reader, then func(path string) error) error {
	tmp := tmpDir(d.a.cfg.Node)
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(tmp, "publish-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "content")
	if err := control.Unpack(stream, path, control.Limits{Entries: publishFiles}); err != nil {
		return err
	}
	return then(path)
}

// draft keeps what an operator sends while it comes in: nothing is unpacked on disk.
func (d door) draft(ctx context.Context, stream io.Reader) (*store.Draft, error) {
	return d.a.store.Draft(ctx, func(put func(artifact.Entry, io.Reader) error) error {
		return control.Walk(stream, control.Limits{Entries: publishFiles}, func(kind byte, name string, perm fs.FileMode, link string, body io.Reader) error {
			e := artifact.Entry{Name: name, Kind: artifact.File, Mode: uint32(perm)}
			switch {
			case kind == tar.TypeDir && name == ".":
				return nil
			case kind == tar.TypeDir:
				e.Kind = artifact.Dir
			case kind == tar.TypeSymlink:
				e.Kind, e.Mode, e.Link = artifact.Symlink, 0, link
			case name == ".":
				e.Name = ""
			}
			return put(e, body)
		})
	})
}

func (d door) Publish(ctx context.Context, name, version string, stream io.Reader, progress func(control.Line)) (control.Artifact, error) {
	if name == scoreName {
		return control.Artifact{}, control.Errorf(control.Usage, "the name %q belongs to the score; publish one with meshctl policy publish DIR", scoreName)
	}
	if err := artifact.CheckName(name); err != nil {
		return control.Artifact{}, control.Errorf(control.Usage, "%v", err)
	}
	if _, err := semver.NewVersion(version); version != "" && err != nil {
		return control.Artifact{}, control.Errorf(control.Usage, "version %.80q is no semver, such as 1.2.0; without one the artifact has its counter", version)
	}
	if !d.a.supply.mayPublish(d.a.mesh.Self(), name, "") {
		if v := d.a.view.Load(); v == nil || v.program == nil {
			return control.Artifact{}, control.Errorf(control.Failed, "no score is in force on this node yet, and without one the charter lets it publish no %q; see meshctl policy show and try again", name)
		}
		return control.Artifact{}, control.Errorf(control.Failed, "neither the charter nor the score's access lets this node publish %q; nobody would take it", name)
	}
	if version != "" {
		for _, o := range d.a.supply.named(name) {
			if o.body.Semver == version && o.ref.Version.By == d.a.mesh.Self() {
				return control.Artifact{}, control.Errorf(control.Failed, "%s %s is published already (hash %s); give another version", name, version, o.ref.Tree.Short())
			}
		}
	}
	draft, err := d.draft(ctx, stream)
	if err != nil {
		return control.Artifact{}, err
	}
	defer draft.Close()
	of, err := d.a.supply.offer(ctx, name, version, handKeep, store.AddOptions{Draft: draft}, Cause{Text: "meshctl publish on " + d.a.name})
	if err != nil {
		return control.Artifact{}, err
	}
	draft.Close() // its memory is not needed while copies are waited for
	item := d.artifact(of, d.names(), d.a.placedBy()[name])
	tell := func(copies int) {
		if progress != nil {
			progress(control.Line{Type: control.LineProgress, DoneBytes: of.ref.SizeBytes, TotalBytes: of.ref.SizeBytes, Nodes: copies})
		}
	}
	for _, n := range d.waitCopies(ctx, of, tell) {
		if holder := d.a.nameOf(n); !slices.Contains(item.Holders, holder) {
			item.Holders = append(item.Holders, holder)
		}
	}
	slices.Sort(item.Holders)
	return item, nil
}

// waitCopies waits for the copies to be made, a little while, and returns who has them. Who should make them is
// asked at each look: a node that joined just now is known to be there before its certificate, which says what
// it may pull. A copy that wants the artifact itself says in the catalog that it has it; the others are asked, all at
// once, so that one that can't be reached from here holds up nobody.
func (d door) waitCopies(ctx context.Context, o offered, tell func(copies int)) []id.Node {
	var asks sync.WaitGroup
	defer asks.Wait()
	ctx, cancel := context.WithTimeout(ctx, copiesWait)
	defer cancel()
	yes, asked := make(chan id.Node), map[id.Node]bool{}
	var have []id.Node
	found := func(n id.Node) {
		if !slices.Contains(have, n) {
			have = append(have, n)
			tell(len(have))
		}
	}
	tell(0)
	for {
		strangers := d.a.strangers()
		placed := d.a.placedAt(o)
		missing := 0
		for _, n := range d.a.copiesOf(o) {
			switch {
			case slices.Contains(have, n):
			case placed[n]:
				found(n)
			case asked[n]:
				missing++
			default:
				missing++
				asked[n] = true
				asks.Go(func() { d.askCopy(ctx, n, o, yes) })
			}
		}
		if missing == 0 && (!strangers || len(have) >= mesh.Copies) {
			return have
		}
		select {
		case <-ctx.Done():
			return have
		case n := <-yes:
			found(n)
		case <-time.After(copiesLook):
		}
	}
}

// askCopy asks n until it has what o offers, and says so.
func (d door) askCopy(ctx context.Context, n id.Node, o offered, yes chan<- id.Node) {
	for !d.a.has(ctx, n, o) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(copiesLook):
		}
	}
	select {
	case yes <- n:
	case <-ctx.Done():
	}
}

// placedAt is who says in the catalog that it has placed what o offers.
func (a *Agent) placedAt(o offered) map[id.Node]bool {
	out := map[id.Node]bool{}
	for _, r := range a.mesh.Catalog().Live(catalog.ScopeMain, catalog.KindPlaced, o.ref.Name) {
		if body, err := catalog.DecodePlaced(r.Body); err == nil && body.Tree == o.ref.Tree {
			out[r.Log.Origin] = true
		}
	}
	return out
}

// strangers reports whether somebody can be reached whose certificate is not here yet.
func (a *Agent) strangers() bool {
	for n := range a.mesh.Reachable() {
		if _, ok := a.mesh.Catalog().Cert(n); !ok {
			return true
		}
	}
	return false
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
	defer d.a.supply.startPull(best.ref.Root)()
	report := func(done, total int64) {
		if progress != nil {
			p := d.a.underway()[best.ref.Root]
			progress(control.Line{Type: control.LineProgress, DoneBytes: done, TotalBytes: total, BytesPerSecond: p.BytesPerSecond, Nodes: p.Nodes})
		}
	}
	d.a.mesh.Wake() // a leaf that rests
	if err := d.a.supply.pullTelling(ctx, best.ref, report); err != nil {
		var w *promise.WaitingError
		if errors.As(err, &w) {
			return control.Errorf(control.TimedOut, "%s: no node that has it answers now", ref)
		}
		return err
	}
	report(best.ref.SizeBytes, best.ref.SizeBytes) // nothing was pulled where all of it is here
	tmp := tmpDir(d.a.cfg.Node)
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
	// The dropped versions will be forgotten by all; the next one must still be newer than they were.
	if err := d.a.memory.putCounter(name, d.a.supply.highest(name)); err != nil {
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

func (d door) PublishScore(ctx context.Context, stream io.Reader) (control.Score, error) {
	if !d.a.mesh.Charter().IsScoreKey(d.a.mesh.Self()) {
		return control.Score{}, control.Errorf(control.Failed, "the charter does not let this node's key set the score; do it on the node that ran init")
	}
	var item control.Score
	err := d.stage(stream, func(path string) error {
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

func (d door) Offline(_ context.Context, for_ time.Duration, on bool) error {
	d.a.setOffline(for_, on)
	return nil
}
