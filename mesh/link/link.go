// Package link is the port: it listens for streams and packets, dials nodes by their id, and lets
// nothing through that the charter does not vouch for.
//
// Streams are TLS 1.3, mutual, told apart by ALPN. Packets are sealed per pair. Where a node is, the
// peer book remembers.
package link

import (
	"context"
	"crypto/ed25519"
	crand "crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"meshd/mesh/id"
	"meshd/mesh/trust"
)

// Errors that callers decide by.
var (
	ErrUnreachable = errors.New("node is unreachable")
	ErrOffline     = errors.New("this node is offline by its operator's wish")
)

// Config is what a Link is made of. All fields without "optional" are required.
type Config struct {
	Identity *trust.Identity // admitted: it has a chain
	Charter  *trust.Charter
	Network  Network
	Book     Shelf

	DialOnly  bool     // a leaf: it listens nowhere, for streams or packets, and advertises nothing
	Listen    string   // ADDR:PORT; port 0 takes a free one
	Advertise []string // HOST:PORT, where others may reach this node; optional: what was bound

	Wall func() time.Time // judges certificates and dates the peer book
	Rand *rand.Rand       // of the order in which equal addresses are tried; optional
	Log  *slog.Logger

	// Revoked says whether a key is revoked. It is called from many goroutines; optional.
	Revoked func(ed25519.PublicKey) bool

	BookFile string // text copy of the peer book; optional
}

// A Link is one node's port. Its methods are safe for concurrent use, except that Handle, HandleGuest
// and HandlePacket come before Run.
type Link struct {
	cfg      Config
	self     id.Node
	boot     bootID
	began    time.Time                       // by the clock of package time
	cert     atomic.Pointer[tls.Certificate] // shown in handshakes; see Renew
	listener net.Listener
	packets  net.PacketConn
	bound    netip.AddrPort

	members map[string]func(ctx context.Context, peer trust.Cert, c net.Conn)
	guests  map[string]func(ctx context.Context, key ed25519.PublicKey, c net.Conn)
	kinds   [256]func(from id.Node, b []byte, at time.Time)

	book     *book
	gate     *gate
	outbox   chan outgoing // sealed packets; one writer sends them
	fetches  chan id.Node  // peers that a stream shall tell more of
	counters counters
	bad      complaint
	spare    sync.Pool       // of *[]byte, for gather
	life     context.Context // ends with the link, whoever's call is under way
	end      context.CancelFunc

	mu      sync.Mutex
	conns   map[*Conn]struct{}
	ways    map[id.Node]*func(callToken, string) error // leaves that are asked for streams: see Through
	calls   map[callToken]*waiter                      // Dials that wait for one
	answers int                                        // streams being opened because somebody asked
	relays  map[relayed]int                            // that go through this node
	offline bool
	closed  bool
	started sync.WaitGroup // dials and served streams; none is added once closed
}

// protoBoot carries nothing: its preface tells who is there, and with which run.
const protoBoot = "meshd/boot/1"

// Limits of work in the background.
const (
	outboxPackets   = 256
	fetchQueue      = 64
	fetchWorkers    = 4
	fetchEvery      = 2 * time.Second // at most, of one peer
	acceptPause     = 100 * time.Millisecond
	handshakeLimit  = 5 * time.Second
	dialLimit       = 10 * time.Second // all addresses of a node together
	nextAddressWait = 250 * time.Millisecond
)

// New binds the port and reads the peer book. The Link answers nobody before Run; one that is not run is
// closed by Close.
func New(cfg Config) (*Link, error) {
	if len(cfg.Identity.Chain) == 0 {
		return nil, errors.New("open the port: this node has no certificate; it was not admitted to a mesh yet")
	}
	own, err := cfg.Charter.VerifyChain(cfg.Identity.Chain)
	if err != nil {
		return nil, fmt.Errorf("open the port: own certificate: %w", err)
	}
	if len(cfg.Advertise) > prefaceAddrs {
		return nil, fmt.Errorf("open the port: %d addresses to advertise, limit %d", len(cfg.Advertise), prefaceAddrs)
	}
	_, priv := cfg.Identity.BoxKey()
	l := &Link{
		cfg: cfg, self: own.ID, began: time.Now(),
		members: map[string]func(context.Context, trust.Cert, net.Conn){},
		guests:  map[string]func(context.Context, ed25519.PublicKey, net.Conn){},
		gate:    newGate(), conns: map[*Conn]struct{}{}, ways: map[id.Node]*func(callToken, string) error{}, calls: map[callToken]*waiter{}, relays: map[relayed]int{},
		outbox: make(chan outgoing, outboxPackets), fetches: make(chan id.Node, fetchQueue),
	}
	l.Renew(cfg.Identity.Chain)
	if _, err := crand.Read(l.boot[:]); err != nil {
		return nil, fmt.Errorf("open the port: draw a boot id: %w", err)
	}
	if l.book, err = openBook(cfg, own.ID, priv); err != nil {
		return nil, fmt.Errorf("read the peer book: %w", err)
	}
	if !cfg.DialOnly {
		if l.listener, l.packets, err = cfg.Network.Listen(cfg.Listen); err != nil {
			return nil, fmt.Errorf("open the port: %w; is another meshd running, or --listen taken by another program?", err)
		}
		l.bound = addrPort(l.listener.Addr())
	}
	l.life, l.end = context.WithCancel(context.Background())
	l.Handle(protoBoot, func(_ context.Context, _ trust.Cert, c net.Conn) { _ = c.Close() })
	l.Handle(protoBack, l.serveBack)
	l.Handle(ProtoRelay, l.serveRelay)
	return l, nil
}

