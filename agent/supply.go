package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/Masterminds/semver/v3"

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
	scoreName    = "score"          // the artifact that every node wants by itself
	maxVersions  = 64               // of one name that `keep` may hold
	ownHeadWait  = 10 * time.Second // before the first publish, for a peer to tell of the own head
	pullNoHolder = 15 * time.Second // a pull without progress for this long waits for a holder
	inviteLife   = 10 * time.Minute // of a guest's token
	placedV1     = 1
)

// A supply is what the keepers of artifact, want and guest see of mesh and store. It is safe for
// concurrent use; per promise it is called from one goroutine at a time.
type supply struct {
	a      *Agent
	index  offerIndex
	placed Shelf // promise address -> its placements, as JSON behind a version byte

	publishing sync.Mutex // one version at a time: counters are read and written

	mu     sync.Mutex
	runs   map[policies.Address]runInfo // what the loop said of each run
	causes map[policies.Address]Cause   // what the last repair of a want came from
	told   map[string]catalog.PlacedBody
}

// runInfo is what a keeper's run was started for.
type runInfo struct {
	cause Cause
	wants []policies.Address
}

func newSupply(a *Agent, shelf Shelf) *supply {
	return &supply{
		a: a, index: offerIndex{mesh: a.mesh}, placed: shelf, runs: map[policies.Address]runInfo{}, causes: map[policies.Address]Cause{},
		told: map[string]catalog.PlacedBody{},
	}
}

// running is called by the loop before each run.
func (s *supply) running(p policies.Address, c Cause, wants []policies.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs[p] = runInfo{cause: c, wants: wants}
	delete(s.causes, p)
}

// causeOf is what the last run of a want took its change from: another node's journal record.
func (s *supply) causeOf(p policies.Address) (Cause, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.causes[p]
	return c, ok
}

func (s *supply) forget(p policies.Address) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.runs, p)
	delete(s.causes, p)
}

func (s *supply) run(p policies.Address) runInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[p]
}

// addOptions turns an offer into what the store takes.
func (s *supply) addOptions(o promise.Offer) store.AddOptions {
	opts := store.AddOptions{Meta: o.Meta, Of: s.inputs(policies.Address(o.Promise), o.Of)}
	if o.Base == "" && len(o.From) == 1 {
		opts.Path = o.From[0]
		return opts
	}
	opts.Base = o.Base
	for _, path := range o.From {
		if rel, err := filepath.Rel(o.Base, path); err == nil {
			opts.Paths = append(opts.Paths, filepath.ToSlash(rel))
		}
	}
	return opts
}

// inputs are the versions in place of the wants that an artifact is made of: those named, or all that its
// needs lead to.
func (s *supply) inputs(p policies.Address, named []string) []artifact.Input {
	wants := make([]policies.Address, 0, len(named))
	for _, n := range named {
		wants = append(wants, policies.Address(n))
	}
	if named == nil {
		wants = s.run(p).wants
	}
	var out []artifact.Input
	for _, w := range wants {
		for _, pl := range s.placements(string(w)) {
			tree, err := artifact.ParseDigest(pl.Tree)
			by, errBy := id.Parse(pl.By)
			if err != nil || errBy != nil {
				continue // written by this program: only a damaged store comes here
			}
			out = append(out, artifact.Input{
				Name: pl.Name, Version: artifact.Version{Counter: pl.Counter, Epoch: pl.Epoch, By: by}, Tree: tree,
			})
		}
	}
	slices.SortFunc(out, func(x, y artifact.Input) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), x.Version.Compare(y.Version))
	})
	return slices.Compact(out)
}

// Outdated compares what lies there with this node's own newest version of the name.
func (s *supply) Outdated(ctx context.Context, o promise.Offer) (bool, promise.ArtifactCause, error) {
	opts := s.addOptions(o)
	tree, err := s.a.store.TreeOf(ctx, opts)
	if err != nil {
		return false, promise.ArtifactCause{}, err
	}
	newest, ok := s.ownNewest(o.Name)
	if !ok {
		return true, promise.ArtifactCause{}, nil
	}
	was := newest.cause()
	if newest.ref.Tree != tree {
		if o.Version != "auto" && o.Version == newest.body.Semver {
			return false, was, fmt.Errorf("version %s of %s was published with other content (hash %s); raise the version", o.Version, o.Name, newest.ref.Tree.Short())
		}
		return true, was, nil
	}
	if o.Version != "auto" && o.Version != newest.body.Semver {
		return true, was, nil
	}
	m, err := s.a.store.Manifest(newest.ref.Root)
	if err != nil {
		return true, was, nil // its bytes are gone here: publish them again
	}
	return !slices.Equal(m.Of, opts.Of), was, nil
}

