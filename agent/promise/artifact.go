package promise

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"meshd/policies"
)

// An artifactKeeper offers what lies at a path to the mesh, and again whenever it differs.
type artifactKeeper struct {
	address policies.Address
	spec    policies.Artifact
	site    Site
	from    glob
}

func newArtifact(p policies.Promise, a policies.Artifact, s Site) (Keeper, error) {
	from, err := newGlob(s, a.From)
	if err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	return &artifactKeeper{address: p.Address, spec: a, site: s, from: from}, nil
}

func (k *artifactKeeper) offer() (Offer, error) {
	o := Offer{
		Promise: string(k.address), Name: k.spec.Name, Version: k.spec.Version,
		Keep: k.spec.Keep, Meta: k.spec.Meta,
	}
	for _, a := range k.spec.Of {
		o.Of = append(o.Of, string(a))
	}
	root, err := k.from.open()
	if isGone(err) {
		return o, &WaitingError{For: k.from.text}
	} else if err != nil {
		return o, err
	}
	defer root.Close()
	names, err := k.from.matches(root)
	if err != nil {
		return o, outside(err, place{work: k.site.Work, rel: k.from.text})
	}
	if len(names) == 0 {
		return o, &WaitingError{For: k.from.text}
	}
	if !k.from.plain {
		o.Base = k.from.folder()
	}
	for _, name := range names {
		o.From = append(o.From, filepath.Join(k.from.base, filepath.FromSlash(name)))
	}
	return o, nil
}

// Check asks whether the newest version this node made is what lies there now.
func (k *artifactKeeper) Check(ctx context.Context) (Finding, error) {
	o, err := k.offer()
	if err != nil {
		return Finding{}, err
	}
	stale, latest, err := k.site.Mesh.Outdated(ctx, o)
	if err != nil {
		return Finding{}, fmt.Errorf("compare %s with artifact %q: %w", k.from.text, k.spec.Name, err)
	}
	if stale {
		return Finding{Reason: fmt.Sprintf("%s is not what artifact %q last offered", k.from.text, k.spec.Name)}, nil
	}
	return Finding{OK: true, Artifact: latest}, nil
}

// Repair publishes. The adverts of older versions stay, as keep says.
func (k *artifactKeeper) Repair(ctx context.Context) (Finding, error) {
	o, err := k.offer()
	if err != nil {
		return Finding{}, err
	}
	made, err := k.site.Mesh.Publish(ctx, o)
	if err != nil {
		if _, waits := errors.AsType[*WaitingError](err); waits {
			return Finding{}, err
		}
		return Finding{}, fmt.Errorf("publish %s as artifact %q: %w", k.from.text, k.spec.Name, err)
	}
	return Finding{OK: true, Reason: fmt.Sprintf("offered %s as %s@%s", k.from.text, made.Name, made.Version), Artifact: made}, nil
}

func (k *artifactKeeper) Watches() []Watch {
	return []Watch{{Path: k.from.folder(), Recursive: true, Settle: true}}
}

// End leaves the artifact offered (POLICY.md: until withdraw).
func (k *artifactKeeper) End(context.Context, bool) error { return nil }