// Renew has all handshakes from now on show chain, which the charter backs for this node's key. Streams that are
// open stay. It may be called at any time.
func (l *Link) Renew(chain [][]byte) {
	l.cert.Store(&tls.Certificate{Certificate: chain, PrivateKey: l.cfg.Identity.Key})
}

// Handle gives streams of proto from members to h, in a goroutine of its own each. h owns c and closes
// it, then or later; ctx ends with Run, which waits for h.
func (l *Link) Handle(proto string, h func(ctx context.Context, peer trust.Cert, c net.Conn)) {
	l.members[proto] = h
}

// HandleGuest is Handle for those who have no certificate yet: TLS proved that the far end holds key,
// and nothing else is known of it. There is no preface.
func (l *Link) HandleGuest(proto string, h func(ctx context.Context, key ed25519.PublicKey, c net.Conn)) {
	l.guests[proto] = h
}

// HandlePacket gives packets of one kind to h, which must not block: one goroutine reads them all. h owns
// b. at is when the packet came, by the clock of package time.
func (l *Link) HandlePacket(kind byte, h func(from id.Node, b []byte, at time.Time)) {
	l.kinds[kind] = h
}

// Addr returns the bound address as IP:PORT; "" where nothing is bound.
func (l *Link) Addr() string {
	if l.listener == nil {
		return ""
	}
	return l.bound.String()
}

// Advertised returns where others may reach this node: what Config says, else what was bound, else, bound
// to every address, those of this machine.
func (l *Link) Advertised() []string {
	if l.listener == nil {
		return nil
	}
	if len(l.cfg.Advertise) > 0 {
		return append([]string(nil), l.cfg.Advertise...)
	}
	if !l.bound.Addr().IsUnspecified() {
		return []string{l.bound.String()}
	}
	var out []string
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		l.bad.log(l.cfg.Log, "own addresses are unknown", "error", err)
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().IsGlobalUnicast() && len(out) < prefaceAddrs {
			out = append(out, netip.AddrPortFrom(p.Addr().Unmap(), l.bound.Port()).String())
		}
	}
	if len(out) == 0 {
		out = []string{netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), l.bound.Port()).String()}
	}
	return out
}

// Run serves the port until ctx ends, then closes it and every stream and returns after all that the Link
// started has returned. It is called once.
func (l *Link) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, l.end)
	defer stop()
	var g errgroup.Group
	parts := []func() error{func() error { return l.book.keep(l.life) }}
	if l.listener != nil {
		parts = append(parts, l.accept, l.receive, l.transmit)
	}
	for range fetchWorkers {
		parts = append(parts, l.fetch)
	}
	for _, part := range parts {
		g.Go(func() error {
			err := part()
			l.end() // one part that failed ends them all
			return err
		})
	}
	<-l.life.Done()
	err := l.Close()
	return errors.Join(err, g.Wait())
}

// Close closes the port and every stream, and waits for dials and handlers under way. Further calls do
// nothing.
func (l *Link) Close() error {
	l.end()
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	var err error
	if first && l.listener != nil {
		err = errors.Join(l.listener.Close(), l.packets.Close())
	}
	l.killAll(func(ed25519.PublicKey) bool { return true })
	l.started.Wait()
	return err
}

// SetOffline closes all streams and refuses every stream and packet, both ways, until it is called with
// false. The port stays bound, so that no other program takes it meanwhile.
func (l *Link) SetOffline(offline bool) {
	l.mu.Lock()
	l.offline = offline
	l.mu.Unlock()
	if offline {
		l.HangUp()
	}
}

// HangUp closes all streams.
func (l *Link) HangUp() { l.killAll(func(ed25519.PublicKey) bool { return true }) }

func (l *Link) isOffline() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.offline
}

// DropRevoked closes the streams of keys that are revoked by now and takes no more packets of them. It
// asks Config.Revoked about every known key: call it when the answer may have changed.
func (l *Link) DropRevoked() {
	if l.cfg.Revoked == nil {
		return
	}
	for n, key := range l.book.keys() {
		l.book.setRevoked(n, l.cfg.Revoked(key))
	}
	l.killAll(func(key ed25519.PublicKey) bool { return key != nil && l.cfg.Revoked(key) })
}

// killAll closes the streams whose key, nil before the handshake, is picked, without waiting for their ends to agree.
func (l *Link) killAll(pick func(ed25519.PublicKey) bool) {
	type stream struct {
		conn *Conn
		key  ed25519.PublicKey
	}
	l.mu.Lock()
	var all []stream
	for c := range l.conns {
		all = append(all, stream{c, c.key})
	}
	l.mu.Unlock()
	for _, s := range all {
		if pick(s.key) {
			_ = s.conn.raw.Close() // its owner reads the error and closes it
		}
	}
}

// begin counts work that Close waits for, or says why none may begin.
func (l *Link) begin() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("link: %w", net.ErrClosed)
	}
	if l.offline {
		return ErrOffline
	}
	l.started.Add(1)
	return nil
}

// addrPort reads the address of a socket of either network; the zero value stands for one of neither.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
