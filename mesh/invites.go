package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

const (
	maxInvites     = 4096 // open invites a sponsor remembers
	maxInviteAddrs = 8    // of the sponsor in one token; the first are the likeliest
	inviteV1       = 1    // version byte on disk
)

// InviteRequest says whom a token is for. Name "" binds no name. TTL and Uses must be positive.
type InviteRequest struct {
	Name    string
	Tags    map[string]string
	TTL     time.Duration
	Uses    int
	Replace bool // revoke the key that holds Name now
}

// openInvite is what the sponsor remembers of a token, so that uses are counted over restarts.
type openInvite struct {
	ID      [16]byte
	Secret  [32]byte
	Name    string
	Tags    map[string]string
	Expires int64 // unix seconds, by the sponsor's clock
	Uses    int   // left
	Replace bool
}

var inviteLimits = wire.Limits{Bytes: 8 << 10, Depth: 4, Items: 64}

// invites are this sponsor's open tokens; durable before a token is told or a use is granted.
type invites struct {
	shelf Shelf
	mu    sync.Mutex
	open  map[[16]byte]openInvite
}

func openInvites(s Shelf) (*invites, error) {
	in := &invites{shelf: s, open: map[[16]byte]openInvite{}}
	_, values, err := s.Scan(nil, nil, maxInvites)
	if err != nil {
		return nil, fmt.Errorf("read the invites: %w", err)
	}
	for _, v := range values {
		var o openInvite
		if err := wire.Unmarshal(v, inviteV1, inviteLimits, &o); err != nil {
			return nil, fmt.Errorf("read the invites: %w", err)
		}
		in.open[o.ID] = o
	}
	return in, nil
}

func (in *invites) put(o openInvite) error {
	b, err := wire.Marshal(inviteV1, &o)
	if err != nil {
		return err
	}
	if err := in.shelf.Apply([][]byte{o.ID[:]}, [][]byte{b}); err != nil {
		return fmt.Errorf("remember the invite: %w", err)
	}
	in.open[o.ID] = o
	return nil
}

// prune forgets what expired over a day ago (until then a late joiner is told why).
func (in *invites) prune(now time.Time) error {
	var dead, nothing [][]byte
	for k, o := range in.open {
		if now.Unix()-o.Expires > 24*3600 {
			dead, nothing = append(dead, k[:]), append(nothing, nil)
			delete(in.open, k)
		}
	}
	if len(dead) == 0 {
		return nil
	}
	return in.shelf.Apply(dead, nothing)
}

// Invite makes a token. Where this node is no sponsor it asks one that is alive, which will do so only if
// the score admits it (Config.AllowInvite there).
func (m *Mesh) Invite(ctx context.Context, r InviteRequest) (string, error) {
	if r.TTL <= 0 || r.Uses <= 0 {
		return "", fmt.Errorf("invite: ttl %v and uses %d must be positive", r.TTL, r.Uses)
	}
	if m.cfg.Charter.IsSponsor(m.self) {
		return m.invite(r)
	}
	var errs []error
	for _, n := range keys(m.Alive()) {
		if n == m.self || !m.cfg.Charter.IsSponsor(n) {
			continue
		}
		a, err := m.Ask(ctx, n, Question{
			Kind: AskInvite, Subject: r.Name, Tags: r.Tags, Seconds: int64(r.TTL / time.Second), Replace: r.Replace,
		})
		if err == nil && a.Problem == "" {
			return a.Token, nil
		}
		if err == nil {
			err = errors.New(a.Problem)
		}
		errs = append(errs, fmt.Errorf("sponsor %s: %w", n.Short(), err))
	}
	if len(errs) == 0 {
		return "", errors.New("invite: this node is no sponsor, and no sponsor is reachable now; try again, or on the node that ran init")
	}
	return "", fmt.Errorf("invite: %w", errors.Join(errs...))
}

func (m *Mesh) invite(r InviteRequest) (string, error) {
	if err := m.nameFree(r.Name, r.Replace, nil); err != nil {
		return "", err
	}
	now := m.cfg.Wall()
	o := openInvite{Name: r.Name, Tags: r.Tags, Expires: now.Add(r.TTL).Unix(), Uses: r.Uses, Replace: r.Replace}
	if _, err := rand.Read(o.ID[:]); err != nil {
		return "", err
	}
	if _, err := rand.Read(o.Secret[:]); err != nil {
		return "", err
	}
	m.invites.mu.Lock()
	defer m.invites.mu.Unlock()
	if err := m.invites.prune(now); err != nil {
		return "", err
	}
	if len(m.invites.open) >= maxInvites {
		return "", fmt.Errorf("invite: %d invites are open, the limit; wait until some expire", maxInvites)
	}
	if err := m.invites.put(o); err != nil {
		return "", err
	}
	addrs := m.link.Advertised()
	inv := trust.Invite{
		MeshID: m.cfg.Charter.MeshID(), Sponsor: m.self, Name: o.Name, Tags: o.Tags,
		Expires: time.Unix(o.Expires, 0), Uses: o.Uses, Addrs: addrs[:min(len(addrs), maxInviteAddrs)], ID: o.ID, Secret: o.Secret,
	}
	return inv.Token(m.cfg.Identity)
}

// nameFree refuses a name that another unrevoked key holds, and in any case the sponsor's own.
func (m *Mesh) nameFree(name string, replace bool, by ed25519.PublicKey) error {
	if name == "" {
		return nil
	}
	cert := m.holderOf(name)
	if cert != nil && replace && cert.ID == m.self {
		return fmt.Errorf("the name %q is that of this sponsor, which does not revoke itself; invite on another sponsor", name)
	}
	if cert != nil && !replace && !cert.Key.Equal(by) {
		return fmt.Errorf("the name %q belongs to node %s; revoke it, or invite with --replace", name, cert.ID.Short())
	}
	return nil
}

// holderOf finds the unrevoked certificate that attests name, nil if none. Of a node that was admitted and
// has not been heard since, it has ID, Key and Name alone.
func (m *Mesh) holderOf(name string) *trust.Cert {
	if name == "" {
		return nil
	}
	for _, r := range m.catalog.Live(catalog.ScopeNodes, catalog.KindCert, "") {
		if c, ok := m.catalog.Cert(r.Log.Origin); ok && c.Name == name && !m.catalog.Revoked(c.Key) {
			return c
		}
	}
	for _, r := range m.catalog.Live(catalog.ScopeNodes, catalog.KindStatement, "") {
		s, err := m.statement(r)
		if err == nil && s.Kind == trust.Admission && s.Name == name && m.cfg.Charter.IsSponsor(s.By) && !m.catalog.Revoked(s.Subject) {
			return &trust.Cert{ID: id.FromKey(s.Subject), Key: s.Subject, Name: name}
		}
	}
	return nil
}

func newSerial() []byte {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails (crypto/rand)
	serial[0] &= 0x7f
	return serial
}