// Publish makes a new version: first the bytes, then the journal record that says why, then the advert.
func (s *supply) Publish(ctx context.Context, o promise.Offer) (promise.ArtifactCause, error) {
	opts := s.addOptions(o)
	semver := o.Version
	if semver == "auto" {
		semver = ""
	}
	of, err := s.offer(ctx, o.Name, semver, o.Keep, opts, s.run(policies.Address(o.Promise)).cause)
	if err != nil {
		return promise.ArtifactCause{}, err
	}
	return of.cause(), nil
}

// offer adds the bytes and signs the advert. Counters of one node never go back, whoever publishes.
func (s *supply) offer(ctx context.Context, name, semver string, keep int, opts store.AddOptions, cause Cause) (offered, error) {
	if err := artifact.CheckName(name); err != nil {
		return offered{}, err
	}
	if err := s.waitOwnHead(ctx); err != nil {
		return offered{}, err
	}
	s.publishing.Lock()
	defer s.publishing.Unlock()
	counter := s.highest(name) + 1
	shown := cmp.Or(semver, strconv.FormatUint(counter, 10))
	entry := s.a.journal.append(Entry{
		At: s.a.cfg.Wall(), Kind: aboutArtifact, Subject: name + "@" + shown, Outcome: "published", Cause: cause,
		Text: "published by " + s.a.name,
	})
	if err := s.a.journal.flush(); err != nil {
		return offered{}, err
	}
	opts.Origin = artifact.Origin{Node: s.a.mesh.Self(), Entry: entry, Text: cut(cause.Text, 200)}
	ref, err := s.a.store.Add(ctx, opts)
	if err != nil {
		return offered{}, err
	}
	body := catalog.ArtifactBody{
		Counter: counter, Root: ref.Root, Tree: ref.Tree, SizeBytes: ref.SizeBytes,
		Keep: min(max(keep, 1), maxVersions), Semver: semver,
	}
	b, err := catalog.EncodeArtifact(body)
	if err != nil {
		return offered{}, err
	}
	rec, err := s.a.mesh.Publish(ctx, catalog.KindArtifact, name, b, body.Keep)
	if err != nil {
		return offered{}, err
	}
	ref.Name = name
	ref.Version = artifact.Version{Counter: counter, Epoch: rec.Log.Epoch, By: rec.Log.Origin}
	s.a.cfg.Log.Info("artifact published", "name", name, "version", shown, "hash", ref.Tree.Short())
	return offered{ref: ref, body: body, at: rec.At}, nil
}

// waitOwnHead lets a peer tell of records that this node published before its store was lost or restored,
// so that no version is given out twice. Alone, a node waits once and goes on; the first node of a mesh,
// which knows nobody, has nobody to ask.
func (s *supply) waitOwnHead(ctx context.Context) error {
	if s.a.mesh.OwnChecked() || !s.a.mesh.KnowsOthers() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Until(s.a.started.Add(ownHeadWait)))
	defer cancel()
	return s.a.mesh.WaitOwnChecked(ctx)
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// offers lists the live artifact records whose name begins with prefix, oldest first within a name.
func (s *supply) offers(prefix string) []offered { return s.index.get().prefixed(prefix) }

// named lists those of one name, oldest first.
func (s *supply) named(name string) []offered { return s.index.get().byName[name] }

func (s *supply) ownNewest(name string) (offered, bool) {
	var best offered
	for _, o := range s.named(name) {
		if o.ref.Version.By == s.a.mesh.Self() {
			best = o
		}
	}
	return best, best.ref.Name != ""
}

func (s *supply) highest(name string) uint64 {
	var n uint64
	for _, o := range s.named(name) {
		n = max(n, o.body.Counter)
	}
	return n
}

