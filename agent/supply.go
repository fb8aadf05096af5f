package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"meshd/agent/promise"
	"meshd/mesh"
	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/policies"
	"meshd/store"
	"meshd/store/artifact"
)

const (
	scoreName    = "score"          // the artifact that every node wants by itself
	maxVersions  = 64               // of one name that `keep` may hold
	ownHeadWait  = 10 * time.Second // before the first publish, for a peer to tell of the own head
	pullNoHolder = 5 * time.Second  // a pull without progress for this long waits for a holder
	pullNoOffer  = time.Second      // the same, where nobody offers it any more
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

	mu      sync.Mutex
	runs    map[policies.Address]runInfo  // what the loop said of each run
	causes  map[policies.Address]Cause    // what the last repair of a want came from
	pulling map[artifact.Digest]int       // roots on their way here
	toTell  map[string]catalog.PlacedBody // by artifact name: what of this node's wants is not told yet
	told    map[string]catalog.PlacedBody
	news    chan struct{} // capacity 1: toTell has something
}

// runInfo is what a keeper's run was started for.
type runInfo struct {
	cause Cause
	wants []policies.Address
}

func newSupply(a *Agent, shelf Shelf) *supply {
	return &supply{
		a: a, index: offerIndex{catalog: a.mesh.Catalog()}, placed: shelf, runs: map[policies.Address]runInfo{}, causes: map[policies.Address]Cause{},
		told: map[string]catalog.PlacedBody{}, toTell: map[string]catalog.PlacedBody{}, pulling: map[artifact.Digest]int{}, news: make(chan struct{}, 1),
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
	m, err := s.a.store.Head(newest.ref.Root)
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
	before, err := s.a.memory.counter(name)
	if err != nil {
		return offered{}, err
	}
	counter := max(s.highest(name), before) + 1
	shown := cmp.Or(semver, strconv.FormatUint(counter, 10))
	entry := s.a.journal.append(Entry{
		At: s.a.cfg.Wall(), Kind: aboutArtifact, Subject: name + "@" + shown, Outcome: "published", Cause: cause,
		Text: s.source(opts),
	})
	// Record and bytes become durable in one transaction, before the advert.
	opts.Origin = artifact.Origin{Node: s.a.mesh.Self(), Entry: entry, Text: cut(cause.Text, 200)}
	opts.Along = s.a.journal.flushAlong
	ref, err := s.a.store.Add(ctx, opts)
	if err = errors.Join(err, s.a.journal.flush()); err != nil { // Add may have failed before
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
	s.a.tally.published.Add(1)
	s.a.tally.publishedBytes.Add(ref.SizeBytes)
	ref.Name = name
	ref.Version = artifact.Version{Counter: counter, Epoch: rec.Log.Epoch, By: rec.Log.Origin}
	s.a.cfg.Log.Info("artifact published", "name", name, "version", shown, "hash", ref.Tree.Short())
	return offered{ref: ref, body: body, at: rec.At}, nil
}

// source says what was published from, where that is in the work folder: an edit made while meshd was away
// leaves no other trace.
func (s *supply) source(o store.AddOptions) string {
	if len(o.Paths) > 0 {
		return fmt.Sprintf("from %d files", len(o.Paths))
	}
	rel, err := filepath.Rel(s.a.cfg.WorkDir, o.Path)
	if err != nil || !filepath.IsLocal(rel) {
		return ""
	}
	return "from " + rel
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
func (s *supply) offers(prefix string) []offered { return s.index.prefixed(prefix) }

// named lists those of one name, oldest first.
func (s *supply) named(name string) []offered { return s.index.named(name) }

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

// pull brings the bytes, and waits rather than fails while nobody who holds them answers.
func (s *supply) pull(ctx context.Context, ref artifact.Ref) error {
	return s.pullTelling(ctx, ref, func(int64, int64) {})
}

// pullTelling is pull with progress; tell must not block.
func (s *supply) pullTelling(ctx context.Context, ref artifact.Ref, tell func(done, total int64)) error {
	if has, err := s.a.store.Has(ref.Root); err != nil || has {
		return err
	}
	if err := s.a.room(ref.SizeBytes); err != nil {
		return err
	}
	defer s.startPull(ref.Root)()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	expected := s.a.store.Expect(ref.Root) // durable with the first bytes
	noHolder := &promise.WaitingError{For: fmt.Sprintf("a holder of %s@%d that answers", ref.Name, ref.Version.Counter)}
	stalled := time.AfterFunc(pullNoHolder, func() { cancel(noHolder) })
	defer stalled.Stop()
	// A version that was replaced while records came in is held by nobody: whoever asked had better look for the newer one.
	offered := s.find(ref.Root) != nil
	replaced := time.AfterFunc(pullNoOffer, func() {
		if offered && s.find(ref.Root) == nil {
			cancel(noHolder)
		}
	})
	defer replaced.Stop()
	err := s.a.mesh.Pull(ctx, ref, func(done, total int64) {
		stalled.Reset(pullNoHolder)
		replaced.Reset(pullNoOffer)
		tell(done, total)
	})
	if expectErr := expected(); expectErr != nil {
		return expectErr
	}
	if err != nil && errors.Is(context.Cause(ctx), noHolder) {
		return noHolder
	}
	if errors.Is(err, syscall.ENOSPC) {
		return fmt.Errorf("%w: make room in %s, and the rest comes by itself", err, s.a.cfg.Node.Dir)
	}
	return err
}

// Invite makes a one-use token for a guest of this node. A guest that was born here before and lost its key
// takes its name over; a name that anybody else bears is refused, so that no score expels a machine by giving
// a guest its name.
func (s *supply) Invite(ctx context.Context, name string, tags map[string]string) (string, error) {
	key := "born/" + name
	before, err := s.a.memory.Get(key)
	if err != nil {
		return "", err
	}
	token, err := s.a.mesh.Invite(ctx, mesh.InviteRequest{Name: name, Tags: tags, TTL: inviteLife, Uses: 1, Replace: before != nil})
	if err != nil {
		return "", err
	}
	return token, s.a.memory.Put(key, []byte("yes"))
}

// Expel retires the identity of a guest that was deleted.
func (s *supply) Expel(_ context.Context, name string) error {
	born, err := s.a.memory.Get("born/" + name)
	if err != nil || born == nil {
		return err // whoever bears the name was not born here
	}
	if err := s.a.mesh.Revoke(name, "the guest was deleted"); err != nil && !errors.Is(err, mesh.ErrNotFound) {
		return err
	}
	return s.a.memory.Put("born/"+name, nil) // not found: it never joined, or was retired before
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
