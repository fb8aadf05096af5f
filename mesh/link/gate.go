package link

import (
	"net/netip"
	"sync"

	"meshd/mesh/id"
)

// Caps on connections that others opened. Above one, a connection is closed and counted.
const (
	maxConns             = 1024 // in all
	maxConnsPerAddr      = 256  // of one IP address: a NAT with a fleet behind it
	maxConnsPerPeer      = 64   // of one node
	maxHandshakes        = 256  // that have not proved who they are
	maxHandshakesPerAddr = 32
)

// A gate counts the connections that others opened. Its methods are safe for concurrent use.
type gate struct {
	mu         sync.Mutex
	all, young int
	byAddr     map[netip.Addr]int
	youngAddr  map[netip.Addr]int
	byPeer     map[id.Node]int
}

func newGate() *gate {
	return &gate{byAddr: map[netip.Addr]int{}, youngAddr: map[netip.Addr]int{}, byPeer: map[id.Node]int{}}
}

// A pass is the place of one connection in its gate. It is used by one goroutine until proved, then by
// whoever closes the connection.
type pass struct {
	gate   *gate
	addr   netip.Addr
	peer   id.Node
	proved bool
	named  bool
}

// enter returns the pass of a new connection from addr, or nil where a cap is reached.
func (g *gate) enter(addr netip.Addr) *pass {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all >= maxConns || g.young >= maxHandshakes ||
		g.byAddr[addr] >= maxConnsPerAddr || g.youngAddr[addr] >= maxHandshakesPerAddr {
		return nil
	}
	g.all++
	g.young++
	g.byAddr[addr]++
	g.youngAddr[addr]++
	return &pass{gate: g, addr: addr}
}

// prove counts the connection as one of peer, or reports that peer has enough. A guest has the zero id
// and goes on counting as one that proved nothing.
func (p *pass) prove(peer id.Node) bool {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byPeer[peer] >= maxConnsPerPeer {
		return false
	}
	g.byPeer[peer]++
	p.peer, p.named = peer, true
	if !peer.IsZero() {
		p.grown()
	}
	return true
}

// leave gives the place back. It is called once.
func (p *pass) leave() {
	g := p.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	p.grown()
	g.all--
	drop(g.byAddr, p.addr)
	if p.named {
		drop(g.byPeer, p.peer)
	}
}

// grown ends the handshake's share; the caller holds the gate's lock.
func (p *pass) grown() {
	if p.proved {
		return
	}
	p.proved = true
	p.gate.young--
	drop(p.gate.youngAddr, p.addr)
}

func drop[K comparable](m map[K]int, k K) {
	if m[k]--; m[k] <= 0 {
		delete(m, k)
	}
}
