package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/trust"
)

// ProtoRelay is what a leaf is asked for where it is to answer with AnswerRelay.
//
// Only an attach point has a way to a leaf. Who else wants a stream with it asks the point for a relay: the point has the
// leaf open a stream, and from then on passes bytes both ways. In it the asker dials the leaf as always: TLS with both
// certificates, then prefaces. So each end judges the other itself; the point can cut the stream, and neither read it,
// nor change it, nor speak in anybody's name.
//
//	asker -> point   id of the leaf, 16 bytes
//	point -> asker   one byte: joined, or why not
const ProtoRelay = "meshd/relay/1"

// What a point answers.
const (
	relayJoined byte = 1
	relayAway   byte = 2 // the leaf is not attached here
	relayFull   byte = 3 // the limits below
	relaySilent byte = 4 // it is, and opens no stream
)

// Limits of a point.
const (
	maxRelays     = 32               // at once
	maxRelaysEach = 4                // for one asker, and to one leaf
	relayLimit    = 15 * time.Second // for all that is said on one
	relayBytes    = 4 << 20          // each way
)

// A relayed is who speaks with whom through this point.
type relayed struct{ asker, leaf id.Node }

// serveRelay joins a member with a leaf that is attached here, until one of them ends it.
func (l *Link) serveRelay(ctx context.Context, peer trust.Cert, c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(relayLimit))
	var leaf id.Node
	if _, err := io.ReadFull(c, leaf[:]); err != nil {
		return
	}
	r := relayed{peer.ID, leaf}
	far, answer := l.join(ctx, r)
	if far != nil {
		defer l.part(r)
		defer func() { _ = far.Close() }()
		_ = far.SetDeadline(time.Now().Add(relayLimit))
	}
	if _, err := c.Write([]byte{answer}); err != nil || far == nil {
		return
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		carry(far, c)
	}()
	carry(c, far)
	<-ended
}

// carry passes bytes on until from ends, or the limit; then neither end is of use to the other.
func carry(to, from net.Conn) {
	_, _ = io.CopyN(to, from, relayBytes) // both ends see that it ended
	_ = to.Close()
	_ = from.Close()
}

// join has a leaf open a stream for r. Whoever gets one calls part.
func (l *Link) join(ctx context.Context, r relayed) (*Conn, byte) {
	call := l.way(r.leaf)
	if call == nil {
		return nil, relayAway
	}
	l.mu.Lock()
	all, alike := 0, 0
	for other, n := range l.relays {
		all += n
		if other.asker == r.asker || other.leaf == r.leaf {
			alike += n
		}
	}
	if all >= maxRelays || alike >= maxRelaysEach {
		l.mu.Unlock()
		return nil, relayFull
	}
	l.relays[r]++
	l.mu.Unlock()
	c, err := l.callBack(ctx, r.leaf, call, ProtoRelay)
	if err != nil {
		l.part(r)
		return nil, relaySilent
	}
	return c, relayJoined
}

func (l *Link) part(r relayed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.relays[r]--; l.relays[r] == 0 {
		delete(l.relays, r)
	}
}

// DialThrough opens a stream of proto to a leaf that is attached to the node at; see ProtoRelay. The leaf's AnswerRelay
// says which protocols it speaks there. It returns as Dial does.
func (l *Link) DialThrough(ctx context.Context, at, to id.Node, proto string) (net.Conn, error) {
	c, err := l.dialThrough(ctx, at, to, proto)
	if err != nil {
		return nil, fmt.Errorf("dial leaf %s for %s through node %s: %w: %v", to, proto, at.Short(), ErrUnreachable, err)
	}
	return c, nil
}

func (l *Link) dialThrough(ctx context.Context, at, to id.Node, proto string) (*Conn, error) {
	if err := l.begin(); err != nil {
		return nil, err
	}
	defer l.started.Done()
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	stop := context.AfterFunc(l.life, cancel)
	defer stop()
	outer, err := l.Dial(ctx, at, ProtoRelay)
	if err != nil {
		return nil, err
	}
	if err := askRelay(ctx, outer, to); err != nil {
		_ = outer.Close()
		return nil, err
	}
	c, err := l.register(outer, nil)
	if err != nil {
		_ = outer.Close()
		return nil, err
	}
	c.relayed = true
	if _, err := l.greet(ctx, c, proto, to); err != nil {
		c.abandon()
		return nil, err
	}
	return c, nil
}

// askRelay has the point at the other end of c join it with a leaf.
func askRelay(ctx context.Context, c net.Conn, leaf id.Node) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := c.Write(leaf[:]); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := io.ReadFull(c, answer[:]); err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	switch answer[0] {
	case relayJoined:
		return nil
	case relayAway:
		return errors.New("the leaf is not attached there now")
	case relayFull:
		return fmt.Errorf("too many ask at once there (limits: %d, %d of one node or to one leaf)", maxRelays, maxRelaysEach)
	case relaySilent:
		return errors.New("the leaf opens no stream to it")
	}
	return fmt.Errorf("it answers %d, which means nothing", answer[0])
}

// AnswerRelay opens the stream that the point at asked for with a token, and serves whoever dials this leaf through it,
// for proto alone. It returns once the stream is there.
func (l *Link) AnswerRelay(ctx context.Context, at id.Node, token [16]byte, proto string) error {
	outer, err := l.openBack(ctx, at, token)
	if err != nil {
		return err
	}
	c, err := l.enter(outer)
	if err != nil {
		_ = outer.Close()
		return fmt.Errorf("serve a stream through node %s: %w", at.Short(), err)
	}
	c.relayed = true
	go func() {
		defer l.started.Done()
		l.serveAll(c, []string{proto})
	}()
	return nil
}
