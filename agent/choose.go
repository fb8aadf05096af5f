package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"meshd/agent/promise"
	"meshd/mesh/id"
	"meshd/policies"
)

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
	holds := s.a.rights.holds(v.program, cert)
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
			Promise: w.Promise, Artifact: o.cause(), Root: o.ref.Root.String(), Path: path, Mode: w.Mode, Owner: w.Owner, Adopt: w.Adopt, Keep: w.Keep,
		})
	}
	slices.SortFunc(out, func(x, y promise.Placement) int { return strings.Compare(x.Path, y.Path) })
	return out, nil
}
