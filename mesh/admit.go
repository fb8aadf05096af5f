package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"errors"
	"fmt"
	"net"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/link"
	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

const (
	clockSlack   = time.Hour // a leaf begins this long before its issue: clocks differ
	admitTimeout = 10 * time.Second
)

const (
	frameJoin  = 1
	frameReply = 2
)

// ErrRefused wraps the reason for which a sponsor refused a token.
var ErrRefused = errors.New("the sponsor refused")

// serveAdmit speaks with one that has no certificate yet, only a key that TLS has proven.
func (m *Mesh) serveAdmit(_ context.Context, key ed25519.PublicKey, c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(admitTimeout))
	reply, err := m.admit(key, c)
	if err != nil {
		m.cfg.Log.Warn("admission refused", "key", id.FromKey(key).Short(), "from", c.RemoteAddr(), "reason", err)
		reply = trust.JoinReply{Refused: err.Error()}
	}
	b, err := reply.Encode()
	if err != nil {
		m.cfg.Log.Error("admission reply", "error", err)
		return
	}
	_ = wire.WriteFrame(c, frameReply, b) // the joiner tries again when it did not hear
}

func (m *Mesh) admit(key ed25519.PublicKey, c net.Conn) (trust.JoinReply, error) {
	kind, body, err := wire.ReadFrame(c, trust.MaxJoinRequest)
	if err != nil {
		return trust.JoinReply{}, err
	}
	if kind != frameJoin {
		return trust.JoinReply{}, fmt.Errorf("frame kind %d where a join request belongs", kind)
	}
	req, err := trust.ParseJoinRequest(body)
	if err != nil {
		return trust.JoinReply{}, err
	}
	if !key.Equal(req.Key) {
		return trust.JoinReply{}, errors.New("the request names another key than the connection proved")
	}
	exporter, err := link.Exporter(c)
	if err != nil {
		return trust.JoinReply{}, err
	}
	return m.redeem(req, exporter)
}

// redeem counts one use and issues the certificate. The use is durable before the certificate is told; a
// joiner that asks again with the same key and token gets its certificate again, so that a lost reply costs nothing.
func (m *Mesh) redeem(req trust.JoinRequest, exporter []byte) (trust.JoinReply, error) {
	m.invites.mu.Lock()
	defer m.invites.mu.Unlock()
	now := m.cfg.Wall()
	o, known := m.invites.open[req.Invite]
	if !known {
		return trust.JoinReply{}, errors.New("this token is unknown here: it was used up, expired long ago, or another node made it; ask for a new one with meshctl invite")
	}
	proof := trust.Invite{ID: o.ID, Secret: o.Secret}.Proof(exporter)
	if !hmac.Equal(proof[:], req.Proof[:]) {
		return trust.JoinReply{}, errors.New("the token's secret is wrong: it was changed on its way; copy it again")
	}
	if m.catalog.Revoked(req.Key) {
		return trust.JoinReply{}, errors.New("this node's key was revoked; start it with a new data dir and a new token")
	}
	if now.Unix() > o.Expires {
		return trust.JoinReply{}, fmt.Errorf("the token expired %s ago; ask for a new one with meshctl invite", now.Sub(time.Unix(o.Expires, 0)).Round(time.Second))
	}
	again := m.redeemedBefore(o.ID, req.Key)
	if o.Uses <= 0 && !again {
		return trust.JoinReply{}, errors.New("the token was used already; ask for a new one with meshctl invite")
	}
	name := req.Name
	if o.Name != "" {
		name = o.Name
	}
	if err := m.nameFree(name, o.Replace, req.Key); err != nil {
		return trust.JoinReply{}, err
	}
	if holder := m.holderOf(name); holder != nil && o.Replace && !holder.Key.Equal(req.Key) {
		if err := m.revoke(holder, "replaced"); err != nil {
			return trust.JoinReply{}, err
		}
	}
	if !again {
		o.Uses--
		if err := m.invites.put(o); err != nil {
			return trust.JoinReply{}, err
		}
	}
	chain, err := m.cfg.Charter.Issue(m.cfg.Identity, req.Key, req.Box, o.Name, o.Tags, newSerial(), now.Add(-clockSlack), now.Add(trust.LeafLife))
	if err != nil {
		return trust.JoinReply{}, err
	}
	if !again {
		s := trust.Statement{Kind: trust.Admission, Subject: req.Key, Name: o.Name, Invite: o.ID, At: now, By: m.self}
		if err := m.publishStatement(s); err != nil {
			return trust.JoinReply{}, err
		}
	}
	m.cfg.Log.Info("node admitted", "node", id.FromKey(req.Key).Short(), "name", name)
	return trust.JoinReply{Charter: m.cfg.Charter.Encode(), Chain: chain}, nil
}