// mayPublish judges a publisher by its certificate, alive or not: the charter lists it for that name, or
// the score's access allows it.
func (s *supply) mayPublish(by id.Node, name, from string) bool {
	cert, ok := s.a.mesh.Catalog().Cert(by)
	if !ok || s.a.mesh.Catalog().Revoked(cert.Key) {
		return false
	}
	v := s.a.view.Load()
	if v == nil || v.program == nil {
		return s.a.mesh.Charter().MayPublish(by, name)
	}
	holds := roles.Attested(v.program, cert.Name, cert.Tags)
	if from != "" && !holds(from) {
		return false
	}
	if s.a.mesh.Charter().MayPublish(by, name) {
		return true
	}
	ok, _ = v.program.Allows("publish", name, cert.Name, holds)
	return ok
}

// trusted is mayPublish for an offer; the score is for score keys alone.
func (s *supply) trusted(o offered) bool {
	if o.ref.Name == scoreName {
		return s.a.mesh.Charter().IsScoreKey(o.ref.Version.By)
	}
	return s.mayPublish(o.ref.Version.By, o.ref.Name, "")
}

// Choose lists what w should have in place now.
func (s *supply) Choose(_ context.Context, w promise.Wish) ([]promise.Placement, error) {
	literal, _, _ := strings.Cut(w.Name, "*")
	byPublisher := strings.Contains(w.Place, "${artifact.publisher}")
	best := map[string]offered{}
	for _, o := range s.offers(literal) {
		if !policies.MatchName(w.Name, o.ref.Name) || !s.mayPublish(o.ref.Version.By, o.ref.Name, w.From) || !fits(o, w.Version) {
			continue
		}
		key := o.ref.Name
		if byPublisher {
			key += "\x00" + o.ref.Version.By.String()
		}
		if old, ok := best[key]; !ok || newer(o, old, w.Version) {
			best[key] = o
		}
	}
	if len(best) == 0 {
		s.tellPlaced(w, nil)
		return nil, &promise.WaitingError{For: "artifact " + w.Name + offeredBy(w.From)}
	}
	return s.place(w, best)
}

func offeredBy(role string) string {
	if role == "" {
		return ""
	}
	return " from " + role
}

func fits(o offered, want string) bool {
	if want == "" || want == "latest" {
		return true
	}
	c, err := semver.NewConstraint(want)
	if err != nil {
		return o.shown() == want
	}
	v, err := semver.NewVersion(o.body.Semver)
	return err == nil && c.Check(v)
}

// newer orders offers of one name: by counter, or under a constraint by semver first.
func newer(a, b offered, want string) bool {
	if want != "" && want != "latest" {
		x, errX := semver.NewVersion(a.body.Semver)
		y, errY := semver.NewVersion(b.body.Semver)
		if errX == nil && errY == nil && !x.Equal(y) {
			return x.GreaterThan(y)
		}
	}
	return a.ref.Compare(b.ref) > 0
}

func (s *supply) place(w promise.Wish, best map[string]offered) ([]promise.Placement, error) {
	var out []promise.Placement
	at := map[string]string{}
	for _, o := range best {
		path := strings.NewReplacer(
			"${artifact.name}", o.ref.Name, "${artifact.version}", o.shown(), "${artifact.hash}", o.ref.Tree.String(),
			"${artifact.publisher}", s.a.nameOf(o.ref.Version.By),
		).Replace(w.Place)
		if !filepath.IsAbs(path) {
			path = filepath.Join(s.a.cfg.WorkDir, path)
		}
		if other, taken := at[path]; taken {
			return nil, fmt.Errorf("%s and %s would both lie at %s; say ${artifact.name} or ${artifact.publisher} in place", other, o.ref.Name, path)
		}
		at[path] = o.ref.Name
		out = append(out, promise.Placement{
			Promise: w.Promise, Artifact: o.cause(), Root: o.ref.Root.String(), Path: path, Mode: w.Mode, Owner: w.Owner, Adopt: w.Adopt,
		})
	}
	slices.SortFunc(out, func(x, y promise.Placement) int { return strings.Compare(x.Path, y.Path) })
	return out, nil
}

