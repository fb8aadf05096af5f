package link

import (
	"crypto/ed25519"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/trust"
)

// A Peer is what the peer book knows of one node. It is a copy, its Cert shared and never changed.
type Peer struct {
	ID       id.Node
	Cert     *trust.Cert // nil: only addresses are known
	Addrs    []string    // where it says it is, and where it was last authenticated; the best first
	LastSeen time.Time   // by this node's wall clock; zero: never
}

// A book is what this node knows of its peers. Its methods are safe for concurrent use and wait for
// nothing but one another.
type book struct {
	cfg  Config
	self id.Node
	mesh [32]byte
	priv *[32]byte
	kick chan struct{} // capacity 1: something is to be saved

	mu      sync.Mutex // guards all below
	peers   map[id.Node]*entry
	byShort map[shortID]*entry
	dirty   map[id.Node]bool // to be saved or, when gone from peers, deleted
	held    int              // letters of all entries
}

// An entry is one peer of the book, guarded by book.mu.
type entry struct {
	id      id.Node
	cert    *trust.Cert
	revoked bool
	addrs   []string
	seen    time.Time      // wall
	saved   time.Time      // the seen that is on disk
	route   netip.AddrPort // where it was last authenticated; not valid: nowhere yet

	pair      *pair // nil without cert
	sent      uint64
	boot      bootID
	heard     bool // boot and window are of a stream that TLS vouched for
	window    window
	nextFetch time.Time
	held      []letter // that wait for the first stream of both runs
}

// A letter is a packet that is not sealed yet.
type letter struct {
	kind byte
	b    []byte
	at   time.Time
}

// Limits of packets that wait for a stream.
const (
	heldPackets = 8   // for one peer; the oldest gives way
	heldInAll   = 256 // then none is held any more
	heldFor     = 2 * time.Second
)

// seenEvery is how far LastSeen on disk may be behind.
const seenEvery = 10 * time.Minute

// entryLocked returns the entry of n, making it where there is none.
func (b *book) entryLocked(n id.Node) *entry {
	e := b.peers[n]
	if e == nil {
		e = &entry{id: n}
		b.peers[n] = e
		b.byShort[short(n)] = e
	}
	return e
}

// touchLocked has e saved soon.
func (b *book) touchLocked(e *entry) {
	b.dirty[e.id] = true
	select {
	case b.kick <- struct{}{}:
	default:
	}
}

// adoptLocked takes over a verified certificate, unless the one at hand lasts longer.
func (b *book) adoptLocked(e *entry, cert *trust.Cert) {
	if e.cert != nil && !cert.NotAfter.After(e.cert.NotAfter) {
		return
	}
	if e.pair == nil || e.cert.Box != cert.Box {
		e.pair = newPair(b.mesh, b.self, e.id, &cert.Box, b.priv)
	}
	e.cert = cert
	b.touchLocked(e)
}

func (b *book) seenLocked(e *entry, wall time.Time) {
	if wall.After(e.seen) {
		e.seen = wall
	}
	if e.seen.Sub(e.saved) >= seenEvery {
		e.saved = e.seen
		b.touchLocked(e)
	}
}

// Learn tells the peer book of a node: its verified certificate and where it says it is (empty: no news).
// It is saved within seconds.
func (l *Link) Learn(c trust.Cert, addrs []string) {
	if c.ID == l.self {
		return
	}
	revoked := l.revoked(c.Key)
	b := l.book
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entryLocked(c.ID)
	e.revoked = revoked
	b.adoptLocked(e, &c)
	b.addrsLocked(e, addrs)
}

// goodAddr reports whether a is HOST:PORT, with a host, in characters that hosts and ports have.
func goodAddr(a string) bool {
	host, port, err := net.SplitHostPort(a)
	return err == nil && host != "" && port != "" && len(a) <= addrBytes && !strings.ContainsFunc(a, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '#' || r == '"' || r == '\\'
	})
}

// addrsLocked notes where a peer says it is; what is no address is left out.
func (b *book) addrsLocked(e *entry, addrs []string) {
	var good []string
	for _, a := range addrs {
		if goodAddr(a) && !slices.Contains(good, a) && len(good) < prefaceAddrs {
			good = append(good, a)
		}
	}
	if len(good) > 0 && !slices.Equal(good, e.addrs) {
		e.addrs = good
		b.touchLocked(e)
	}
}

// Peers returns all that the peer book knows, in order of their ids.
func (l *Link) Peers() []Peer {
	b := l.book
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Peer, 0, len(b.peers))
	for _, e := range b.peers {
		out = append(out, e.peer())
	}
	slices.SortFunc(out, func(a, b Peer) int { return a.ID.Compare(b.ID) })
	return out
}

// Peer returns what the peer book knows of n.
func (l *Link) Peer(n id.Node) (Peer, bool) {
	b := l.book
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[n]
	if e == nil {
		return Peer{}, false
	}
	return e.peer(), true
}

// Forget drops n from the peer book. A node that is still about comes back with its next stream.
func (l *Link) Forget(n id.Node) {
	b := l.book
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.peers[n]; e != nil {
		delete(b.peers, n)
		delete(b.byShort, short(n))
		b.held -= len(e.held)
		b.touchLocked(e)
	}
}

