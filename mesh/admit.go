package mesh

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/link"
	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

const (
	leafLife     = 30 * 24 * time.Hour // of a node certificate (SPEC 11)
	clockSlack   = time.Hour           // a leaf begins this long before its issue: clocks differ
	admitTimeout = 10 * time.Second
	maxAdmit     = 16 << 10 // bytes of one admission message
	maxInvites   = 4096     // open invites a sponsor remembers
	inviteV1     = 1
	admitV1      = 1
)

const (
	frameJoin  = 1
	frameReply = 2
)

// ErrRefused wraps the reason for which a sponsor refused a token.
var ErrRefused = errors.New("the sponsor refused")

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
	inv := trust.Invite{
		MeshID: m.cfg.Charter.MeshID(), Sponsor: m.self, Name: o.Name, Tags: o.Tags,
		Expires: time.Unix(o.Expires, 0), Uses: o.Uses, Addrs: m.link.Advertised(), ID: o.ID, Secret: o.Secret,
	}
	return inv.Token(m.cfg.Identity)
}

// nameFree refuses a name that another unrevoked key holds.
func (m *Mesh) nameFree(name string, replace bool, by ed25519.PublicKey) error {
	if name == "" || replace {
		return nil
	}
	if cert := m.holderOf(name); cert != nil && !cert.Key.Equal(by) {
		return fmt.Errorf("the name %q belongs to node %s; revoke it, or invite with --replace", name, cert.ID.Short())
	}
	return nil
}

// holderOf finds the unrevoked certificate that attests name, nil if none.
func (m *Mesh) holderOf(name string) *trust.Cert {
	for _, r := range m.catalog.Live(catalog.ScopeNodes, catalog.KindCert, "") {
		if c, ok := m.catalog.Cert(r.Log.Origin); ok && c.Name == name && !m.catalog.Revoked(c.Key) {
			return c
		}
	}
	return nil
}

// serveAdmit speaks with one that has no certificate yet, only a key that TLS has proven.
func (m *Mesh) serveAdmit(_ context.Context, key ed25519.PublicKey, c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(admitTimeout))
	reply, err := m.admit(key, c)
	if err != nil {
		m.cfg.Log.Warn("admission refused", "key", id.FromKey(key).Short(), "from", c.RemoteAddr(), "reason", err)
		reply = trust.JoinReply{Refused: err.Error()}
	}
	b, err := wire.Marshal(admitV1, &reply)
	if err != nil {
		m.cfg.Log.Error("admission reply", "error", err)
		return
	}
	_ = wire.WriteFrame(c, frameReply, b) // the joiner tries again when it did not hear
}

