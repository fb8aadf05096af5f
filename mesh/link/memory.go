package link

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A Memory is a network that exists in this process alone: streams are buffered, packets may be delayed,
// lost and reordered, hosts may be cut from one another and crash. It starts no goroutine, waits on
// channels and timers of package time only, and so runs in a testing/synctest bubble. Equal seeds draw
// equal delays and losses; the order in which goroutines ask for them is the scheduler's.
//
// Its methods may be called at any time from any goroutine.
type Memory struct {
	mu       sync.Mutex // guards all below and all state of hosts, streams and packet queues
	rand     *rand.Rand
	hosts    map[string]*memHost
	cut      map[[2]string]bool      // ordered pairs of host addresses
	nat      map[string]bool         // hosts that nothing reaches unasked
	pinholes map[[2]string]time.Time // when a host behind NAT last sent a packet to another
	streams  map[*memStream]struct{}
	min, max time.Duration
	loss     float64
	nextPort uint16
}

// Limits of the simulated network.
const (
	memBacklog     = 128       // connections that wait for Accept
	memPackets     = 1024      // packets that wait for ReadFrom; more are lost
	memBufferBytes = 256 << 10 // bytes under way in one direction of a stream
	memDialLimit   = 20 * time.Second
	memPinhole     = 30 * time.Second // for this long after a packet out, packets come back in
)

// NewMemory returns an empty network without delay or loss.
func NewMemory(seed uint64) *Memory {
	return &Memory{
		rand:  rand.New(rand.NewPCG(seed, seed^0x6d657368)),
		hosts: map[string]*memHost{}, cut: map[[2]string]bool{}, streams: map[*memStream]struct{}{},
		nat: map[string]bool{}, pinholes: map[[2]string]time.Time{},
		nextPort: 32768,
	}
}

// Host returns the network as the host at addr ("10.0.0.1:6374") sees it. It listens at that address and
// no other: Listen takes it, or one with an open host or port 0. A host may listen again after it closed
// or crashed.
func (m *Memory) Host(addr string) Network {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hostLocked(addr)
}

func (m *Memory) hostLocked(addr string) *memHost {
	h := m.hosts[addr]
	if h == nil {
		h = &memHost{net: m, addr: addr}
		m.hosts[addr] = h
	}
	return h
}

// Delay makes each packet and each write arrive after a time between min and max, drawn anew.
func (m *Memory) Delay(min, max time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.min, m.max = min, max
}

// Loss makes packets vanish with probability p. Streams lose nothing.
func (m *Memory) Loss(p float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.loss = p
}

// Cut silences the link between hosts a and b both ways: packets vanish, dials hang, data of open streams
// waits for Heal and neither end is told.
func (m *Memory) Cut(a, b string) { m.setCut(a, b, true) }

// Heal undoes Cut; streams that neither end has closed go on.
func (m *Memory) Heal(a, b string) { m.setCut(a, b, false) }

func (m *Memory) setCut(a, b string, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut[[2]string{a, b}], m.cut[[2]string{b, a}] = cut, cut
	for s := range m.streams {
		s.wake()
	}
}

// Deafen lets nothing arrive at a host any more on streams that are open now, whoever opened them, and tells nobody: as
// when a middlebox forgot them. What it sends on them arrives; packets and new streams work both ways.
func (m *Memory) Deafen(addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s := range m.streams {
		s.deaf = s.deaf || s.host == addr
	}
}

// NAT puts the host at addr behind a network that lets nothing in unasked, or out from behind it: dials to it
// hang, and packets come only from where it sent one within the last 30 s. Streams that it opened, and those
// that are open already, work both ways.
func (m *Memory) NAT(addr string, on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.nat[addr] = on
}

// passesLocked reports whether a packet from one host reaches another, and notes what may come back.
func (m *Memory) passesLocked(from, to string) bool {
	now := time.Now()
	if m.nat[from] {
		m.pinholes[[2]string{from, to}] = now
	}
	if m.cut[[2]string{from, to}] {
		return false
	}
	last, asked := m.pinholes[[2]string{to, from}]
	return !m.nat[to] || asked && now.Sub(last) < memPinhole
}

