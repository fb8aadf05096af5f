package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
)

// An outgoing is a sealed packet and where it goes.
type outgoing struct {
	b  []byte
	to netip.AddrPort
}

// Send seals b for the node to and sends it where that was last authenticated. It never blocks. Packets
// are a best effort: Send returns nil too when the packet was dropped, because this node is offline or the
// queue is full. A peer that this run of the node had no stream with would refuse the packet, or its key
// is not known: the last few wait up to 2 s for a stream that is opened in the background. The only error
// is a b longer than MaxPayload.
func (l *Link) Send(to id.Node, kind byte, b []byte) error {
	if len(b) > MaxPayload {
		return &wire.LimitError{What: "bytes of a packet's payload", Limit: MaxPayload, Got: len(b)}
	}
	if l.isOffline() || l.packets == nil {
		l.counters.unsent.Add(1)
		return nil
	}
	out, ok := l.book.prepare(to)
	if !ok {
		l.counters.unsent.Add(1)
		l.book.hold(to, letter{kind, slices.Clone(b), time.Now()})
		l.wantFetch(to)
		return nil
	}
	select {
	case l.outbox <- outgoing{out.pair.seal(l.self, l.boot, out.counter, kind, b), out.route}:
	default:
		l.counters.unsent.Add(1)
	}
	return nil
}

// sendHeld sends what waited for a stream with n, unless it waited too long. Nobody blocks on it.
func (l *Link) sendHeld(n id.Node, held []letter) {
	for _, h := range held {
		if time.Since(h.at) > heldFor {
			continue
		}
		if err := l.Send(n, h.kind, h.b); err != nil {
			l.cfg.Log.Error("a packet that was held is too long now", "error", err) // Send took it before
		}
	}
}

// transmit writes queued packets until the link ends.
func (l *Link) transmit() error {
	for {
		select {
		case <-l.life.Done():
			return nil
		case p := <-l.outbox:
			if l.isOffline() {
				l.counters.unsent.Add(1)
				continue
			}
			if _, err := l.packets.WriteTo(p.b, net.UDPAddrFromAddrPort(p.to)); err != nil {
				l.counters.unsent.Add(1) // no route just now; whoever sent it counts on loss
				continue
			}
			l.counters.packetsOut.Add(1)
			l.counters.bytesOut.Add(int64(len(p.b)))
		}
	}
}

// receive opens packets and hands them to their handlers until the socket closes.
func (l *Link) receive() error {
	buf := make([]byte, MaxPacket+1)
	for {
		n, from, err := l.packets.ReadFrom(buf)
		at := time.Now()
		switch {
		case err == nil:
			l.packet(buf[:n], addrPort(from), at)
		case l.life.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		default: // an ICMP answer to an earlier packet, or a packet too long for some platforms
			l.counters.malformed.Add(1)
			if !pause(l.life, time.Millisecond) {
				return nil
			}
		}
	}
}

// packet judges one packet. b is the reader's.
func (l *Link) packet(b []byte, from netip.AddrPort, at time.Time) {
	if l.isOffline() {
		return
	}
	h, sealed, err := parseHead(b)
	if err != nil {
		l.counters.malformed.Add(1)
		l.bad.log(l.cfg.Log, "a packet was refused", "from", from, "error", err)
		return
	}
	peer, keys, ok := l.book.sender(h.from)
	if !ok {
		l.counters.unknown.Add(1)
		return
	}
	kind, payload, ok := keys.open(h, sealed)
	if !ok {
		l.counters.forged.Add(1)
		l.bad.log(l.cfg.Log, "a packet was refused", "from", from, "claims", peer.Short(), "error", "its seal is broken")
		return
	}
	switch l.book.receive(peer, h, from, l.cfg.Wall()) {
	case replayed:
		l.counters.replayed.Add(1)
		return
	case unheard:
		l.counters.unheard.Add(1)
		l.wantFetch(peer)
		return
	}
	l.counters.packetsIn.Add(1)
	l.counters.bytesIn.Add(int64(len(b)))
	if handle := l.kinds[kind]; handle != nil {
		handle(peer, payload, at)
	} else {
		l.counters.unheard.Add(1)
	}
}

// wantFetch asks for a stream to n that tells its key, its run and its address; at most one in fetchEvery
// and peer, and dropped when the workers are behind.
func (l *Link) wantFetch(n id.Node) {
	if !l.book.mayFetch(n, time.Now()) {
		return
	}
	select {
	case l.fetches <- n:
	default:
	}
}

// fetch opens the streams that wantFetch asked for until the link ends.
func (l *Link) fetch() error {
	for {
		select {
		case <-l.life.Done():
			return nil
		case n := <-l.fetches:
			ctx, cancel := context.WithTimeout(l.life, handshakeLimit)
			c, err := l.Dial(ctx, n, protoBoot)
			cancel()
			if err != nil {
				l.cfg.Log.Debug("a peer could not be asked for its run", "peer", n.Short(), "error", err)
				continue
			}
			_ = c.Close() // its preface was all
		}
	}
}
