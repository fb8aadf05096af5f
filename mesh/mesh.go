// Package mesh is the one face of all that crosses the wire: it joins link, ring, catalog and swarm,
// admits newcomers, keeps sync sessions with neighbours, and carries questions between nodes.
//
// It knows no score: who may pull and who may be invited it asks its Config.
package mesh

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/link"
	"meshd/mesh/ring"
	"meshd/mesh/swarm"
	"meshd/mesh/trust"
	"meshd/store/artifact"
)

// The protocols that share the port, told apart by ALPN.
const (
	protoSync  = "meshd/sync/2"
	protoSwarm = "meshd/swarm/4"
	protoAdmit = "meshd/admit/1"
	protoAsk   = "meshd/ask/1"
)

// Copies is how many ring members that may pull an artifact keep it, wanted or not (SPEC 6).
const Copies = 2

// Shelf is one ordered durable map: what catalog, link and the invites need of a disk.
type Shelf interface {
	Scan(from, to []byte, limit int) (keys, values [][]byte, err error)
	Apply(keys, values [][]byte) error
}

// Config is what a Mesh is made of. All fields without "optional" are required.
type Config struct {
	Identity *trust.Identity
	Charter  *trust.Charter
	Network  link.Network

	Catalog, Book, Invites Shelf
	Chunks                 swarm.Chunks
	BookFile               string // text copy of the peer book; optional

	Listen    string   // ADDR:PORT
	Advertise []string // HOST:PORT; optional: what was bound
	Seeds     []string // HOST:PORT or ID@HOST:PORT; optional
	Leaf      bool     // only dial out; else a node is a leaf where no peer can dial it back

	// LeafPoll, with Leaf, is for a leaf that rests between polls: how long at most, MaxLeafPoll the limit. 0: it stays
	// attached. See Rest.
	LeafPoll time.Duration

	// AllowPull says whether peer may have the artifact of that root, which maker made. Called from many goroutines.
	AllowPull func(peer id.Node, root artifact.Digest, maker id.Node) bool
	// AllowInvite says whether peer may have a child of that name admitted (guests). Optional.
	AllowInvite func(peer id.Node, name string) bool
	// Answer answers a question of another node from this node's journal and promises. Optional.
	Answer func(ctx context.Context, from id.Node, q Question) Answer

	Wall func() time.Time
	Seed uint64 // of the node's random choices
	Log  *slog.Logger
}

// A Mesh is this node's place among the others. Its methods are safe for concurrent use.
type Mesh struct {
	cfg     Config
	self    id.Node
	cert    atomic.Pointer[trust.Cert] // own; see UseChain
	link    *link.Link
	ring    *ring.Ring
	catalog *catalog.Catalog
	swarm   *swarm.Swarm
	invites *invites
	reach   *reach

	saidMu sync.Mutex
	said   map[id.Node]saying // see sayings

	letKick chan struct{} // capacity 1: lets has something to tell
	changed chan struct{} // capacity 1: catalog or members changed; no data
	kick    chan struct{} // capacity 1: tend soon

	running sync.WaitGroup // sessions that this node dialled

	leaseRev uint64 // of the catalog, as far as leases were read; owned by listen

	mu       sync.Mutex
	sessions map[id.Node]*session  // open sync sessions, by peer
	unlike   map[id.Node]time.Time // when catalogs were last compared because a ping told an unlike root
	hints    hints
	hintRand *rand.Rand
	opened   uint64 // sessions so far
	standing Standing

	leases        map[id.Node]*lease    // what is known of leaves
	leaseLies     map[refusedLease]bool // that were told of
	leasesRefused uint64
	leaseCount    uint64               // of the last lease that this node signed
	lodgers       map[id.Node]*lodger  // leaves that are attached here
	lets          map[id.Node]*let     // what is to be told of them
	points        map[id.Node]*point   // where this leaf is attached
	notTaken      map[string]time.Time // until when an attach point is not asked
	notTakenWhy   string               // what the last one said that refused
	offline       bool

	woken      chan struct{} // capacity 1: a resting leaf should poll
	resting    bool
	lastRing   map[id.Node]bool // what the attach point of a leaf that polls told last, and when
	lastRingAt time.Time
}