// Crash ends all sockets of the host at addr as the kernel does when a process is killed: its own calls
// fail and the far ends see a reset. It may listen again at once.
func (m *Memory) Crash(addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.hosts[addr]
	if h == nil {
		return
	}
	if h.listener != nil {
		h.listener.closeLocked()
	}
	if h.packets != nil {
		h.packets.closeLocked()
	}
	for s := range m.streams {
		if s.host == addr {
			s.resetLocked()
		}
	}
}

// delayLocked draws how long one message is under way.
func (m *Memory) delayLocked() time.Duration {
	if m.max <= m.min {
		return m.min
	}
	return m.min + time.Duration(m.rand.Int64N(int64(m.max-m.min)+1))
}

// A memHost is one address of a Memory. Its fields are guarded by net.mu.
type memHost struct {
	net      *Memory
	addr     string
	listener *memListener
	packets  *memPacketConn
	up, down memPipe
}

func (h *memHost) Listen(addr string) (net.Listener, net.PacketConn, error) {
	own, err := netip.ParseAddrPort(h.addr)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on simulated host %q: %w; want IP:PORT", h.addr, err)
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on %q: %w; want ADDR:PORT", addr, err)
	}
	open := host == "" || host == "0.0.0.0" || host == "::"
	if (!open && host != own.Addr().String()) || (port != "0" && port != fmt.Sprint(own.Port())) {
		return nil, nil, fmt.Errorf("listen on %s: simulated host has the address %s alone: %w", addr, h.addr, syscall.EADDRNOTAVAIL)
	}
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.listener != nil || h.packets != nil {
		return nil, nil, fmt.Errorf("listen on %s: %w", h.addr, syscall.EADDRINUSE)
	}
	h.listener = &memListener{host: h, backlog: make(chan net.Conn, memBacklog), done: make(chan struct{})}
	h.packets = &memPacketConn{host: h, local: net.UDPAddrFromAddrPort(own), changed: make(chan struct{})}
	return h.listener, h.packets, nil
}

func (h *memHost) Dial(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, memDialLimit)
	defer cancel()
	h.net.mu.Lock()
	silent := h.net.cut[[2]string{h.addr, addr}] || h.net.nat[addr]
	delay := h.net.delayLocked() + h.net.delayLocked()
	h.net.mu.Unlock()
	if silent {
		<-ctx.Done()
		return nil, fmt.Errorf("dial %s: %w", addr, ctx.Err())
	}
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("dial %s: %w", addr, ctx.Err())
		}
	}
	return h.connect(addr)
}

// connect puts a new stream into the backlog of the listener at addr.
func (h *memHost) connect(addr string) (net.Conn, error) {
	m := h.net
	m.mu.Lock()
	defer m.mu.Unlock()
	far := m.hosts[addr]
	if far == nil || far.listener == nil {
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	}
	own, err := netip.ParseAddrPort(h.addr)
	if err != nil {
		return nil, fmt.Errorf("dial from simulated host %q: %w; want IP:PORT", h.addr, err)
	}
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	m.nextPort = max(m.nextPort+1, 32768)
	local := net.TCPAddrFromAddrPort(netip.AddrPortFrom(own.Addr(), m.nextPort))
	near, other := newMemStreams(m, h.addr, addr, local, net.TCPAddrFromAddrPort(to))
	select {
	case far.listener.backlog <- other:
		return near, nil
	default:
		near.closeLocked()
		other.closeLocked()
		return nil, fmt.Errorf("dial %s: backlog of %d is full: %w", addr, memBacklog, syscall.ECONNREFUSED)
	}
}

// A memListener is the stream half of a host's port.
type memListener struct {
	host    *memHost
	backlog chan net.Conn
	done    chan struct{}
	closed  bool // guarded by host.net.mu
}

