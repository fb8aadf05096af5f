package agent

import (
	"context"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/shirou/gopsutil/v4/disk"

	"meshd/agent/control"
	"meshd/mesh"
	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/link"
	"meshd/policies"
)

// A vitals is what the doctor looks at, gathered at one moment.
type vitals struct {
	now      time.Time // wall time
	name     string
	dir      string // data folder
	offline  bool
	notTaken string // why no member takes this leaf in; "" if one does
	attached bool   // a sync session with a peer is open
	addr     string
	foreign  bool                 // addr is of none of this machine's interfaces
	addrs    []string             // advertised
	nodes    []mesh.Node          // this one too, without the forgotten
	told     map[string]time.Time // when nodes last said something, by their own clocks, by name
	waiting  map[id.Node]waiting  // for nodes that are away

	notBefore, notAfter time.Time // of the certificate
	charterExpires      time.Time

	forks           []fork // nodes with a forked log
	restored        bool   // own records came back that this node did not hold
	scored          bool   // a score is in force
	refused         string // version of a newer score; "" for none
	refusal         string // why it was
	ails            []ail  // promises that are not well
	unwatched       int    // promises with a folder that could not be watched
	freeBytes, size uint64 // of the disk of dir; size 0: it can't be asked
	packs, maxSize  int64  // bytes that artifacts take, and may take (0: no limit)
	liars           []liar
}

// An ail is a promise that failed, drifted or is paused.
type ail struct {
	address, reason string
	outcome         policies.Outcome
	paused          bool
}

// A fork is a node whose log forked.
type fork struct {
	name     string
	answered bool // it goes on in a newer log that did not
}

// A liar is a node that sent what is not true and is not asked for a while.
type liar struct {
	name, why string
	until     time.Time
}

func (d door) Doctor(ctx context.Context) ([]control.Trouble, error) {
	a := d.a
	v := vitals{
		now: a.cfg.Wall(), name: a.name, dir: a.cfg.Node.Dir, offline: a.mesh.Offline(), attached: a.mesh.Attached(), notTaken: a.mesh.NotTaken(),
		addr: a.mesh.Addr(), foreign: a.foreignAddr(), addrs: a.mesh.Advertised(), nodes: a.listed(), told: map[string]time.Time{},
		charterExpires: a.mesh.Charter().Terms().Expires,
	}
	v.waiting = a.waiting(v.nodes)
	cert, ok := a.mesh.Catalog().Cert(a.mesh.Self())
	if !ok {
		cert = a.mesh.Cert()
	}
	v.notBefore, v.notAfter = cert.NotBefore, cert.NotAfter
	names := d.names()
	for _, r := range a.mesh.Catalog().Live(catalog.ScopeNodes, catalog.KindStatus, "") {
		if name := names[r.Log.Origin]; r.Log.Origin != a.mesh.Self() && r.At.After(v.told[name]) {
			v.told[name] = r.At
		}
	}
	v.restored = a.mesh.Catalog().Claims() > 0
	v.forks = a.forks()
	for _, b := range a.mesh.Stats().Swarm.Banned {
		v.liars = append(v.liars, liar{a.nameOf(b.Node), b.Why, b.Until})
	}
	if w := a.view.Load(); w != nil {
		v.scored = w.program != nil
		if w.refused != nil && (w.inForce == nil || w.refused.compare(*w.inForce) > 0) {
			v.refused, v.refusal = w.refused.Semver, w.refused.Problem
		}
	}
	if u, err := disk.UsageWithContext(ctx, v.dir); err == nil {
		v.freeBytes, v.size = u.Free, u.Total
	}
	packs, _, sizeErr := a.store.SizeBytes()
	v.packs, v.maxSize = packs, a.cfg.MaxSizeBytes
	err := a.loop.do(ctx, func() { a.loop.examine(&v) })
	return v.troubles(), errors.Join(sizeErr, err)
}

// forks lists the nodes with a forked log, by the newest of these.
func (a *Agent) forks() (out []fork) {
	newest := map[id.Node]uint64{}
	for _, r := range a.mesh.Catalog().Live(catalog.ScopeNodes, catalog.KindStatus, "") {
		newest[r.Log.Origin] = max(newest[r.Log.Origin], r.Log.Epoch)
	}
	at := map[id.Node]int{}
	for _, f := range a.mesh.Catalog().Forks() { // by origin, then epoch
		n := f.A.Log.Origin
		i, known := at[n]
		if !known {
			i = len(out)
			at[n], out = i, append(out, fork{name: a.nameOf(n)})
		}
		out[i].answered = newest[n] > f.A.Log.Epoch
	}
	return out
}

// foreignAddr reports whether this node listens on an address that no interface of this machine has, so that
// nobody reaches it before one does.
func (a *Agent) foreignAddr() bool {
	host, _, err := net.SplitHostPort(a.mesh.Addr())
	ip := net.ParseIP(host)
	if a.cfg.Network != link.Real || err != nil || ip == nil || ip.IsUnspecified() || ip.IsLoopback() {
		return false
	}
	have, err := net.InterfaceAddrs()
	return err == nil && !slices.ContainsFunc(have, func(h net.Addr) bool {
		n, ok := h.(*net.IPNet)
		return ok && n.IP.Equal(ip)
	})
}

// examine adds what the loop knows.
func (l *loop) examine(v *vitals) {
	v.unwatched = len(l.watches.refused)
	for _, in := range l.instances {
		until, reason := l.pauses.of(in.p.Address, v.now), in.reason
		paused := !until.IsZero()
		if paused && !in.paused {
			reason = pausedText(until, "") // it has not been looked at since
		}
		if paused || in.outcome == policies.Failed || in.outcome == policies.Drifted {
			v.ails = append(v.ails, ail{string(in.p.Address), reason, in.outcome, paused})
		}
	}
}
