package agent

import (
	"context"
	"maps"
	"sync"
	"time"

	"meshd/mesh"
	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/trust"
	"meshd/policies"
	"meshd/roles"
	"meshd/store/artifact"
)

const (
	copyEvery   = time.Minute            // all offers are looked at again: somebody may be gone, a pull may have failed
	copySettle  = 200 * time.Millisecond // after somebody came or went, or the score changed
	copyAtOnce  = 4                      // pulls of copies under way
	copyTimeout = 10 * time.Minute
)

// A copier pulls what this node is chosen to keep so that a publisher may die: of each live artifact, the
// Copies best ranked live members that may pull it, besides its publisher. It belongs to keepCopies.
type copier struct {
	a       *Agent
	rev     uint64                      // of the catalog, as far as it was read
	alive   map[id.Node]bool            // when all offers were last looked at
	program *policies.Program           // then, too
	todo    map[artifact.Digest]offered // to be pulled
	pulling map[artifact.Digest]bool
	failed  map[artifact.Digest]bool // not tried again before all are looked at again
	done    chan copied
	soon    <-chan time.Time // fires when all are to be looked at; nil for not
}

type copied struct {
	root artifact.Digest
	err  error
}

// copySoon makes keepCopies look at what is new.
func (a *Agent) copySoon() {
	select {
	case a.copyKick <- struct{}{}:
	default:
	}
}

func (a *Agent) keepCopies(ctx context.Context) error {
	c := &copier{
		a: a, todo: map[artifact.Digest]offered{}, pulling: map[artifact.Digest]bool{}, failed: map[artifact.Digest]bool{},
		done: make(chan copied, copyAtOnce),
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ticker := time.NewTicker(copyEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			c.lookAtAll()
		case <-a.copyKick:
			c.lookAtNews()
		case <-c.soon:
			c.soon = nil
			c.lookAtAll()
		case d := <-c.done:
			delete(c.pulling, d.root)
			if d.err != nil && ctx.Err() == nil {
				c.failed[d.root] = true
				a.cfg.Log.Debug("copy", "root", d.root.Short(), "error", d.err)
			}
		}
		for root, o := range c.todo {
			if len(c.pulling) >= copyAtOnce {
				break
			}
			delete(c.todo, root)
			c.pulling[root] = true
			wg.Go(func() {
				pullCtx, cancel := context.WithTimeout(ctx, copyTimeout)
				defer cancel()
				err := a.supply.pull(pullCtx, o.ref)
				c.done <- copied{root, err} // room for all that are under way
			})
		}
	}
}

// lookAtNews considers the names that changed since the last look.
func (c *copier) lookAtNews() {
	changes, now, all := c.a.mesh.Catalog().Since(c.rev)
	c.rev = now
	names := map[string]bool{}
	for _, change := range changes {
		switch change.Kind {
		case catalog.KindArtifact:
			names[change.Name] = true
		case catalog.KindCert, catalog.KindStatement:
			all = true
		}
	}
	if all {
		c.alive = nil
	}
	if c.soon == nil && (all || c.program != c.a.program() || !maps.Equal(c.alive, c.a.mesh.Alive())) {
		c.soon = time.After(copySettle) // others come and go together
	}
	for name := range names {
		for _, o := range c.a.supply.named(name) {
			c.consider(o)
		}
	}
}

// lookAtAll considers every offer where those who are there, or the score, changed; else what failed.
func (c *copier) lookAtAll() {
	alive, program := c.a.mesh.Alive(), c.a.program()
	unchanged := maps.Equal(alive, c.alive) && program == c.program
	failed := c.failed
	c.alive, c.program, c.failed = alive, program, map[artifact.Digest]bool{}
	if unchanged {
		for root := range failed {
			if o := c.a.supply.index.find(root); o != nil {
				c.consider(*o)
			}
		}
		return
	}
	for _, o := range c.a.supply.offers("") {
		c.consider(o)
	}
}

// consider puts an offer on the list if this node should hold it and does not. What a publisher has no right
// to is copied by nobody: an insider must not fill the others' disks.
func (c *copier) consider(o offered) {
	root := o.ref.Root
	if o.ref.Version.By == c.a.mesh.Self() || c.pulling[root] || c.failed[root] || !(c.a.isCopy(o) || c.a.keepsForLeaf(o)) || !c.a.supply.trusted(o) {
		return
	}
	if has, err := c.a.store.Has(root); err == nil && !has {
		c.todo[root] = o
	}
}

// copiesOf is who should hold o besides its publisher.
func (a *Agent) copiesOf(o offered) []id.Node {
	var may []id.Node
	for n := range a.mesh.Reachable() {
		if n != o.ref.Version.By && a.mayPull(n, o.ref.Name) {
			may = append(may, n)
		}
	}
	ranked := id.Rank(o.ref.Root[:], may)
	return ranked[:min(len(ranked), mesh.Copies)]
}

// leafBytes is how much an attach point keeps for one leaf, besides what it keeps as a copy.
const leafBytes = 1 << 30

// keepsForLeaf reports whether o is of a leaf that is attached here: its attach point fetches what it publishes
// at once, the newest first and up to leafBytes, so that others get it while the leaf sleeps.
func (a *Agent) keepsForLeaf(o offered) bool {
	leaf := o.ref.Version.By
	if !a.mesh.AttachedHere(leaf) {
		return false
	}
	newer := int64(0)
	for _, other := range a.supply.offers("") {
		if other.ref.Version.By == leaf && !other.at.Before(o.at) {
			newer += other.ref.SizeBytes
		}
	}
	return newer <= leafBytes
}

func (a *Agent) isCopy(o offered) bool {
	for _, n := range a.copiesOf(o) {
		if n == a.mesh.Self() {
			return true
		}
	}
	return false
}

// program is the score in force; nil if none.
func (a *Agent) program() *policies.Program {
	if v := a.view.Load(); v != nil {
		return v.program
	}
	return nil
}

// rights remembers which roles follow from each certificate under one program: they are asked for with every
// request and every offer. The zero value is empty; it is safe for concurrent use.
type rights struct {
	mu      sync.Mutex
	program *policies.Program
	known   map[certificate]func(role string) bool
}

type certificate struct {
	node   id.Node
	serial string
}

// maxRights bounds the certificates remembered at once; beyond it all are worked out anew.
const maxRights = 16384

func (r *rights) holds(p *policies.Program, c *trust.Cert) func(role string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.program != p || len(r.known) >= maxRights {
		r.program, r.known = p, map[certificate]func(string) bool{}
	}
	key := certificate{c.ID, c.Serial}
	f, ok := r.known[key]
	if !ok {
		f = roles.Attested(p, c.Name, c.Tags)
		r.known[key] = f
	}
	return f
}
