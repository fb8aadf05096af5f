package agent

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"meshd/agent/promise"
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

// An offerIndex is what all offer now, kept up with the catalog name by name. It is safe for concurrent use.
type offerIndex struct {
	catalog *catalog.Catalog

	mu     sync.Mutex
	rev    uint64                       // of the catalog, as far as it was read
	names  []string                     // sorted
	byName map[string][]offered         // oldest first
	byRoot map[artifact.Digest][]string // names under which a root is offered
}

// follow reads what changed in the catalog since the last call.
func (x *offerIndex) follow() {
	changes, now, all := x.catalog.Since(x.rev)
	if x.byName == nil || all {
		x.names, x.byName, x.byRoot = nil, map[string][]offered{}, map[artifact.Digest][]string{}
		x.readAll()
		x.rev = now
		return
	}
	x.rev = now
	done := map[string]bool{}
	for _, c := range changes {
		if (c.Kind == catalog.KindArtifact || c.Kind == catalog.KindWithdraw) && !done[c.Name] {
			done[c.Name] = true
			x.set(c.Name, x.catalog.LiveNamed(catalog.KindArtifact, c.Name))
		}
	}
}

// readAll fills an empty index; Live comes sorted by name.
func (x *offerIndex) readAll() {
	records := x.catalog.Live(catalog.ScopeMain, catalog.KindArtifact, "")
	for len(records) > 0 {
		n := 1
		for n < len(records) && records[n].Name == records[0].Name {
			n++
		}
		x.set(records[0].Name, records[:n])
		records = records[n:]
	}
}

// set replaces what is known of one name.
func (x *offerIndex) set(name string, records []catalog.Record) {
	for _, o := range x.byName[name] {
		x.byRoot[o.ref.Root] = slices.DeleteFunc(x.byRoot[o.ref.Root], func(n string) bool { return n == name })
		if len(x.byRoot[o.ref.Root]) == 0 {
			delete(x.byRoot, o.ref.Root)
		}
	}
	list := make([]offered, 0, len(records))
	for _, r := range records {
		ref, body, err := r.Ref()
		if err != nil {
			continue // of a newer format; verified when stored
		}
		list = append(list, offered{ref: ref, body: body, at: r.At})
		if !slices.Contains(x.byRoot[ref.Root], name) {
			x.byRoot[ref.Root] = append(x.byRoot[ref.Root], name)
		}
	}
	slices.SortFunc(list, func(a, b offered) int { return a.ref.Compare(b.ref) })
	i, had := slices.BinarySearch(x.names, name)
	switch {
	case len(list) == 0:
		delete(x.byName, name)
		if had {
			x.names = slices.Delete(x.names, i, i+1)
		}
		return
	case !had:
		x.names = slices.Insert(x.names, i, name)
	}
	x.byName[name] = list // never changed, only replaced: callers may keep it
}

// prefixed lists all offers whose name begins with prefix, by name, oldest first within a name.
func (x *offerIndex) prefixed(prefix string) []offered {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.follow()
	i, _ := slices.BinarySearch(x.names, prefix)
	var out []offered
	for _, name := range x.names[i:] {
		if !strings.HasPrefix(name, prefix) {
			break
		}
		out = append(out, x.byName[name]...)
	}
	return out
}

// named lists the offers of one name, oldest first.
func (x *offerIndex) named(name string) []offered {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.follow()
	return x.byName[name]
}

// rooted lists the offers of a root, under whatever names, by anybody.
func (x *offerIndex) rooted(root artifact.Digest) []offered {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.follow()
	var out []offered
	for _, name := range x.byRoot[root] {
		for _, o := range x.byName[name] {
			if o.ref.Root == root {
				out = append(out, o)
			}
		}
	}
	return out
}

// find is the newest offer of a root; nil if none. What was published again with the bytes and the cause it had before,
// as a restored backup does, has the root of the older version too.
func (x *offerIndex) find(root artifact.Digest) *offered {
	list := x.rooted(root)
	if len(list) == 0 {
		return nil
	}
	newest := slices.MaxFunc(list, func(a, b offered) int { return a.ref.Compare(b.ref) })
	return &newest
}