// New opens the catalog and binds the port. Nothing is said to anybody before Run.
func New(cfg Config) (*Mesh, error) {
	cert, err := cfg.Charter.VerifyChain(cfg.Identity.Chain)
	if err != nil {
		return nil, fmt.Errorf("own certificate: %w", err)
	}
	m := &Mesh{
		cfg: cfg, self: cfg.Identity.ID(),
		changed: make(chan struct{}, 1), kick: make(chan struct{}, 1),
		sessions: map[id.Node]*session{}, unlike: map[id.Node]time.Time{}, hints: newHints(), hintRand: newRand(cfg.Seed ^ 0x417), reach: newReach(),
		letKick: make(chan struct{}, 1), woken: make(chan struct{}, 1),
		leases: map[id.Node]*lease{}, leaseLies: map[refusedLease]bool{}, lodgers: map[id.Node]*lodger{}, lets: map[id.Node]*let{},
		points: map[id.Node]*point{}, notTaken: map[string]time.Time{},
	}
	if cfg.Leaf {
		m.standing = AsLeaf
	}
	m.cert.Store(cert)
	m.catalog, err = catalog.Open(catalog.Config{
		Shelf: cfg.Catalog, Self: cfg.Identity, Charter: cfg.Charter, Wall: cfg.Wall, Log: cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("open the catalog: %w", err)
	}
	if m.invites, err = openInvites(cfg.Invites); err != nil {
		return nil, err
	}
	m.link, err = link.New(link.Config{
		Identity: cfg.Identity, Charter: cfg.Charter, Network: cfg.Network, Book: cfg.Book, BookFile: cfg.BookFile,
		DialOnly: cfg.Leaf, Listen: cfg.Listen, Advertise: cfg.Advertise, Wall: cfg.Wall, Rand: newRand(cfg.Seed), Log: cfg.Log,
		Revoked: m.catalog.Revoked,
	})
	if err != nil {
		return nil, err
	}
	m.swarm = swarm.New(swarm.Config{
		Self:   m.self,
		Open:   func(ctx context.Context, to id.Node) (net.Conn, error) { return m.dial(ctx, to, protoSwarm) },
		Chunks: cfg.Chunks, Allow: cfg.AllowPull, Log: cfg.Log, Wall: cfg.Wall, Seed: cfg.Seed,
	})
	m.ring, err = ring.New(ring.Config{
		Link: m.link, Self: cfg.Identity, Cert: *cert, Label: "meshd/" + cfg.Charter.MeshName(),
		Root: m.root8, OnRoot: m.heardRoot, OnHint: m.heardHint, Known: m.known, Aside: true, Log: cfg.Log, Wall: cfg.Wall,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make the ring: %w", err), m.link.Close())
	}
	m.link.Handle(protoSync, m.serveSync)
	m.link.Handle(protoSwarm, func(ctx context.Context, peer trust.Cert, c net.Conn) { m.swarm.ServeConn(ctx, peer.ID, c) })
	m.link.Handle(protoAsk, m.serveAsk)
	m.link.Handle(protoAttach, m.serveAttach)
	m.link.HandlePacket(kindReach, m.reach.packet)
	m.link.HandleGuest(protoAdmit, m.serveAdmit)
	return m, nil
}

// Run keeps the mesh until ctx ends or a part of it fails; it then leaves the ring and returns after all it
// started has returned.
func (m *Mesh) Run(ctx context.Context) error {
	if err := m.publishCert(); err != nil {
		return errors.Join(err, m.link.Close())
	}
	// The ring says goodbye over the link, so the link ends after the others.
	linkCtx, endLink := context.WithCancel(context.WithoutCancel(ctx))
	defer endLink()
	parts, ctx := errgroup.WithContext(ctx)
	linked := make(chan error, 1)
	go func() { linked <- m.link.Run(linkCtx) }()
	for _, part := range []func(context.Context) error{m.ring.Run, m.swarm.Run, m.tend, m.listen, m.keepLeases} {
		parts.Go(func() error { return part(ctx) })
	}
	parts.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case err := <-linked:
			linked <- nil
			return fmt.Errorf("the port: %w", err)
		}
	})
	err := parts.Wait()
	endLink()
	return errors.Join(err, <-linked)
}

// Self returns this node's id; Cert what its certificate attests; Charter what the mesh is founded on.
func (m *Mesh) Self() id.Node           { return m.self }
func (m *Mesh) Cert() *trust.Cert       { return m.cert.Load() }
func (m *Mesh) Charter() *trust.Charter { return m.cfg.Charter }

// Addr is the bound HOST:PORT; Advertised where others may reach it.
func (m *Mesh) Addr() string { return m.link.Addr() }

func (m *Mesh) Advertised() []string {
	if m.Standing() == AsLeaf {
		return nil
	}
	return m.link.Advertised()
}

// Changed is kicked when the catalog or the members may have changed. Capacity 1, no data, one reader.
func (m *Mesh) Changed() <-chan struct{} { return m.changed }

// Ready is closed or true once the node's own head was compared with a peer, so that publishing can't fork.
func (m *Mesh) OwnChecked() bool { return m.catalog.OwnChecked() }

// Catalog gives read access to all that was heard.
func (m *Mesh) Catalog() *catalog.Catalog { return m.catalog }

// Publish signs one record into this node's log and sends it to the neighbours. Durable on return.
// keep matters for artifacts only.
func (m *Mesh) Publish(_ context.Context, kind uint8, name string, body []byte, keep int) (catalog.Record, error) {
	r, err := m.catalog.Append(kind, name, body, keep)
	if err == nil {
		m.wrote(r)
	}
	return r, err
}