func (s *supply) placeOptions(p promise.Placement) (artifact.Digest, store.PlaceOptions, error) {
	root, err := artifact.ParseDigest(p.Root)
	if err != nil {
		return artifact.Digest{}, store.PlaceOptions{}, err
	}
	o := store.PlaceOptions{Path: p.Path, Adopt: p.Adopt}
	if rel, err := filepath.Rel(s.a.cfg.WorkDir, p.Path); err == nil && filepath.IsLocal(rel) {
		o.Base, o.Path = s.a.cfg.WorkDir, rel
	}
	if p.Mode != "" {
		mode, err := strconv.ParseUint(p.Mode, 8, 12)
		if err != nil {
			return artifact.Digest{}, store.PlaceOptions{}, fmt.Errorf("mode %q: want octal digits such as 0644", p.Mode)
		}
		o.Mode = os.FileMode(mode)
	}
	return root, o, nil
}

// InPlace reports whether p lies as it should and was told to the others.
func (s *supply) InPlace(ctx context.Context, p promise.Placement) (bool, string, error) {
	root, o, err := s.placeOptions(p)
	if err != nil {
		return false, "", err
	}
	ok, why, err := s.a.store.Placed(ctx, root, o)
	if errors.Is(err, store.ErrMissing) {
		return false, "its bytes are not here", nil
	}
	if err != nil || !ok {
		return false, why, err
	}
	s.tellPlaced(promise.Wish{Promise: p.Promise, Name: p.Artifact.Name}, s.find(root))
	return true, "", nil
}

func (s *supply) find(root artifact.Digest) *offered {
	if list := s.index.get().byRoot[root]; len(list) > 0 {
		return &list[0]
	}
	return nil
}

// Fetch pulls and places.
func (s *supply) Fetch(ctx context.Context, p promise.Placement) error {
	root, o, err := s.placeOptions(p)
	if err != nil {
		return err
	}
	of := s.find(root)
	if of == nil {
		return &promise.WaitingError{For: fmt.Sprintf("artifact %s: it was withdrawn just now", p.Artifact.Name)}
	}
	if err := s.pull(ctx, of.ref); err != nil {
		return err
	}
	if err := s.a.store.Place(ctx, root, o); err != nil {
		return err
	}
	m, err := s.a.store.Manifest(root)
	if err != nil {
		return err
	}
	address := policies.Address(p.Promise)
	s.mu.Lock()
	s.causes[address] = Cause{
		Node: m.Origin.Node.String(), Entry: m.Origin.Entry,
		Text: fmt.Sprintf("%s@%s from %s", of.ref.Name, of.shown(), s.a.nameOf(of.ref.Version.By)),
	}
	s.mu.Unlock()
	return s.remember(p.Promise, placement{
		Name: of.ref.Name, Path: p.Path, Root: p.Root, Tree: of.ref.Tree.String(),
		Counter: of.ref.Version.Counter, Epoch: of.ref.Version.Epoch, By: of.ref.Version.By.String(),
	})
}

// pull brings the bytes, and waits rather than fails while nobody who holds them answers.
func (s *supply) pull(ctx context.Context, ref artifact.Ref) error {
	return s.pullTelling(ctx, ref, func(int64, int64) {})
}

// pullTelling is pull with progress; tell must not block.
func (s *supply) pullTelling(ctx context.Context, ref artifact.Ref, tell func(done, total int64)) error {
	if has, err := s.a.store.Has(ref.Root); err != nil || has {
		return err
	}
	if err := s.a.store.Expect(ref.Root); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	noHolder := &promise.WaitingError{For: fmt.Sprintf("a holder of %s@%d that answers", ref.Name, ref.Version.Counter)}
	stalled := time.AfterFunc(pullNoHolder, func() { cancel(noHolder) })
	defer stalled.Stop()
	err := s.a.mesh.Pull(ctx, ref, func(done, total int64) {
		stalled.Reset(pullNoHolder)
		tell(done, total)
	})
	if err != nil && errors.Is(context.Cause(ctx), noHolder) {
		return noHolder
	}
	return err
}

