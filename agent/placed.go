package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"meshd/agent/promise"
	"meshd/mesh/catalog"
	"meshd/policies"
	"meshd/store"
	"meshd/store/artifact"
)

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
	// Who is told to have it must be able to hand it on.
	if has, err := s.a.store.Has(root); err != nil || !has {
		return false, "its bytes are not here", err
	}
	s.tellPlaced(promise.Wish{Promise: p.Promise, Name: p.Artifact.Name}, s.chosen(p, root))
	return true, "", nil
}

func (s *supply) find(root artifact.Digest) *offered {
	return s.index.find(root)
}

// chosen is the offer that p was chosen for, the newest of equal ones; nil if it is no longer made. Other names and
// versions may have the same root.
func (s *supply) chosen(p promise.Placement, root artifact.Digest) (newest *offered) {
	for _, o := range s.named(p.Artifact.Name) { // oldest first
		if o.ref.Root == root && o.cause() == p.Artifact {
			newest = &o
		}
	}
	return newest
}

// pullAndPlace fetches what placing finds damaged, all of it at once: a manifest first tells what it is made of.
func (s *supply) pullAndPlace(ctx context.Context, ref artifact.Ref, o store.PlaceOptions) (err error) {
	if ok, _, err := s.a.store.Placed(ctx, ref.Root, o); err == nil && ok {
		s.takeBack(ctx, ref, o)
	}
	if has, err := s.a.store.Has(ref.Root); err == nil && !has {
		defer s.a.store.Stage(ref.Root, o)()
	}
	for range 4 { // whole, or damage found in the root block, a part, the data
		if err := s.pull(ctx, ref); err != nil {
			return err
		}
		err = s.a.store.Place(ctx, ref.Root, o)
		if errors.Is(err, store.ErrForeign) && !o.Adopt && s.isVersion(ctx, ref.Name, o) {
			o.Adopt = true
			err = s.a.store.Place(ctx, ref.Root, o)
		}
		if err == nil {
			_, err = s.a.store.Has(ref.Root) // recorded while the manifest, which may be large, is still in memory
			return err
		}
		if !errors.Is(err, store.ErrMissing) {
			return err
		}
		if err := s.a.store.Reread(ctx, ref.Root); err != nil && !errors.Is(err, store.ErrMissing) {
			return err
		}
	}
	return err
}

// takeBack reads what is in place as it should be into the store, which lost some of it: no peer is needed for that.
// What it misses is pulled.
func (s *supply) takeBack(ctx context.Context, ref artifact.Ref, o store.PlaceOptions) {
	if has, err := s.a.store.Has(ref.Root); err != nil || has {
		return
	}
	if _, err := s.a.store.Add(ctx, store.AddOptions{Path: filepath.Join(o.Base, o.Path)}); err != nil {
		s.a.cfg.Log.Debug("what is in place can't be read back", "artifact", ref.Name, "error", err)
	}
}

// isVersion reports whether what lies at the path is a version of the artifact that is offered now: after the store
// was lost nothing else says that it was placed, and replacing it loses nothing.
func (s *supply) isVersion(ctx context.Context, name string, o store.PlaceOptions) bool {
	tree, err := s.a.store.TreeOf(ctx, store.AddOptions{Path: filepath.Join(o.Base, o.Path)})
	return err == nil && slices.ContainsFunc(s.named(name), func(of offered) bool { return of.ref.Tree == tree })
}

// Fetch pulls and places.
func (s *supply) Fetch(ctx context.Context, p promise.Placement) error {
	root, o, err := s.placeOptions(p)
	if err != nil {
		return err
	}
	of := s.chosen(p, root)
	if of == nil {
		return &promise.WaitingError{For: fmt.Sprintf("artifact %s: it was withdrawn just now", p.Artifact.Name)}
	}
	if err := s.pullAndPlace(ctx, of.ref, o); err != nil {
		return err
	}
	m, err := s.a.store.Head(root)
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
	}, p.Keep)
}

// A placement is what this node put in place for a promise. Written after the bytes were.
type placement struct {
	Name, Path, Root, Tree string
	Counter, Epoch         uint64
	By                     string
	Before                 []string // roots that lay there earlier, newest first: what a rollback needs
}

func (s *supply) placements(p string) []placement {
	_, values, err := s.placed.Scan([]byte(p), append([]byte(p), 0), 1)
	if err != nil || len(values) == 0 {
		return nil
	}
	return decodePlacements(values[0])
}

// decodePlacements reads what write wrote; nothing of a version that this program does not know.
func decodePlacements(b []byte) []placement {
	var out []placement
	if first(b) != placedV1 || json.Unmarshal(b[1:], &out) != nil {
		return nil
	}
	return out
}

// remember notes what lies at a path now, and as many earlier ones as are kept.
func (s *supply) remember(p string, now placement, keep int) error {
	for _, old := range s.placements(p) {
		if old.Path == now.Path && old.Root != now.Root {
			now.Before = append([]string{old.Root}, old.Before...)
		} else if old.Path == now.Path {
			now.Before = old.Before
		}
	}
	now.Before = now.Before[:min(len(now.Before), max(keep-1, 0))]
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

// tellPlaced has it told how a want stands: soon, and off the path of those who wait for the bytes.
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
	defer s.mu.Unlock()
	if old, known := s.told[name]; known && old == body {
		delete(s.toTell, name)
		return
	}
	s.toTell[name] = body
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// tell publishes what tellPlaced gathered, until ctx ends. What can't be published now is tried again.
func (s *supply) tell(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.news:
		}
		s.mu.Lock()
		work := s.toTell
		s.toTell = map[string]catalog.PlacedBody{}
		s.mu.Unlock()
		for _, name := range slices.Sorted(maps.Keys(work)) {
			if err := s.publishPlaced(ctx, name, work[name]); err != nil {
				s.a.cfg.Log.Warn("can't tell what is placed here; it is told at the next look", "artifact", name, "error", err)
				continue
			}
			s.mu.Lock()
			s.told[name] = work[name]
			s.mu.Unlock()
		}
	}
}

// publishPlaced signs the record unless the newest one says the same.
func (s *supply) publishPlaced(ctx context.Context, name string, body catalog.PlacedBody) error {
	if r, ok := s.a.mesh.Catalog().Newest(catalog.KindPlaced, name, s.a.mesh.Self()); ok {
		if old, err := catalog.DecodePlaced(r.Body); err == nil && old == body {
			return nil
		}
	}
	b, err := catalog.EncodePlaced(body)
	if err != nil {
		return err
	}
	_, err = s.a.mesh.Publish(ctx, catalog.KindPlaced, name, b, 0)
	return err
}
