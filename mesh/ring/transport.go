package ring

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/mesh/id"
	"meshd/mesh/link"
	"meshd/mesh/trust"
)

const (
	protoRing  = "meshd/ring/1"
	kindRing   = 'r' // of packets
	kindPing   = 'p' // of packets: the tag, and the number of a ping
	packetWait = 256 // packets and streams that memberlist has not taken yet
	labelMark  = 244 // memberlist's message type of a label header
	maxLabel   = memberlist.LabelMaxSize
)

// A transport carries memberlist over link. Peers are found by name, which spells their id: the addresses of
// the ring are logical. memberlist's header with the label, the same on every packet, is replaced by one
// byte of its hash while under way.
type transport struct {
	link    *link.Link
	self    id.Node
	label   []byte // memberlist's whole header; empty: none
	tag     byte
	packets chan *memberlist.Packet
	streams chan net.Conn
	life    context.Context
	end     context.CancelFunc

	mu     sync.Mutex
	warmed map[id.Node]net.Conn // dialled ahead of a join
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

func newTransport(l *link.Link, self id.Node, label string) *transport {
	t := &transport{
		link: l, self: self,
		packets: make(chan *memberlist.Packet, packetWait), streams: make(chan net.Conn),
		warmed: map[id.Node]net.Conn{},
	}
	sum := sha256.Sum256([]byte(label))
	t.tag = sum[0]
	if label != "" {
		t.label = append([]byte{labelMark, byte(len(label))}, label...)
	}
	t.life, t.end = context.WithCancel(context.Background())
	return t
}

// serve hands a stream to memberlist, which closes it. Aside, nobody wants it.
func (r *Ring) serve(ctx context.Context, _ trust.Cert, c net.Conn) {
	term := r.current()
	if term == nil {
		_ = c.Close() // whoever opened it reads that this node is not in the ring
		return
	}
	t := term.transport
	wait := time.NewTimer(joinLimit)
	defer wait.Stop()
	select {
	case t.streams <- c:
		return
	case <-wait.C: // Run has not begun
	case <-t.life.Done():
	case <-ctx.Done():
	}
	_ = c.Close() // nobody wants it
}

// receive hands a packet to memberlist, or drops it when that is behind.
func (r *Ring) receive(from id.Node, b []byte, at time.Time) {
	if t := r.transportOf(b); t != nil {
		t.deliver(from, b[1:], at)
	}
}

// receivePing is receive for a ping that came as its number.
func (r *Ring) receivePing(from id.Node, b []byte, at time.Time) {
	if t := r.transportOf(b); t != nil {
		if whole, ok := wholePing(b[1:], from, r.self); ok {
			t.deliver(from, whole, at)
		}
	}
}

// transportOf is who takes a packet of this ring; nil where it is of another, or this node is in none.
func (r *Ring) transportOf(b []byte) *transport {
	term := r.current()
	if term == nil || len(b) < 1 || b[0] != term.transport.tag {
		return nil
	}
	return term.transport
}

func (t *transport) deliver(from id.Node, b []byte, at time.Time) {
	b = append(t.label[:len(t.label):len(t.label)], b...)
	p := &memberlist.Packet{Buf: b, From: &net.UDPAddr{IP: logicalIP(from), Port: logicalPort}, Timestamp: at}
	select {
	case t.packets <- p:
	default:
	}
}

// WriteToAddress sends a packet. What it cannot send is lost, not an error: memberlist stops suspecting a
// peer after an error.
func (t *transport) WriteToAddress(b []byte, to memberlist.Address) (time.Time, error) {
	n, err := parseName(to.Name)
	if err != nil {
		return time.Time{}, fmt.Errorf("packet to %s: %w", to.Addr, err)
	}
	rest, ok := bytes.CutPrefix(b, t.label)
	if !ok {
		return time.Time{}, fmt.Errorf("packet to %s: it has no label", to.Addr)
	}
	kind := byte(kindRing)
	if number, ok := shortPing(rest, t.self, n); ok {
		kind, rest = kindPing, number
	}
	out := append(append(make([]byte, 0, 1+len(rest)), t.tag), rest...)
	if err := t.link.Send(n, kind, out); err != nil {
		return time.Time{}, fmt.Errorf("packet to %s: %w", n.Short(), err)
	}
	return time.Now(), nil
}

// DialAddressTimeout opens a stream to a member, or takes the one that was dialled ahead.
func (t *transport) DialAddressTimeout(to memberlist.Address, timeout time.Duration) (net.Conn, error) {
	n, err := parseName(to.Name)
	if err != nil {
		return nil, fmt.Errorf("stream to %s: %w", to.Addr, err)
	}
	t.mu.Lock()
	c := t.warmed[n]
	delete(t.warmed, n)
	t.mu.Unlock()
	if c != nil {
		return c, nil
	}
	ctx, cancel := context.WithTimeout(t.life, timeout)
	defer cancel()
	return t.link.Dial(ctx, n, protoRing)
}

// warm dials all peers at once and keeps the streams for the join that follows. The error is one of those
// who did not answer.
func (t *transport) warm(ctx context.Context, peers []id.Node) (reached []id.Node, err error) {
	ctx, cancel := context.WithTimeout(ctx, warmLimit)
	defer cancel()
	stop := context.AfterFunc(t.life, cancel)
	defer stop()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for _, n := range peers {
		if n == t.self {
			continue
		}
		wg.Go(func() {
			c, dialErr := t.link.Dial(ctx, n, protoRing)
			mu.Lock()
			defer mu.Unlock()
			if dialErr != nil {
				err = dialErr
				return
			}
			reached = append(reached, n)
			t.mu.Lock()
			old := t.warmed[n]
			t.warmed[n] = c
			t.mu.Unlock()
			if old != nil {
				_ = old.Close() // of another Join at the same time
			}
		})
	}
	wg.Wait()
	if len(reached) == 0 && err == nil {
		err = errors.New("no peer was named")
	}
	return reached, err
}

// cool closes what a join left over.
func (t *transport) cool(peers []id.Node) {
	for _, n := range peers {
		t.mu.Lock()
		c := t.warmed[n]
		delete(t.warmed, n)
		t.mu.Unlock()
		if c != nil {
			_ = c.Close() // nothing was said on it
		}
	}
}

// Shutdown ends dials under way; streams that memberlist has are its own.
func (t *transport) Shutdown() error {
	t.end()
	return nil
}

// FinalAdvertiseAddr returns the logical address, whatever is configured.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return logicalIP(t.self), logicalPort, nil
}

func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }
func (t *transport) StreamCh() <-chan net.Conn           { return t.streams }

// WriteTo and DialTimeout are for transports that know no names; memberlist does not call them here.
func (t *transport) WriteTo(_ []byte, addr string) (time.Time, error) {
	return time.Time{}, fmt.Errorf("packet to %s: a member is addressed by name", addr)
}

func (t *transport) DialTimeout(addr string, _ time.Duration) (net.Conn, error) {
	return nil, fmt.Errorf("stream to %s: a member is addressed by name", addr)
}
