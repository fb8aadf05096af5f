package promise

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"meshd/policies"
)

// A wantKeeper keeps the right versions of artifacts in their places.
//
// Memory holds, under ADDRESS 0x00 "want", where it placed them last: version byte 1, then a JSON list
// of absolute paths, sorted. It is written before the first is placed, so that a crash forgets none.
type wantKeeper struct {
	address policies.Address
	spec    policies.Want
	site    Site
	places  []string // of the last look; owned by the goroutine that calls
}

const wantRecord = 1 // version byte

func newWant(p policies.Promise, w policies.Want, s Site) (Keeper, error) {
	if slices.Contains(strings.FieldsFunc(w.Place, func(r rune) bool { return r == '/' || r == filepath.Separator }), "..") {
		return nil, fmt.Errorf("place %q leads out of the work folder", w.Place)
	}
	if _, err := newPlace(s, w.Place); err != nil {
		return nil, fmt.Errorf("place: %w", err)
	}
	return &wantKeeper{address: p.Address, spec: w, site: s}, nil
}

func (k *wantKeeper) memoryKey() string { return string(k.address) + "\x00want" }

// choose asks the mesh what should be where, and refuses two for one path.
func (k *wantKeeper) choose(ctx context.Context) ([]Placement, error) {
	now, err := k.site.Mesh.Choose(ctx, Wish{
		Promise: string(k.address), Name: k.spec.Name, From: k.spec.From, Version: k.spec.Version, Place: k.spec.Place,
		Mode: k.spec.Mode, Owner: k.spec.Owner, Adopt: k.spec.Adopt, Keep: k.spec.Keep,
	})
	if err != nil {
		return nil, err
	}
	at := map[string]string{}
	for _, p := range now {
		if other, twice := at[p.Path]; twice {
			return nil, fmt.Errorf("artifacts %q and %q would both be placed at %s: let place hold ${artifact.name} or ${artifact.publisher}", other, p.Artifact.Name, p.Path)
		}
		at[p.Path] = p.Artifact.Name
	}
	k.places = sortedKeys(at)
	return now, nil
}

// placed is what Memory says was placed, which may be more than is there.
func (k *wantKeeper) placed() ([]string, error) {
	b, err := k.site.Memory.Get(k.memoryKey())
	if err != nil || len(b) == 0 {
		return nil, err
	}
	var paths []string
	if b[0] != wantRecord {
		return nil, fmt.Errorf("the record of what %s placed has version %d, this program reads %d", k.address, b[0], wantRecord)
	}
	return paths, json.Unmarshal(b[1:], &paths)
}

// remember replaces one record of places by another; equal ones cost no write.
func (k *wantKeeper) remember(before, now []string) error {
	now = slices.Compact(slices.Sorted(slices.Values(now)))
	if slices.Equal(slices.Compact(slices.Sorted(slices.Values(before))), now) {
		return nil
	}
	b, err := json.Marshal(now)
	if err != nil {
		return err
	}
	return k.site.Memory.Put(k.memoryKey(), append([]byte{wantRecord}, b...))
}

// Check looks at every place, and for places that are to be given up.
func (k *wantKeeper) Check(ctx context.Context) (Finding, error) {
	now, err := k.choose(ctx)
	if err != nil {
		return Finding{}, err
	}
	var f Finding
	for _, p := range now {
		ok, why, err := k.site.Mesh.InPlace(ctx, p)
		if err != nil {
			return Finding{}, fmt.Errorf("look at %s: %w", p.Path, err)
		}
		if !ok {
			return Finding{Reason: why, Artifact: p.Artifact}, nil
		}
		f.Artifact = p.Artifact
	}
	before, err := k.placed()
	if err != nil {
		return Finding{}, err
	}
	for _, path := range before {
		if !slices.Contains(k.places, path) {
			return Finding{Reason: fmt.Sprintf("what lies at %s is offered no more", path)}, nil
		}
	}
	f.OK = true
	return f, nil
}

// Repair fetches what is not in place, one after the other, then removes what was withdrawn.
func (k *wantKeeper) Repair(ctx context.Context) (Finding, error) {
	now, err := k.choose(ctx)
	if err != nil {
		return Finding{}, err
	}
	before, err := k.placed()
	if err != nil {
		return Finding{}, err
	}
	all := append(slices.Clone(k.places), before...)
	if err := k.remember(before, all); err != nil {
		return Finding{}, fmt.Errorf("remember what is to be placed: %w", err)
	}
	var done []string
	var last ArtifactCause
	for _, p := range now {
		last = p.Artifact
		ok, why, err := k.site.Mesh.InPlace(ctx, p)
		if err != nil {
			return Finding{}, fmt.Errorf("look at %s: %w", p.Path, err)
		}
		if ok {
			continue
		}
		if err := k.site.Mesh.Fetch(ctx, p); err != nil {
			if _, waits := errors.AsType[*WaitingError](err); waits {
				return Finding{}, err
			}
			return Finding{}, fmt.Errorf("place %s@%s at %s (%s): %w", p.Artifact.Name, p.Artifact.Version, p.Path, why, err)
		}
		done = append(done, fmt.Sprintf("%s@%s", p.Artifact.Name, p.Artifact.Version))
	}
	if err := k.site.Mesh.Retire(ctx, string(k.address), now); err != nil {
		return Finding{}, fmt.Errorf("remove what was withdrawn: %w", err)
	}
	if err := k.remember(all, k.places); err != nil {
		return Finding{}, fmt.Errorf("remember what was placed: %w", err)
	}
	f := Finding{OK: true, Artifact: last}
	if len(done) > 0 {
		f.Reason = "placed " + strings.Join(done[:min(len(done), 3)], ", ")
		if len(done) > 3 {
			f.Reason += fmt.Sprintf(" and %d more", len(done)-3)
		}
	}
	return f, nil
}

// Watches names the places of the last look: damage there is repaired at once.
func (k *wantKeeper) Watches() []Watch {
	var w []Watch
	for _, path := range k.places {
		w = append(w, Watch{Path: path, Recursive: true})
	}
	return w
}

// End leaves what was placed (POLICY.md: placed wants stay, unwatched).
func (k *wantKeeper) End(context.Context, bool) error { return nil }
