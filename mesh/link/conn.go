package link

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/trust"
)

// A Conn is one verified stream of a Link. It is a net.Conn; SetOffline, DropRevoked and the end of the
// Link close it under its owner.
type Conn struct {
	*tls.Conn
	link *Link
	raw  net.Conn
	out  *gather // raw, as TLS sees it
	pass *pass   // nil on the side that dialled
	once sync.Once

	relayed bool // raw is a stream with another node, that passes bytes on: its address is not the peer's

	// key and peer are set before the stream is handed out and guarded by link.mu until then.
	key  ed25519.PublicKey
	peer id.Node

	told preface // by the peer, on the side that did not dial

	heard atomic.Int64 // when bytes last came, in nanoseconds since link.began
}

// Read reads from the stream and notes that the peer is there.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.heard.Store(int64(time.Since(c.link.began)))
	}
	return n, err
}

// LastHeard is when bytes of the peer were last read, by the clock of package time; never before the Link was
// made.
func (c *Conn) LastHeard() time.Time { return c.link.began.Add(time.Duration(c.heard.Load())) }

// register makes raw one of the link's, so that whatever closes the link closes it.
func (l *Link) register(raw net.Conn, p *pass) (*Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := &Conn{link: l, raw: raw, out: newGather(raw, &l.spare), pass: p}
	switch {
	case l.closed:
		return nil, fmt.Errorf("link: %w", net.ErrClosed)
	case l.offline:
		return nil, ErrOffline
	}
	l.conns[c] = struct{}{}
	return c, nil
}

// Close ends the stream. It waits at most 5 s for the far end to take the goodbye.
func (c *Conn) Close() error {
	var err error
	if c.Conn != nil {
		err = c.Conn.Close()
	} else {
		err = c.raw.Close()
	}
	c.once.Do(func() {
		c.link.mu.Lock()
		delete(c.link.conns, c)
		c.link.mu.Unlock()
		if c.pass != nil {
			c.pass.leave()
		}
	})
	return err
}

// abandon closes a stream whose handshake failed.
func (c *Conn) abandon() {
	_ = c.raw.Close() // there is an error to report already
	_ = c.Close()
}

// identify says whose stream it is. A key that was revoked since the handshake looked is refused here:
// from now on DropRevoked finds the stream.
func (c *Conn) identify(cert *trust.Cert) error {
	c.link.mu.Lock()
	c.key, c.peer = cert.Key, cert.ID
	c.link.mu.Unlock()
	if c.link.revoked(cert.Key) {
		return fmt.Errorf("node %s: its key is revoked", cert.ID)
	}
	return nil
}

// exporterLabel binds what is derived from a handshake to this use of it (RFC 5705).
const exporterLabel = "EXPORTER-meshd-admission-1"

// Exporter returns 32 bytes that both ends of the stream c, and nobody else, derive from its handshake.
func Exporter(c net.Conn) ([]byte, error) {
	s, ok := c.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil, fmt.Errorf("export key material: %T is no TLS stream", c)
	}
	state := s.ConnectionState()
	return state.ExportKeyingMaterial(exporterLabel, nil, 32)
}

// tlsConfig is the common part of both ends. Trust is decided in VerifyConnection alone: it is called on
// every handshake, and there is no resumption that could skip a later revocation.
func tlsConfig(cert tls.Certificate, wall func() time.Time, protos []string, verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS13,
		Certificates:           []tls.Certificate{cert},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // names mean nothing here; verify decides
		SessionTicketsDisabled: true,
		NextProtos:             protos,
		Time:                   wall,
		VerifyConnection:       verify,
	}
}

// verifyMember returns the certificate of a far end that the charter vouches for.
func (l *Link) verifyMember(s tls.ConnectionState) (*trust.Cert, error) {
	chain := make([][]byte, len(s.PeerCertificates))
	for i, c := range s.PeerCertificates {
		chain[i] = c.Raw
	}
	cert, err := l.cfg.Charter.VerifyChain(chain)
	if err != nil {
		return nil, err
	}
	if err := cert.Usable(l.cfg.Wall()); err != nil {
		return nil, err
	}
	if l.revoked(cert.Key) {
		return nil, fmt.Errorf("node %s: its key is revoked", cert.ID)
	}
	return cert, nil
}

func (l *Link) revoked(key ed25519.PublicKey) bool { return l.cfg.Revoked != nil && l.cfg.Revoked(key) }

// guestKey returns the key that a far end proved to hold.
func guestKey(s tls.ConnectionState) (ed25519.PublicKey, error) {
	if len(s.PeerCertificates) == 0 {
		return nil, errors.New("the far end showed no key")
	}
	key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the far end's key is %s, want Ed25519", s.PeerCertificates[0].PublicKeyAlgorithm)
	}
	return key, nil
}