// Pull brings all bytes of r into the store, from any peers that hold them. It waits for a holder until
// ctx ends. progress may be nil; it must not block.
func (m *Mesh) Pull(ctx context.Context, r artifact.Ref, progress func(done, total int64)) error {
	return m.swarm.Pull(ctx, r, func() []id.Node { return m.holders(r) }, progress)
}

// Underway tells of all pulls, in no order.
func (m *Mesh) Underway() []swarm.Progress { return m.swarm.Underway() }

// dial opens a stream to n: to a leaf that is not attached here only for questions, through its attach point. A session
// that a leaf has here besides may be dead with nobody knowing: questions go where it says that it is.
func (m *Mesh) dial(ctx context.Context, n id.Node, proto string) (net.Conn, error) {
	ring, _ := m.inRing()
	m.mu.Lock()
	p, here, resting := m.presenceLocked(n, ring), m.lodgers[n] != nil, m.resting
	m.mu.Unlock()
	switch {
	case resting && proto == protoSwarm:
		return nil, fmt.Errorf("dial node %s for %s: %w: this leaf rests until its next poll", n.Short(), proto, link.ErrUnreachable)
	case !p.leaf || here && (proto != protoAsk || !p.alive || p.at == m.self):
		return m.link.Dial(ctx, n, proto)
	case !p.alive:
		return nil, fmt.Errorf("dial leaf %s for %s: %w: it is asleep", n.Short(), proto, link.ErrUnreachable)
	case proto != protoAsk:
		return nil, fmt.Errorf("dial leaf %s for %s: %w: it only dials out, and is not attached here", n.Short(), proto, link.ErrUnreachable)
	}
	return m.link.DialThrough(ctx, p.at, n, proto)
}

// lodges reports whether a session of leaf n is open here.
func (m *Mesh) lodges(n id.Node) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lodgers[n] != nil
}

func (m *Mesh) keyOf(n id.Node) ed25519.PublicKey {
	key, _ := m.catalog.Key(n)
	return key
}

// holders lists who may have r, likeliest first: the publisher, those who said that they placed it, the
// copies, then everybody alive. Nodes that are known to be away come last.
func (m *Mesh) holders(r artifact.Ref) []id.Node {
	alive := m.Alive()
	seen := map[id.Node]bool{m.self: true}
	var near, far []id.Node
	add := func(n id.Node) {
		if seen[n] {
			return
		}
		seen[n] = true
		if alive[n] {
			near = append(near, n)
		} else {
			far = append(far, n)
		}
	}
	m.mu.Lock()
	at := m.presenceLocked(r.Version.By, alive).at
	away := !at.IsZero() && m.lodgers[r.Version.By] == nil // its bytes are where it is attached
	m.mu.Unlock()
	if away {
		add(at)
	} else {
		add(r.Version.By)
	}
	for _, rec := range m.catalog.Live(catalog.ScopeMain, catalog.KindPlaced, r.Name) {
		if body, err := catalog.DecodePlaced(rec.Body); err == nil && body.Tree == r.Tree {
			add(rec.Log.Origin)
		}
	}
	ranked := id.Rank(r.Root[:], keys(alive))
	for _, n := range ranked {
		add(n)
	}
	return append(near, far...)
}

// SetOffline closes all links and packets, and refuses new ones, until called with false.
func (m *Mesh) SetOffline(off bool) {
	m.mu.Lock()
	m.offline = off
	m.mu.Unlock()
	m.link.SetOffline(off)
	m.tendSoon()
}

// Offline reports whether SetOffline closed the links.
func (m *Mesh) Offline() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.offline
}

func (m *Mesh) tendSoon() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

func (m *Mesh) notify() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// Close gives up a Mesh that was not run.
func (m *Mesh) Close() error { return m.link.Close() }

// WaitOwnChecked waits until a peer has told what it knows of this node's own log; nil too when ctx's time
// is over with no peer: a node alone publishes in an epoch of its own. An error where the caller gave up.
func (m *Mesh) WaitOwnChecked(ctx context.Context) error {
	select {
	case <-m.catalog.Checked():
		return nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil
		}
		return ctx.Err()
	}
}

// KnowsOthers reports whether this node has ever heard of another, or was told of one.
func (m *Mesh) KnowsOthers() bool {
	if len(m.cfg.Seeds) > 0 {
		return true
	}
	for _, p := range m.link.Peers() {
		if p.ID != m.self {
			return true
		}
	}
	return false
}

// CertOf is the verified certificate of a node: from the catalog, or else from a handshake with a newcomer
// whose records are still on their way.
func (m *Mesh) CertOf(n id.Node) (*trust.Cert, bool) {
	if c, ok := m.catalog.Cert(n); ok {
		return c, true
	}
	p, ok := m.link.Peer(n)
	return p.Cert, ok && p.Cert != nil
}