func (e *entry) peer() Peer {
	return Peer{ID: e.id, Cert: e.cert, Addrs: e.addresses(), LastSeen: e.seen}
}

// addresses returns where the peer may be, the best first.
func (e *entry) addresses() []string {
	var out []string
	if e.route.IsValid() {
		out = append(out, e.route.String())
	}
	for _, a := range e.addrs {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (b *book) addresses(n id.Node) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.peers[n]; e != nil {
		return e.addresses()
	}
	return nil
}

func (b *book) keys() map[id.Node]ed25519.PublicKey {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[id.Node]ed25519.PublicKey, len(b.peers))
	for n, e := range b.peers {
		if e.cert != nil {
			out[n] = e.cert.Key
		}
	}
	return out
}

func (b *book) setRevoked(n id.Node, revoked bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.peers[n]; e != nil {
		e.revoked = revoked
	}
}

// sent returns the counter of the last packet sealed for the peer of cert.
func (b *book) sent(cert *trust.Cert) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.peers[cert.ID]; e != nil {
		return e.sent
	}
	return 0
}

// met notes what a stream with the verified peer of cert told. from is its far end; dialled says that this
// node opened it, so that from is where the peer listens. It returns the packets that waited for this;
// those of a stream that the peer opened wait for one of our own, whose answer says that the peer knows us.
func (b *book) met(cert *trust.Cert, p preface, from netip.AddrPort, dialled bool) (held []letter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entryLocked(cert.ID)
	e.revoked = false
	b.adoptLocked(e, cert)
	b.addrsLocked(e, p.Addrs)
	b.seenLocked(e, b.cfg.Wall())
	news := !e.heard || e.boot != p.Boot
	if news {
		e.boot, e.heard, e.window = p.Boot, true, since(p.Sent)
	}
	if dialled {
		held, e.held = e.held, nil
		b.held -= len(held)
	} else {
		from = netip.AddrPortFrom(from.Addr(), p.Port)
	}
	// A packet's source is better than the guess behind an inbound stream, until the peer moves.
	if !from.IsValid() || p.Port == 0 || (!dialled && !news && e.route.IsValid() && e.route.Addr() == from.Addr()) {
		return held
	}
	if e.route != from {
		e.route = from
		b.touchLocked(e)
	}
	return held
}

// A ticket is what one packet to a peer needs.
type ticket struct {
	pair    *pair
	counter uint64
	route   netip.AddrPort
}

// hold keeps a packet for n until the first stream, which met tells of.
func (b *book) hold(n id.Node, l letter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[n]
	if b.held >= heldInAll {
		b.expireLocked(l.at)
	}
	switch {
	case e == nil || e.revoked:
		return
	case len(e.held) >= heldPackets:
		e.held = append(e.held[:0], e.held[1:]...)
	case b.held >= heldInAll:
		return
	default:
		b.held++
	}
	e.held = append(e.held, l)
}

// expireLocked drops packets whose stream never came.
func (b *book) expireLocked(now time.Time) {
	for _, e := range b.peers {
		before := len(e.held)
		e.held = slices.DeleteFunc(e.held, func(l letter) bool { return now.Sub(l.at) > heldFor })
		b.held -= before - len(e.held)
	}
}

// prepare draws the counter of the next packet to n; ok is false where its key or address is not known,
// or no stream has told it of this run: it would refuse the packet.
func (b *book) prepare(n id.Node) (t ticket, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[n]
	if e == nil || e.pair == nil || e.revoked || !e.heard || e.sent >= maxCounter {
		return ticket{}, false
	}
	route := e.route
	for _, a := range e.addrs {
		if route.IsValid() {
			break
		}
		if ap, err := netip.ParseAddrPort(a); err == nil { // a name waits for a stream to resolve it
			route = ap
		}
	}
	if !route.IsValid() {
		return ticket{}, false
	}
	e.sent++
	return ticket{e.pair, e.sent, route}, true
}

// sender finds who claims to have sent a packet.
func (b *book) sender(s shortID) (id.Node, *pair, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.byShort[s]
	if e == nil || e.pair == nil || e.revoked {
		return id.Node{}, nil, false
	}
	return e.id, e.pair, true
}

// A verdict is what the book says of a packet whose seal was right.
type verdict uint8

const (
	taken verdict = iota
	replayed
	unheard // of a run of the sender that no stream told of
)

// receive judges a packet whose seal was right and notes where it came from.
func (b *book) receive(n id.Node, h head, from netip.AddrPort, wall time.Time) verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[n]
	if e == nil || !e.heard || e.boot != h.boot {
		return unheard
	}
	ok, newest := e.window.take(h.counter)
	if !ok {
		return replayed
	}
	if newest && from.IsValid() {
		e.route = from
	}
	b.seenLocked(e, wall)
	return taken
}

// mayFetch reports, at most once in fetchEvery, that a stream may ask n for what is missing.
func (b *book) mayFetch(n id.Node, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.peers[n]
	if e == nil || e.revoked || now.Before(e.nextFetch) || len(e.addresses()) == 0 {
		return false
	}
	e.nextFetch = now.Add(fetchEvery)
	return true
}
