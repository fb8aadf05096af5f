package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// ReachBack dials whoever opened c, the other way round: at the address that c comes from and the port that
// its preface named, and at the addresses that the preface advertised. It dials nowhere else, so that asking
// for it sends this node to no stranger; whoever answers must prove to be the same node. c is a stream that a
// handler of members was given. nil says that the peer listens, and that packets will go where it does.
func (l *Link) ReachBack(ctx context.Context, c net.Conn) error {
	conn, ok := c.(*Conn)
	if !ok || conn.pass == nil || conn.peer.IsZero() {
		return errors.New("reach back: not a stream that a member opened")
	}
	if err := l.begin(); err != nil {
		return fmt.Errorf("reach node %s back: %w", conn.peer, err)
	}
	defer l.started.Done()
	addrs := backAddrs(addrPort(conn.raw.RemoteAddr()).Addr(), conn.told)
	if len(addrs) == 0 {
		return fmt.Errorf("reach node %s back: %w: it listens nowhere", conn.peer, ErrUnreachable)
	}
	stop := context.AfterFunc(l.life, func() { _ = conn.raw.Close() })
	defer stop()
	back, err := l.race(ctx, conn.peer, addrs, protoBoot)
	if err != nil {
		return fmt.Errorf("reach node %s back: %w: %v", conn.peer, ErrUnreachable, err)
	}
	_ = back.Close() // its preface was all
	return nil
}

// backAddrs is where a peer may be dialled back that was seen at from and told p.
func backAddrs(from netip.Addr, p preface) []string {
	if p.Port == 0 {
		return nil
	}
	out := []string{netip.AddrPortFrom(from, p.Port).String()}
	for _, a := range p.Addrs {
		if goodAddr(a) && !slices.Contains(out, a) && len(out) <= prefaceAddrs {
			out = append(out, a)
		}
	}
	return out
}
