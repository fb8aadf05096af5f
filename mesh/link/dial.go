package link

import (
	"context"
	"crypto/ed25519"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/trust"
)

// Dial opens a stream of proto to the node to: first where it was last authenticated, then where the peer
// book says; the next address starts 250 ms after the last, and the first that answers as that node wins.
// A leaf that is attached here is asked to open it instead: see Through.
// It returns once the far end took the stream. The error wraps ErrUnreachable and lists what was tried,
// or is ErrOffline.
func (l *Link) Dial(ctx context.Context, to id.Node, proto string) (net.Conn, error) {
	if err := l.begin(); err != nil {
		return nil, fmt.Errorf("dial node %s for %s: %w", to, proto, err)
	}
	defer l.started.Done()
	if call := l.way(to); call != nil {
		c, err := l.callBack(ctx, to, call, proto)
		if err != nil {
			return nil, fmt.Errorf("dial node %s for %s: %w: %v", to, proto, ErrUnreachable, err)
		}
		return c, nil
	}
	addrs := l.book.addresses(to)
	if len(addrs) == 0 {
		return nil, fmt.Errorf("dial node %s for %s: %w: the peer book has no address of it", to, proto, ErrUnreachable)
	}
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	stop := context.AfterFunc(l.life, cancel)
	defer stop()
	c, err := l.race(ctx, to, addrs, proto)
	if err != nil {
		return nil, fmt.Errorf("dial node %s for %s: %w: %v", to, proto, ErrUnreachable, err)
	}
	return c, nil
}

// race dials the addresses in order, each a little after the one before, and returns the first success
// after all attempts have ended.
func (l *Link) race(ctx context.Context, to id.Node, addrs []string, proto string) (*Conn, error) {
	type result struct {
		addr string
		conn *Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(addrs))
	timer := time.NewTimer(0)
	defer timer.Stop()
	var won *Conn
	var tried []string
	begun, ended := 0, 0
	for ended < begun || (won == nil && begun < len(addrs) && ctx.Err() == nil) {
		next := timer.C
		if won != nil || begun == len(addrs) || ctx.Err() != nil {
			next = nil
		}
		select {
		case <-next:
			addr := addrs[begun]
			begun++
			go func() {
				c, _, err := l.attempt(ctx, addr, proto, to)
				results <- result{addr, c, err}
			}()
			timer.Reset(nextAddressWait)
		case r := <-results:
			ended++
			switch {
			case r.err != nil:
				tried = append(tried, fmt.Sprintf("%s: %v", r.addr, r.err))
				timer.Reset(0)
			case won == nil:
				won = r.conn
				cancel()
			default:
				r.conn.abandon()
			}
		}
	}
	if won == nil {
		if len(tried) == 0 {
			return nil, ctx.Err()
		}
		return nil, errors.New(strings.Join(tried, "; "))
	}
	return won, nil
}

// DialAddr opens a stream of proto to whichever node of the mesh answers at HOST:PORT (a seed) and returns
// its certificate.
func (l *Link) DialAddr(ctx context.Context, addr string, proto string) (net.Conn, *trust.Cert, error) {
	if err := l.begin(); err != nil {
		return nil, nil, fmt.Errorf("dial %s for %s: %w", addr, proto, err)
	}
	defer l.started.Done()
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	stop := context.AfterFunc(l.life, cancel)
	defer stop()
	c, cert, err := l.attempt(ctx, addr, proto, id.Node{})
	if err != nil {
		return nil, nil, fmt.Errorf("dial %s for %s: %w", addr, proto, err)
	}
	return c, cert, nil
}

// attempt opens a stream at one address; want is who must answer, zero for any node of the mesh.
func (l *Link) attempt(ctx context.Context, addr, proto string, want id.Node) (*Conn, *trust.Cert, error) {
	dialCtx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	raw, err := l.cfg.Network.Dial(dialCtx, addr)
	if err != nil {
		return nil, nil, err
	}
	c, err := l.register(raw, nil)
	if err != nil {
		_ = raw.Close() // nothing was said on it
		return nil, nil, err
	}
	cert, err := l.greet(dialCtx, c, proto, want)
	if err != nil {
		c.abandon()
		return nil, nil, err
	}
	return c, cert, nil
}

// greet shakes hands with the far end of a stream that this node opened.
func (l *Link) greet(ctx context.Context, c *Conn, proto string, want id.Node) (*trust.Cert, error) {
	var cert *trust.Cert
	config := tlsConfig(*l.cert.Load(), l.cfg.Wall, []string{proto}, func(s tls.ConnectionState) (err error) {
		if cert, err = l.verifyMember(s); err != nil {
			return err
		}
		return checkPeer(s, cert.ID, want, l.self, proto)
	})
	if err := c.raw.SetDeadline(time.Now().Add(handshakeLimit)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.raw.Close() })
	defer stop()
	c.Conn = tls.Client(c.out, config)
	if err := c.Handshake(); err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if err := c.identify(cert); err != nil {
		return nil, err
	}
	// A far end that refused this node has closed the stream: why, is in what it sent before.
	unsaid := writePreface(c, l.preface(cert))
	heard, err := readPreface(c)
	if err == nil && unsaid != nil {
		err = fmt.Errorf("write the preface: %w", unsaid)
	}
	if err != nil {
		return nil, err
	}
	if heard.Refused != "" {
		return nil, fmt.Errorf("node %s refuses: %q", cert.ID, heard.Refused)
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err := c.raw.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	if !c.relayed {
		l.sendHeld(cert.ID, l.book.met(cert, heard, addrPort(c.raw.RemoteAddr()), true))
	}
	return cert, nil
}

// checkPeer judges who answered and what was agreed on.
func checkPeer(s tls.ConnectionState, got, want, self id.Node, proto string) error {
	switch {
	case s.NegotiatedProtocol != proto:
		return fmt.Errorf("the far end does not speak %s", proto)
	case got == self:
		return errors.New("this node itself answers there")
	case !want.IsZero() && got != want:
		return fmt.Errorf("node %s answers there, want %s", got, want)
	}
	return nil
}

// DialGuest opens a stream of proto to the sponsor that an invite names, for a node that has a key and no
// certificate or charter yet. The far end proved by TLS that it holds the sponsor's key; nothing else is
// known of it.
func DialGuest(ctx context.Context, n Network, self *trust.Identity, addr string, sponsor id.Node, proto string) (*tls.Conn, error) {
	cert, err := guestCertificate(self.Key)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	raw, err := n.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial sponsor %s at %s: %w", sponsor.Short(), addr, err)
	}
	config := tlsConfig(cert, nil, []string{proto}, func(s tls.ConnectionState) error {
		key, err := guestKey(s)
		if err != nil {
			return err
		}
		return checkPeer(s, id.FromKey(key), sponsor, id.Node{}, proto)
	})
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // there is an error to report already
		return nil, fmt.Errorf("dial sponsor %s at %s: handshake: %w", sponsor.Short(), addr, err)
	}
	return c, nil
}

// guestCertificate wraps a bare key for TLS, which knows no other way to show one. It attests nothing.
func guestCertificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0), NotAfter: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(crand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("wrap the node's key for TLS: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
