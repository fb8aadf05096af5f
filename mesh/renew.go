package mesh

import (
	"context"
	"fmt"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/trust"
)

// answerRenew issues the peer's name and tags anew: only revocation blocks it, and a revoked key does not get here.
func (m *Mesh) answerRenew(peer trust.Cert) Answer {
	if !m.cfg.Charter.IsSponsor(m.self) {
		return Answer{Problem: "not a sponsor"}
	}
	chain, err := m.renewed(&peer)
	if err != nil {
		return Answer{Problem: err.Error()}
	}
	return Answer{Chain: chain}
}

func (m *Mesh) renewed(c *trust.Cert) ([][]byte, error) {
	now := m.cfg.Wall()
	return m.cfg.Charter.Issue(m.cfg.Identity, c.Key, c.Box, c.Name, c.Tags, newSerial(), now.Add(-clockSlack), now.Add(trust.LeafLife))
}

// renewalDue reports whether c is to be renewed: a third of its life is over, or it begins so far ahead that the clock
// was wrong when it was issued, and peers may refuse it for as long.
func renewalDue(c *trust.Cert, now time.Time) bool {
	return !now.Before(c.RenewAt()) || now.Before(c.NotBefore.Add(-trust.LeafLife))
}

// RenewalDue reports whether Renew has something to do.
func (m *Mesh) RenewalDue() bool { return renewalDue(m.Cert(), m.cfg.Wall()) }

// Renew gets a new certificate when that is due: from itself where this node is a sponsor, else from any sponsor that
// is alive. nil, nil when it is not due or nobody could. The caller saves the chain, and then calls UseChain.
func (m *Mesh) Renew(ctx context.Context) ([][]byte, error) {
	own := m.Cert()
	if !m.RenewalDue() {
		return nil, nil
	}
	if m.cfg.Charter.IsSponsor(m.self) {
		return m.renewed(own)
	}
	for _, n := range keys(m.Alive()) {
		if n == m.self || !m.cfg.Charter.IsSponsor(n) {
			continue
		}
		a, err := m.Ask(ctx, n, Question{Kind: AskRenew})
		if err != nil || a.Problem != "" {
			continue
		}
		c, err := m.cfg.Charter.VerifyChain(a.Chain)
		if err != nil {
			return nil, fmt.Errorf("renewal by %s: %w", n.Short(), err)
		}
		if c.ID != m.self || c.Name != own.Name {
			return nil, fmt.Errorf("renewal by %s: the certificate is for %s %q", n.Short(), c.ID.Short(), c.Name)
		}
		if renewalDue(c, m.cfg.Wall()) {
			continue // one of the two clocks is wrong: this would be no better
		}
		return a.Chain, nil
	}
	return nil, nil
}

// UseChain has this node live by a renewed chain from now on: new handshakes show it, and others hear of it. The
// caller has saved it.
func (m *Mesh) UseChain(chain [][]byte) error {
	cert, err := m.cfg.Charter.VerifyChain(chain)
	if err != nil {
		return fmt.Errorf("renewed certificate: %w", err)
	}
	m.cert.Store(cert)
	m.link.Renew(chain)
	return m.publishCert()
}

// publishCert makes sure that this node's certificate is in its log: what lets others verify all its records.
func (m *Mesh) publishCert() error {
	if c, ok := m.catalog.Cert(m.self); ok && c.Serial == m.Cert().Serial && m.catalog.HasOwn(catalog.KindCert) {
		return nil
	}
	body, err := catalog.EncodeCert(catalog.CertBody{Chain: m.Cert().Chain})
	if err != nil {
		return err
	}
	if _, err := m.catalog.Append(catalog.KindCert, "", body, 0); err != nil {
		return fmt.Errorf("publish the own certificate: %w", err)
	}
	return nil
}