// accept takes streams until the listener closes.
func (l *Link) accept() error {
	for {
		raw, err := l.listener.Accept()
		switch {
		case err == nil:
		case l.life.Err() != nil || errors.Is(err, net.ErrClosed):
			return nil
		default: // out of descriptors, or a stream that died in the backlog
			l.bad.log(l.cfg.Log, "a stream could not be accepted", "error", err)
			if !pause(l.life, acceptPause) {
				return nil
			}
			continue
		}
		c, err := l.enter(raw)
		if err != nil {
			l.counters.streamsRefused.Add(1)
			_ = raw.Close() // nothing was said on it
			continue
		}
		go func() {
			defer l.started.Done()
			l.serveAll(c, l.protos())
		}()
	}
}

// serveAll is serve, and ends what was not served.
func (l *Link) serveAll(c *Conn, protos []string) {
	if err := l.serve(c, protos); err != nil {
		c.abandon()
		l.counters.streamsFailed.Add(1)
		if l.life.Err() == nil {
			l.bad.log(l.cfg.Log, "a stream was refused", "from", c.raw.RemoteAddr(), "error", err)
		}
	}
}

// enter takes in a stream that somebody opened, if there is room for it.
func (l *Link) enter(raw net.Conn) (*Conn, error) {
	if err := l.begin(); err != nil {
		return nil, err
	}
	p := l.gate.enter(addrPort(raw.RemoteAddr()).Addr())
	if p == nil {
		l.started.Done()
		return nil, errors.New("too many streams")
	}
	c, err := l.register(raw, p)
	if err != nil {
		p.leave()
		l.started.Done()
		return nil, err
	}
	return c, nil
}

// serve shakes hands with whoever opened c and runs the handler of what they agreed on, one of protos. The error is of
// the time before the handler.
func (l *Link) serve(c *Conn, protos []string) error {
	var cert *trust.Cert
	var guest ed25519.PublicKey
	config := tlsConfig(*l.cert.Load(), l.cfg.Wall, protos, func(s tls.ConnectionState) (err error) {
		switch {
		case l.guests[s.NegotiatedProtocol] != nil:
			if guest, err = guestKey(s); err == nil && l.revoked(guest) {
				err = fmt.Errorf("node %s: its key is revoked", id.FromKey(guest))
			}
		case l.members[s.NegotiatedProtocol] != nil:
			cert, err = l.verifyMember(s)
		default:
			err = errors.New("no protocol was asked for")
		}
		return err
	})
	if err := c.raw.SetDeadline(time.Now().Add(handshakeLimit)); err != nil {
		return err
	}
	c.Conn = tls.Server(c.out, config)
	if err := c.Handshake(); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	proto := c.ConnectionState().NegotiatedProtocol
	if guest != nil {
		if !c.pass.prove(id.Node{}) {
			return fmt.Errorf("%d guests at once are the limit", maxConnsPerPeer)
		}
		if err := c.raw.SetDeadline(time.Time{}); err != nil {
			return err
		}
		l.guests[proto](l.life, guest, c)
		return nil
	}
	if err := c.identify(cert); err != nil {
		return err
	}
	heard, err := readPreface(c)
	if err != nil {
		return fmt.Errorf("node %s: %w", cert.ID, err)
	}
	c.told = heard
	own := l.preface(cert)
	if !c.pass.prove(cert.ID) {
		own.Refused = fmt.Sprintf("%d streams of one node are the limit", maxConnsPerPeer)
	}
	if own.Refused == "" && !c.relayed {
		// Before the answer: with that the far end may begin to send packets.
		l.book.met(cert, heard, addrPort(c.raw.RemoteAddr()), false)
	}
	if err := writePreface(c, own); err != nil {
		return fmt.Errorf("node %s: write the preface: %w", cert.ID, err)
	}
	if own.Refused != "" {
		return fmt.Errorf("node %s: %s", cert.ID, own.Refused)
	}
	if err := c.raw.SetDeadline(time.Time{}); err != nil {
		return err
	}
	l.members[proto](l.life, *cert, c)
	return nil
}

func (l *Link) protos() []string {
	var out []string
	for p := range l.members {
		out = append(out, p)
	}
	for p := range l.guests {
		out = append(out, p)
	}
	return out
}

// advertise is what the settings say of where this node is reached; nothing where it listens nowhere.
func (l *Link) advertise() []string {
	if l.listener == nil {
		return nil
	}
	return l.cfg.Advertise
}

// preface is what this node says first on a stream with the peer of cert.
func (l *Link) preface(cert *trust.Cert) preface {
	return preface{Boot: l.boot, Sent: l.book.sent(cert), Port: l.bound.Port(), Addrs: l.advertise()}
}

// pause waits for d and reports whether ctx still goes on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
