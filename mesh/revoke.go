package mesh

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/trust"
)

func (m *Mesh) redeemedBefore(invite [16]byte, key ed25519.PublicKey) bool {
	for _, r := range m.catalog.Live(catalog.ScopeNodes, catalog.KindStatement, "") {
		s, err := m.statement(r)
		if err == nil && s.Kind == trust.Admission && s.Invite == invite && key.Equal(s.Subject) {
			return true
		}
	}
	return false
}

func (m *Mesh) statement(r catalog.Record) (trust.Statement, error) {
	return trust.ParseStatement(r.Body, func(n id.Node) ed25519.PublicKey {
		key, _ := m.catalog.Key(n)
		return key
	})
}

func (m *Mesh) publishStatement(s trust.Statement) error {
	b, err := trust.SignStatement(s, m.cfg.Identity)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%d/%s/%x", s.Kind, id.FromKey(s.Subject), s.Invite)
	r, err := m.catalog.Append(catalog.KindStatement, name, b, 0)
	if err != nil {
		return fmt.Errorf("record the statement: %w", err)
	}
	m.wrote(r)
	return nil
}

// Revoke expels the node of that name or id: a signed statement that all nodes enforce once they hear it.
func (m *Mesh) Revoke(nameOrID, reason string) error {
	cert := m.holderOf(nameOrID)
	if cert == nil {
		n, err := id.Parse(nameOrID)
		if err != nil {
			return fmt.Errorf("revoke: no unrevoked node has the name %q: %w", nameOrID, ErrNotFound)
		}
		var ok bool
		if cert, ok = m.catalog.Cert(n); !ok {
			return fmt.Errorf("revoke: no node %s is known: %w", n, ErrNotFound)
		}
	}
	if cert.ID == m.self {
		return errors.New("revoke: a node does not revoke itself; do it on another revoker")
	}
	if err := m.revoke(cert, reason); err != nil {
		return err
	}
	m.link.DropRevoked()
	return nil
}

func (m *Mesh) revoke(cert *trust.Cert, reason string) error {
	if !m.cfg.Charter.IsRevoker(m.self) {
		return fmt.Errorf("revoke: the charter does not list this node's key to revoke; do it on the node that ran init")
	}
	return m.publishStatement(trust.Statement{
		Kind: trust.Revocation, Subject: cert.Key, Name: cert.Name, Heads: m.catalog.Heads(cert.ID), Reason: reason,
		At: m.cfg.Wall(), By: m.self,
	})
}

// ErrNotFound is wrapped where a name or id is unknown here.
var ErrNotFound = errors.New("not found")

// Joined is what a newcomer takes home.
type Joined struct {
	Charter *trust.Charter
	Seeds   []string // ID@HOST:PORT of the sponsor
}
