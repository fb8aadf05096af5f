package trust

import (
	"crypto/ed25519"
	"errors"
	"fmt"

	"meshd/mesh/wire"
)

// Limits of the admission messages, for the frames that carry them.
const (
	MaxJoinRequest = 8 << 10 // bytes
	MaxJoinReply   = MaxCharter + 8<<10
	maxRefusal     = 500
)

// A JoinRequest is what a joiner sends its sponsor, on a connection on which TLS has proved Key.
type JoinRequest struct {
	Invite [16]byte
	Proof  [32]byte // Invite.Proof of the connection's exporter value
	Key    ed25519.PublicKey
	Box    [32]byte
	Name   string            // that the node calls itself; "" when the invite binds one
	Tags   map[string]string // declared; they give no right
}

// A JoinReply is the sponsor's answer: a refusal for people to read, or the charter and the chain.
type JoinReply struct {
	Refused string
	Charter []byte
	Chain   [][]byte
}

// Encode returns the bytes that ParseJoinRequest takes.
func (r JoinRequest) Encode() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	return wire.Marshal(wireVersion, r)
}

// ParseJoinRequest reads a request of anybody at all: nothing in it is proved yet.
func ParseJoinRequest(b []byte) (JoinRequest, error) {
	var r JoinRequest
	if err := wire.Unmarshal(b, wireVersion, wire.Limits{Bytes: MaxJoinRequest, Items: MaxTags}, &r); err != nil {
		return JoinRequest{}, err
	}
	if err := r.check(); err != nil {
		return JoinRequest{}, err
	}
	return r, nil
}

func (r JoinRequest) check() error {
	if len(r.Key) != ed25519.PublicKeySize {
		return fmt.Errorf("join request: key of %d bytes, want %d", len(r.Key), ed25519.PublicKeySize)
	}
	if r.Name != "" {
		if err := CheckName(r.Name); err != nil {
			return fmt.Errorf("join request: %w", err)
		}
	}
	if err := CheckTags(r.Tags); err != nil {
		return fmt.Errorf("join request: %w", err)
	}
	return nil
}

// Encode returns the bytes that ParseJoinReply takes. A refusal is cut to what the format holds.
func (r JoinReply) Encode() ([]byte, error) {
	r.Refused = shorten(r.Refused, maxRefusal)
	if err := r.check(); err != nil {
		return nil, err
	}
	return wire.Marshal(wireVersion, r)
}

// ParseJoinReply reads a reply; Verify judges it.
func ParseJoinReply(b []byte) (JoinReply, error) {
	var r JoinReply
	if err := wire.Unmarshal(b, wireVersion, wire.Limits{Bytes: MaxJoinReply, Items: 8}, &r); err != nil {
		return JoinReply{}, err
	}
	if err := r.check(); err != nil {
		return JoinReply{}, err
	}
	return r, nil
}

func (r JoinReply) check() error {
	admitted := len(r.Charter) > 0 && len(r.Chain) == chainLength
	nothing := len(r.Charter) == 0 && len(r.Chain) == 0
	if r.Refused != "" && !nothing || r.Refused == "" && !admitted {
		return errors.New("join reply: want either a refusal, or a charter and a chain of two certificates")
	}
	if len(r.Refused) > maxRefusal {
		return fmt.Errorf("join reply: refusal of %d bytes, limit %d", len(r.Refused), maxRefusal)
	}
	return nil
}

// Verify returns what the joiner may now save: the charter of the mesh that the invite named, and its
// own certificate as this charter's sponsor, the one of the invite, issued it. A refusal is an error
// with the sponsor's words.
func (r JoinReply) Verify(v Invite, self *Identity) (*Charter, *Cert, error) {
	if r.Refused != "" {
		return nil, nil, fmt.Errorf("sponsor %s refuses: %s", v.Sponsor.Short(), r.Refused)
	}
	c, err := ParseCharter(r.Charter)
	if err != nil {
		return nil, nil, fmt.Errorf("join reply: %w", err)
	}
	if c.MeshID() != v.MeshID {
		return nil, nil, fmt.Errorf("join reply: charter of mesh %s, the invite is for %x", c.MeshName(), v.MeshID[:8])
	}
	cert, err := c.VerifyChain(r.Chain)
	if err != nil {
		return nil, nil, fmt.Errorf("join reply: %w", err)
	}
	pub, _ := self.BoxKey()
	if !cert.Key.Equal(self.Public()) || cert.Box != *pub || cert.Sponsor != v.Sponsor {
		return nil, nil, errors.New("join reply: the certificate is for other keys, or of another sponsor")
	}
	return c, cert, nil
}
