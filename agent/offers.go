package agent

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"meshd/agent/promise"
	"meshd/mesh"
	"meshd/mesh/catalog"
	"meshd/store/artifact"
)

// An offered is one live artifact record.
type offered struct {
	ref  artifact.Ref
	body catalog.ArtifactBody
	at   time.Time
}

// shown is the version as people see it: the semver, or else the counter.
func (o offered) shown() string {
	return cmp.Or(o.body.Semver, strconv.FormatUint(o.body.Counter, 10))
}

func (o offered) cause() promise.ArtifactCause {
	return promise.ArtifactCause{
		Name: o.ref.Name, Version: o.shown(), Hash: o.ref.Tree.String(), Publisher: o.ref.Version.By.String(),
	}
}

// offers is what all offer now: made anew from the catalog when that has changed, then never changed.
type offers struct {
	root   artifact.Digest // of the catalog it was made from
	names  []string        // sorted
	byName map[string][]offered
	byRoot map[artifact.Digest][]offered
	who    string // who is certified and who revoked: then the same records may count otherwise
}

// offerIndex keeps the newest offers. It is safe for concurrent use.
type offerIndex struct {
	mesh *mesh.Mesh
	mu   sync.Mutex
	now  *offers
}

// get returns the offers as the catalog has them now.
func (x *offerIndex) get() *offers {
	x.mu.Lock()
	defer x.mu.Unlock()
	root := x.mesh.Catalog().Root()
	if x.now == nil || x.now.root != root {
		x.now = readOffers(x.mesh.Catalog(), root)
	}
	return x.now
}

func readOffers(c *catalog.Catalog, root artifact.Digest) *offers {
	o := &offers{root: root, byName: map[string][]offered{}, byRoot: map[artifact.Digest][]offered{}}
	for _, r := range c.Live(catalog.ScopeMain, catalog.KindArtifact, "") {
		ref, body, err := r.Ref()
		if err != nil {
			continue // of a newer format; verified when stored
		}
		of := offered{ref: ref, body: body, at: r.At}
		o.byName[ref.Name] = append(o.byName[ref.Name], of)
		o.byRoot[ref.Root] = append(o.byRoot[ref.Root], of)
	}
	for name, list := range o.byName {
		o.names = append(o.names, name)
		slices.SortFunc(list, func(x, y offered) int { return x.ref.Compare(y.ref) })
	}
	slices.Sort(o.names)
	var who strings.Builder
	for _, kind := range []uint8{catalog.KindCert, catalog.KindStatement} {
		for _, r := range c.Live(catalog.ScopeNodes, kind, "") {
			who.Write(r.Sig[:8])
		}
	}
	o.who = who.String()
	return o
}

// prefixed lists all offers whose name begins with prefix, by name, oldest first within a name.
func (o *offers) prefixed(prefix string) []offered {
	i, _ := slices.BinarySearch(o.names, prefix)
	var out []offered
	for _, name := range o.names[i:] {
		if !strings.HasPrefix(name, prefix) {
			break
		}
		out = append(out, o.byName[name]...)
	}
	return out
}

// changedSince names what is offered otherwise than in before; all is true where anything may count otherwise.
func (o *offers) changedSince(before *offers) (names []string, all bool) {
	if before == nil || o.who != before.who {
		return nil, true
	}
	for name, list := range o.byName {
		if !slices.Equal(list, before.byName[name]) {
			names = append(names, name)
		}
	}
	for name := range before.byName {
		if _, ok := o.byName[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, false
}