func (m *Mesh) admit(key ed25519.PublicKey, c net.Conn) (trust.JoinReply, error) {
	kind, body, err := wire.ReadFrame(c, maxAdmit)
	if err != nil {
		return trust.JoinReply{}, err
	}
	var req trust.JoinRequest
	if kind != frameJoin {
		return trust.JoinReply{}, fmt.Errorf("frame kind %d where a join request belongs", kind)
	}
	if err := wire.Unmarshal(body, admitV1, inviteLimits, &req); err != nil {
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
	chain, err := m.cfg.Charter.Issue(m.cfg.Identity, req.Key, req.Box, o.Name, o.Tags, newSerial(), now.Add(-clockSlack), now.Add(leafLife))
	if err != nil {
		return trust.JoinReply{}, err
	}
	if !again {
		s := trust.Statement{Kind: trust.Admission, Subject: req.Key, Name: name, Invite: o.ID, At: now, By: m.self}
		if err := m.publishStatement(s); err != nil {
			return trust.JoinReply{}, err
		}
	}
	m.cfg.Log.Info("node admitted", "node", id.FromKey(req.Key).Short(), "name", name)
	return trust.JoinReply{Charter: m.cfg.Charter.Encode(), Chain: chain}, nil
}

func newSerial() []byte {
	serial := make([]byte, 16)
	_, _ = rand.Read(serial) // never fails (crypto/rand)
	serial[0] &= 0x7f
	return serial
}

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
	if _, err := m.catalog.Append(catalog.KindStatement, name, b, 0); err != nil {
		return fmt.Errorf("record the statement: %w", err)
	}
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

// Join redeems a token for self, whose Chain it sets. It tries each of the sponsor's addresses once.
func Join(ctx context.Context, network link.Network, self *trust.Identity, token, name string, now time.Time) (Joined, error) {
	inv, _, err := trust.ParseInvite(token)
	if err != nil {
		return Joined{}, err
	}
	if now.After(inv.Expires.Add(24 * time.Hour)) {
		return Joined{}, fmt.Errorf("the token expired at %s; ask for a new one with meshctl invite", inv.Expires.UTC().Format(time.RFC3339))
	}
	var errs []error
	for _, addr := range inv.Addrs {
		j, err := joinAt(ctx, network, self, inv, addr, name)
		if err == nil {
			return j, nil
		}
		if errors.Is(err, ErrRefused) {
			return Joined{}, err
		}
		errs = append(errs, fmt.Errorf("%s: %w", addr, err))
	}
	return Joined{}, fmt.Errorf("join: the sponsor %s answers at none of its addresses: %w", inv.Sponsor.Short(), errors.Join(errs...))
}

func joinAt(ctx context.Context, network link.Network, self *trust.Identity, inv trust.Invite, addr, name string) (Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, admitTimeout)
	defer cancel()
	c, err := link.DialGuest(ctx, network, self, addr, inv.Sponsor, protoAdmit)
	if err != nil {
		return Joined{}, err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(admitTimeout))
	exporter, err := link.Exporter(c)
	if err != nil {
		return Joined{}, err
	}
	pub, _ := self.BoxKey()
	req := trust.JoinRequest{Invite: inv.ID, Proof: inv.Proof(exporter), Key: self.Public(), Box: *pub, Name: name}
	b, err := wire.Marshal(admitV1, &req)
	if err != nil {
		return Joined{}, err
	}
	if err := wire.WriteFrame(c, frameJoin, b); err != nil {
		return Joined{}, err
	}
	kind, body, err := wire.ReadFrame(c, maxAdmit)
	if err != nil {
		return Joined{}, err
	}
	var reply trust.JoinReply
	if kind != frameReply {
		return Joined{}, fmt.Errorf("frame kind %d where a reply belongs", kind)
	}
	if err := wire.Unmarshal(body, admitV1, wire.Limits{Bytes: maxAdmit, Depth: 4, Items: maxAdmit}, &reply); err != nil {
		return Joined{}, err
	}
	if reply.Refused != "" {
		return Joined{}, fmt.Errorf("%w: %s", ErrRefused, reply.Refused)
	}
	return takeHome(self, inv, addr, reply)
}

// takeHome believes nothing of the reply that does not follow from the token's mesh id.
func takeHome(self *trust.Identity, inv trust.Invite, addr string, reply trust.JoinReply) (Joined, error) {
	charter, err := trust.ParseCharter(reply.Charter)
	if err != nil {
		return Joined{}, err
	}
	if charter.MeshID() != inv.MeshID {
		return Joined{}, fmt.Errorf("the sponsor at %s answers for another mesh than the token", addr)
	}
	cert, err := charter.VerifyChain(reply.Chain)
	if err != nil {
		return Joined{}, err
	}
	if cert.ID != self.ID() || cert.Name != inv.Name || !maps.Equal(cert.Tags, inv.Tags) {
		return Joined{}, fmt.Errorf("the certificate from %s is not what the token promised", addr)
	}
	self.Chain = reply.Chain
	seeds := []string{inv.Sponsor.String() + "@" + addr}
	for _, a := range inv.Addrs {
		if s := inv.Sponsor.String() + "@" + a; !slices.Contains(seeds, s) {
			seeds = append(seeds, s)
		}
	}
	return Joined{Charter: charter, Seeds: seeds}, nil
}
