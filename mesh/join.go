package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"syscall"
	"time"

	"meshd/mesh/link"
	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

// How often a sponsor is asked that closes the stream without a word: its places for newcomers may be taken by
// streams that say nothing, each for the 5 s of a handshake.
const (
	joinRounds = 10
	joinPause  = time.Second
)

// Join redeems a token for self, whose Chain it sets. It tries each of the sponsor's addresses once, and again
// for some seconds where the sponsor is there and hangs up.
func Join(ctx context.Context, network link.Network, self *trust.Identity, token, name string, now time.Time) (Joined, error) {
	inv, _, err := trust.ParseInvite(token)
	if err != nil {
		return Joined{}, err
	}
	if now.After(inv.Expires.Add(24 * time.Hour)) {
		return Joined{}, fmt.Errorf("the token expired at %s; ask for a new one with meshctl invite", inv.Expires.UTC().Format(time.RFC3339))
	}
	for round := 1; ; round++ {
		j, err := joinOnce(ctx, network, self, inv, name)
		busy := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
		if err == nil || errors.Is(err, ErrRefused) || !busy || round == joinRounds {
			return j, err
		}
		select {
		case <-ctx.Done():
			return Joined{}, err
		case <-time.After(joinPause):
		}
	}
}

func joinOnce(ctx context.Context, network link.Network, self *trust.Identity, inv trust.Invite, name string) (Joined, error) {
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
	b, err := req.Encode()
	if err != nil {
		return Joined{}, err
	}
	if err := wire.WriteFrame(c, frameJoin, b); err != nil {
		return Joined{}, err
	}
	kind, body, err := wire.ReadFrame(c, trust.MaxJoinReply)
	if err != nil {
		return Joined{}, err
	}
	if kind != frameReply {
		return Joined{}, fmt.Errorf("frame kind %d where a reply belongs", kind)
	}
	reply, err := trust.ParseJoinReply(body)
	if err != nil {
		return Joined{}, err
	}
	if reply.Refused != "" {
		return Joined{}, fmt.Errorf("%w: %s", ErrRefused, reply.Refused)
	}
	return takeHome(self, inv, addr, reply)
}

// takeHome believes nothing of the reply that does not follow from the token's mesh id.
func takeHome(self *trust.Identity, inv trust.Invite, addr string, reply trust.JoinReply) (Joined, error) {
	charter, cert, err := reply.Verify(inv, self)
	if err != nil {
		return Joined{}, err
	}
	if cert.Name != inv.Name || !maps.Equal(cert.Tags, inv.Tags) {
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
