package link

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/trust"
)

// A leaf only dials out. A node that has a stream of the leaf open can ask it, on that stream, to open another
// one for a protocol that this node wants to speak: Dial does so by itself once Through said how to ask. The
// leaf's stream begins with the token that it was given; from then on the ends are those of a stream that
// Dial opened.
const protoBack = "meshd/back/1"

// A callToken finds the Dial that waits for a stream.
type callToken = [16]byte

const (
	callLimit  = 5 * time.Second // for a leaf to open the stream that it was asked for
	maxCalls   = 256             // of all leaves, that wait
	maxAnswers = 32              // streams that a leaf opens at once because it was asked to
)

// A waiter is a Dial that waits for a leaf.
type waiter struct {
	peer id.Node
	got  chan *Conn // capacity 1
}

// Through has Dial to n ask call for a stream, in place of dialling, until undo is called. call must not block;
// it gets a token and the protocol for Answer at n.
func (l *Link) Through(n id.Node, call func(token [16]byte, proto string) error) (undo func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	way := &call
	l.ways[n] = way
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.ways[n] == way {
			delete(l.ways, n)
		}
	}
}

// way returns how n is asked for streams; nil: it is dialled.
func (l *Link) way(n id.Node) func(callToken, string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if way := l.ways[n]; way != nil {
		return *way
	}
	return nil
}

// callBack asks a leaf for a stream of proto and waits for it.
func (l *Link) callBack(ctx context.Context, to id.Node, call func(callToken, string) error, proto string) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	var token callToken
	_, _ = crand.Read(token[:]) // never fails
	w := &waiter{to, make(chan *Conn, 1)}
	l.mu.Lock()
	if len(l.calls) >= maxCalls {
		l.mu.Unlock()
		return nil, fmt.Errorf("%d streams of leaves are waited for, the limit", maxCalls)
	}
	l.calls[token] = w
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.calls, token)
		l.mu.Unlock()
		select {
		case c := <-w.got: // it came as the wait ended
			_ = c.Close()
		default:
		}
	}()
	if err := call(token, proto); err != nil {
		return nil, err
	}
	select {
	case c := <-w.got:
		return c, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the leaf opens no stream: %w", ctx.Err())
	}
}

// serveBack gives a stream that a leaf was asked for to the Dial that waits.
func (l *Link) serveBack(_ context.Context, peer trust.Cert, c net.Conn) {
	var token callToken
	_ = c.SetReadDeadline(time.Now().Add(callLimit))
	_, err := io.ReadFull(c, token[:])
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	conn, ok := c.(*Conn)
	if err != nil || !ok {
		_ = c.Close()
		return
	}
	l.mu.Lock()
	w := l.calls[token]
	if w != nil && w.peer == peer.ID {
		delete(l.calls, token)
		w.got <- conn // room: a token serves once
	} else {
		w = nil
	}
	l.mu.Unlock()
	if w == nil {
		l.bad.log(l.cfg.Log, "a stream was refused", "from", peer.ID.Short(), "error", "nobody asked for it, or it is late")
		_ = c.Close()
	}
}

// Answer opens the stream of proto that the node at asked for with a token, and serves it as if at had opened
// it. It returns once the stream is served, or can't be.
func (l *Link) Answer(ctx context.Context, at id.Node, token [16]byte, proto string) error {
	handle := l.members[proto]
	if handle == nil || proto == protoBack || proto == ProtoRelay {
		return fmt.Errorf("node %s asks for a stream of %q, which is not served here", at.Short(), proto)
	}
	c, err := l.openBack(ctx, at, token)
	if err != nil {
		return err
	}
	peer, known := l.Peer(at)
	if !known || peer.Cert == nil {
		err = errors.New("its certificate is gone from the peer book")
	} else {
		err = l.begin()
	}
	if err != nil {
		_ = c.Close()
		return fmt.Errorf("open a stream that node %s asked for: %w", at.Short(), err)
	}
	go func() {
		defer l.started.Done()
		handle(l.life, *peer.Cert, c)
	}()
	return nil
}

// openBack opens the stream that the node at asked for with a token.
func (l *Link) openBack(ctx context.Context, at id.Node, token [16]byte) (net.Conn, error) {
	l.mu.Lock()
	if l.answers >= maxAnswers {
		l.mu.Unlock()
		return nil, fmt.Errorf("node %s asks for a stream: %d at once are the limit", at.Short(), maxAnswers)
	}
	l.answers++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.answers--
		l.mu.Unlock()
	}()
	c, err := l.Dial(ctx, at, protoBack)
	if err != nil {
		return nil, err
	}
	_ = c.SetWriteDeadline(time.Now().Add(callLimit))
	_, err = c.Write(token[:])
	if err == nil {
		err = c.SetWriteDeadline(time.Time{})
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("open a stream that node %s asked for: %w", at.Short(), err)
	}
	return c, nil
}

// Quiet has the system probe a stream of link after it was idle for so long, as rarely as a phone can bear; the far end's
// death is noticed within seconds of the next word that is said on it.
func Quiet(c net.Conn, idle time.Duration) {
	conn, ok := c.(*Conn)
	if !ok {
		return
	}
	if tcp, ok := conn.raw.(*net.TCPConn); ok {
		// Where it can't be set the system's own pace stays: dearer, and as right.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: idle, Interval: quietProbe, Count: 3})
		_ = giveUp(tcp, silentLimit)
	}
}

const (
	quietProbe = 10 * time.Second // between probes, once there was no answer

	// For what was sent on such a stream to arrive: after a longer cut the system would send it again only when as much
	// time again has passed.
	silentLimit = 6 * time.Second
)