func (l *memListener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, fmt.Errorf("accept: %w", net.ErrClosed)
	default:
	}
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.done:
		return nil, fmt.Errorf("accept: %w", net.ErrClosed)
	}
}

func (l *memListener) Addr() net.Addr {
	own, _ := netip.ParseAddrPort(l.host.addr) // Listen parsed it
	return net.TCPAddrFromAddrPort(own)
}

func (l *memListener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	l.closeLocked()
	return nil
}

func (l *memListener) closeLocked() {
	if l.closed {
		return
	}
	l.closed = true
	close(l.done)
	if l.host.listener == l {
		l.host.listener = nil
	}
	for {
		select {
		case c := <-l.backlog:
			c.(*memStream).resetLocked()
		default:
			return
		}
	}
}

// A memPacketConn is the packet half of a host's port. Its fields are guarded by host.net.mu.
type memPacketConn struct {
	host     *memHost
	local    *net.UDPAddr
	queue    []memPacket // by time of arrival
	deadline time.Time
	closed   bool
	changed  chan struct{} // closed and replaced at each change
}

type memPacket struct {
	b    []byte
	from *net.UDPAddr
	at   time.Time
}

var errMemClosed = fmt.Errorf("simulated socket: %w", net.ErrClosed)

func (p *memPacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	m := p.host.net
	for {
		m.mu.Lock()
		now := time.Now()
		wake := p.deadline
		switch {
		case p.closed:
			m.mu.Unlock()
			return 0, nil, errMemClosed
		case expired(p.deadline, now):
			m.mu.Unlock()
			return 0, nil, os.ErrDeadlineExceeded
		case len(p.queue) > 0 && !p.queue[0].at.After(now):
			first := p.queue[0]
			p.queue = slices.Delete(p.queue, 0, 1)
			m.mu.Unlock()
			return copy(b, first.b), first.from, nil
		case len(p.queue) > 0:
			wake = earlier(wake, p.queue[0].at)
		}
		changed := p.changed
		m.mu.Unlock()
		await(changed, wake)
	}
}

func (p *memPacketConn) WriteTo(b []byte, to net.Addr) (int, error) {
	m := p.host.net
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.closed {
		return 0, errMemClosed
	}
	far := m.hosts[to.String()]
	if !m.passesLocked(p.host.addr, to.String()) || far == nil || far.packets == nil {
		return len(b), nil
	}
	if m.loss > 0 && m.rand.Float64() < m.loss {
		return len(b), nil
	}
	q := far.packets
	if len(q.queue) >= memPackets {
		return len(b), nil
	}
	packet := memPacket{b: slices.Clone(b), from: p.local, at: m.arrivalLocked(p.host.addr, to.String(), len(b))}
	at, _ := slices.BinarySearchFunc(q.queue, packet.at, func(e memPacket, t time.Time) int {
		if e.at.After(t) {
			return 1
		}
		return -1 // equal times keep the order of sending
	})
	q.queue = slices.Insert(q.queue, at, packet)
	q.wake()
	return len(b), nil
}

func (p *memPacketConn) Close() error {
	p.host.net.mu.Lock()
	defer p.host.net.mu.Unlock()
	p.closeLocked()
	return nil
}

func (p *memPacketConn) closeLocked() {
	if p.closed {
		return
	}
	p.closed = true
	p.queue = nil
	if p.host.packets == p {
		p.host.packets = nil
	}
	p.wake()
}

func (p *memPacketConn) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *memPacketConn) LocalAddr() net.Addr              { return p.local }
func (p *memPacketConn) SetDeadline(t time.Time) error    { return p.SetReadDeadline(t) }
func (p *memPacketConn) SetWriteDeadline(time.Time) error { return nil } // writes never wait
func (p *memPacketConn) SetReadDeadline(t time.Time) error {
	p.host.net.mu.Lock()
	defer p.host.net.mu.Unlock()
	if p.closed {
		return errMemClosed
	}
	p.deadline = t
	p.wake()
	return nil
}