// A placement is what this node put in place for a promise. Written after the bytes were.
type placement struct {
	Name, Path, Root, Tree string
	Counter, Epoch         uint64
	By                     string
}

func (s *supply) placements(p string) []placement {
	_, values, err := s.placed.Scan([]byte(p), append([]byte(p), 0), 1)
	if err != nil || len(values) == 0 || first(values[0]) != placedV1 {
		return nil
	}
	var out []placement
	if json.Unmarshal(values[0][1:], &out) != nil {
		return nil
	}
	return out
}

func (s *supply) remember(p string, now placement) error {
	list := slices.DeleteFunc(s.placements(p), func(o placement) bool { return o.Path == now.Path })
	return s.write(p, append(list, now))
}

func (s *supply) write(p string, list []placement) error {
	slices.SortFunc(list, func(x, y placement) int { return strings.Compare(x.Path, y.Path) })
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return s.placed.Apply([][]byte{[]byte(p)}, [][]byte{append([]byte{placedV1}, b...)})
}

// Retire removes what p placed earlier and is not among now: withdrawn, or renamed.
func (s *supply) Retire(ctx context.Context, p string, now []promise.Placement) error {
	var stay []placement
	list := s.placements(p)
	for _, old := range list {
		if slices.ContainsFunc(now, func(n promise.Placement) bool { return n.Path == old.Path }) {
			stay = append(stay, old)
			continue
		}
		_, o, err := s.placeOptions(promise.Placement{Path: old.Path, Root: old.Root})
		if err != nil {
			return err
		}
		if err := s.a.store.Unplace(ctx, o); err != nil {
			return err
		}
	}
	if len(stay) == len(list) {
		return nil
	}
	return s.write(p, stay)
}

// tellPlaced publishes how a want stands where that changed. It is told again later when it can't be now.
func (s *supply) tellPlaced(w promise.Wish, o *offered) {
	name := w.Name
	body := catalog.PlacedBody{Promise: w.Promise, Outcome: uint8(policies.Waiting)}
	if o != nil {
		name = o.ref.Name
		body.Version, body.Tree, body.Outcome = o.ref.Version, o.ref.Tree, uint8(policies.Kept)
	}
	if artifact.CheckName(name) != nil {
		return // a pattern that nothing matches yet wants no one artifact
	}
	s.mu.Lock()
	old, known := s.told[name]
	s.mu.Unlock()
	if known && old == body {
		return
	}
	if !known {
		for _, r := range s.a.mesh.Catalog().Live(catalog.ScopeMain, catalog.KindPlaced, name) {
			if r.Name == name && r.Log.Origin == s.a.mesh.Self() {
				old, _ = catalog.DecodePlaced(r.Body)
			}
		}
	}
	if old != body {
		b, err := catalog.EncodePlaced(body)
		if err == nil {
			_, err = s.a.mesh.Publish(context.Background(), catalog.KindPlaced, name, b, 0)
		}
		if err != nil {
			s.a.cfg.Log.Warn("can't tell what is placed here", "artifact", name, "error", err)
			return
		}
	}
	s.mu.Lock()
	s.told[name] = body
	s.mu.Unlock()
}

// Invite makes a one-use token for a guest of this node.
func (s *supply) Invite(ctx context.Context, name string, tags map[string]string) (string, error) {
	return s.a.mesh.Invite(ctx, mesh.InviteRequest{Name: name, Tags: tags, TTL: inviteLife, Uses: 1, Replace: true})
}

// Expel retires the identity of a guest that was deleted.
func (s *supply) Expel(_ context.Context, name string) error {
	err := s.a.mesh.Revoke(name, "the guest was deleted")
	if errors.Is(err, mesh.ErrNotFound) {
		return nil // it never joined, or was retired before
	}
	return err
}

// nameOf is how a node is called, as far as this node knows.
func (a *Agent) nameOf(n id.Node) string {
	if n == a.mesh.Self() {
		return a.name
	}
	if cert, ok := a.mesh.Catalog().Cert(n); ok && cert.Name != "" {
		return cert.Name
	}
	for _, node := range a.mesh.Nodes() {
		if node.ID == n {
			return node.Name
		}
	}
	return n.Short()
}

var _ promise.Mesh = (*supply)(nil)
