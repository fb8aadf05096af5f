package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"

	"meshd/mesh/id"
	"meshd/mesh/wire"
)

const (
	MaxToken = 1000 // characters of a token: one line that survives mail, chat and a QR code

	tokenPrefix = "meshd1."
	inviteSeal  = "meshd invite 1\x00"
	proofSeal   = "meshd join 1\x00"
	maxAddrs    = 8
	maxAddr     = 262 // host name of 255 bytes, colon, port
	maxUses     = 1 << 16
)

// Why a token or a join is refused. Each is wrapped by what more there is to say.
var (
	ErrTokenCut       = errors.New("token is cut short: copy all of it")
	ErrTokenMalformed = errors.New("token is malformed: ask for a new one (meshctl invite)")
	ErrInviteExpired  = errors.New("invite has expired: ask for a new one (meshctl invite)")
	ErrInviteUsed     = errors.New("invite is used up: ask for a new one (meshctl invite)")
	ErrInviteRefused  = errors.New("invite does not allow this")
)

// An Invite lets whoever holds its secret join the mesh, as often as Uses says, until Expires by the
// sponsor's clock. Only the sponsor that made it redeems it.
type Invite struct {
	MeshID  [32]byte
	Sponsor id.Node
	Name    string            // the name that the certificate will bind; "" binds none
	Tags    map[string]string // the tags that it will attest
	Expires time.Time         // milliseconds count
	Uses    int               // at least 1
	Addrs   []string          // HOST:PORT of the sponsor, best first
	ID      [16]byte          // names the invite in the sponsor's books; no secret
	Secret  [32]byte
}

// tokenBody is the token: what the sponsor signed, and the secret. tokenHead precedes it.
type tokenBody struct {
	Doc    []byte // an inviteDoc
	Sig    [64]byte
	Secret [32]byte
}

type inviteDoc struct {
	Mesh      [32]byte
	Sponsor   [32]byte // public key
	Name      string
	Tags      map[string]string
	ExpiresMs int64
	Uses      uint32
	Addrs     []string
	ID        [16]byte
}

// Before the body of a token stand its length (2 bytes, big-endian) and the first 4 bytes of its
// SHA-256, so that a token that lost its end is told from one that was changed.
const tokenHead = 6

// NewInvite draws id and secret from random (nil means crypto/rand) and checks all of it, so that its
// token is known to fit in MaxToken.
func NewInvite(
	random io.Reader, c *Charter, sponsor *Identity, name string, tags map[string]string,
	expires time.Time, uses int, addrs []string,
) (Invite, error) {
	if random == nil {
		random = rand.Reader
	}
	v := Invite{
		MeshID: c.MeshID(), Sponsor: sponsor.ID(), Name: name, Tags: tags,
		Expires: time.UnixMilli(expires.UnixMilli()).UTC(), Uses: uses, Addrs: addrs,
	}
	if !c.names(sponsor.Public()) {
		return Invite{}, fmt.Errorf("new invite: %s is no sponsor of mesh %s", sponsor.ID().Short(), c.MeshName())
	}
	var drawn [48]byte
	if _, err := io.ReadFull(random, drawn[:]); err != nil {
		return Invite{}, fmt.Errorf("new invite: %w", err)
	}
	v.ID, v.Secret = [16]byte(drawn[:16]), [32]byte(drawn[16:])
	if _, err := v.Token(sponsor); err != nil {
		return Invite{}, err
	}
	return v, nil
}

// Token returns the invite as one line of text under 1 kB, signed by its sponsor. Who reads it can
// join: it is as secret as a password.
func (v Invite) Token(sponsor *Identity) (string, error) {
	if v.Sponsor != sponsor.ID() {
		return "", fmt.Errorf("invite: made by sponsor %s, not by %s", v.Sponsor.Short(), sponsor.ID().Short())
	}
	if v.Uses < 1 || v.Uses > maxUses {
		return "", fmt.Errorf("invite: %d uses, want 1 to %d", v.Uses, maxUses)
	}
	doc := inviteDoc{
		v.MeshID, [32]byte(sponsor.Public()), v.Name, v.Tags, v.Expires.UnixMilli(), uint32(v.Uses), v.Addrs, v.ID,
	}
	if err := doc.check(); err != nil {
		return "", fmt.Errorf("invite: %w", err)
	}
	b, err := wire.Marshal(wireVersion, doc)
	if err != nil {
		return "", fmt.Errorf("invite: %w", err)
	}
	body, err := wire.Marshal(wireVersion, tokenBody{b, sign(sponsor.Key, inviteSeal, b), v.Secret})
	if err != nil {
		return "", fmt.Errorf("invite: %w", err)
	}
	sum := sha256.Sum256(body)
	all := append(binary.BigEndian.AppendUint16(nil, uint16(len(body))), sum[:4]...)
	text := tokenPrefix + base64.RawURLEncoding.EncodeToString(append(all, body...))
	if len(text) > MaxToken {
		return "", fmt.Errorf("invite: token of %d characters, limit %d; use fewer or shorter tags and addresses",
			len(text), MaxToken)
	}
	return text, nil
}

// check reports whether an invite is well formed, whoever signed it.
func (d inviteDoc) check() error {
	if d.Name != "" {
		if err := CheckName(d.Name); err != nil {
			return err
		}
	}
	if err := CheckTags(d.Tags); err != nil {
		return err
	}
	if d.Uses < 1 || d.Uses > maxUses {
		return fmt.Errorf("%d uses, want 1 to %d", d.Uses, maxUses)
	}
	if len(d.Addrs) < 1 || len(d.Addrs) > maxAddrs {
		return fmt.Errorf("%d addresses of the sponsor, want 1 to %d", len(d.Addrs), maxAddrs)
	}
	for _, a := range d.Addrs {
		if a == "" || len(a) > maxAddr || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("address %.80q: want HOST:PORT of at most %d characters", a, maxAddr)
		}
	}
	return nil
}

// ParseInvite reads a token; white space anywhere in it is skipped, as a terminal may have wrapped
// it. The error wraps ErrTokenCut when the end is missing, else ErrTokenMalformed. The signature is
// verified against the key in the token, which is returned: that the mesh id's charter names it is
// verified at the end of the join (JoinReply.Verify).
func ParseInvite(text string) (Invite, ed25519.PublicKey, error) {
	body, err := tokenBytes(text)
	if err != nil {
		return Invite{}, nil, err
	}
	var t tokenBody
	var doc inviteDoc
	if err := wire.Unmarshal(body, wireVersion, wire.Limits{Bytes: MaxToken}, &t); err != nil {
		return Invite{}, nil, fmt.Errorf("%w: %v", ErrTokenMalformed, err)
	}
	if err := wire.Unmarshal(t.Doc, wireVersion, wire.Limits{Bytes: MaxToken}, &doc); err != nil {
		return Invite{}, nil, fmt.Errorf("%w: %v", ErrTokenMalformed, err)
	}
	if err := doc.check(); err != nil {
		return Invite{}, nil, fmt.Errorf("%w: %v", ErrTokenMalformed, err)
	}
	key := ed25519.PublicKey(bytes.Clone(doc.Sponsor[:]))
	if !verify(key, inviteSeal, t.Doc, t.Sig) {
		return Invite{}, nil, fmt.Errorf("%w: its signature is wrong", ErrTokenMalformed)
	}
	return Invite{
		MeshID: doc.Mesh, Sponsor: id.FromKey(key), Name: doc.Name, Tags: doc.Tags,
		Expires: time.UnixMilli(doc.ExpiresMs).UTC(), Uses: int(doc.Uses), Addrs: doc.Addrs,
		ID: doc.ID, Secret: t.Secret,
	}, key, nil
}

// tokenBytes returns the body of a token that is whole.
func tokenBytes(text string) ([]byte, error) {
	if len(text) > 2*MaxToken {
		return nil, fmt.Errorf("%w: %d characters, limit %d", ErrTokenMalformed, len(text), MaxToken)
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
	coded, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		if text != "" && strings.HasPrefix(tokenPrefix, text) {
			return nil, ErrTokenCut
		}
		return nil, fmt.Errorf("%w: it does not begin with %q", ErrTokenMalformed, tokenPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(coded)
	if err != nil {
		// A cut may leave a last group that is no whole byte, or whose spare bits are not zero.
		b, err = base64.RawURLEncoding.DecodeString(coded[:len(coded)/4*4])
		if err == nil && (len(b) < tokenHead || len(coded)*6/8-tokenHead < int(binary.BigEndian.Uint16(b))) {
			return nil, ErrTokenCut
		}
		return nil, fmt.Errorf("%w: it is not base64url to its end", ErrTokenMalformed)
	}
	if len(b) < tokenHead || len(b)-tokenHead < int(binary.BigEndian.Uint16(b)) {
		return nil, ErrTokenCut
	}
	body := b[tokenHead:]
	sum := sha256.Sum256(body)
	if len(body) != int(binary.BigEndian.Uint16(b)) || !bytes.Equal(sum[:4], b[2:tokenHead]) {
		return nil, fmt.Errorf("%w: its checksum is wrong", ErrTokenMalformed)
	}
	return body, nil
}

// Proof is the HMAC by which the joiner shows that it has the secret, over the exporter value of the
// TLS connection on which it asks: it proves nothing on any other.
func (v Invite) Proof(exporter []byte) [32]byte {
	h := hmac.New(sha256.New, v.Secret[:])
	h.Write([]byte(proofSeal))
	h.Write(v.ID[:])
	h.Write(exporter)
	return [32]byte(h.Sum(nil))
}

// Admit returns nil when the sponsor, which holds the invite and has seen it used so many times, may
// now admit the request that came on a connection with this exporter value. It changes nothing: the
// sponsor counts the use durably before it answers. Whether the name is free it knows itself; the
// certificate binds the invite's Name and Tags, not what the request declares.
func (v Invite) Admit(r JoinRequest, exporter []byte, used int, now time.Time) error {
	proof := v.Proof(exporter)
	switch {
	case r.Invite != v.ID || subtle.ConstantTimeCompare(proof[:], r.Proof[:]) != 1:
		return fmt.Errorf("%w: the proof of its secret is wrong", ErrInviteRefused)
	case now.After(v.Expires):
		return fmt.Errorf("%w: valid until %s, it is %s", ErrInviteExpired, stamp(v.Expires), stamp(now))
	case used >= v.Uses:
		return fmt.Errorf("%w: used %d of %d times", ErrInviteUsed, used, v.Uses)
	case v.Name != "" && r.Name != "" && r.Name != v.Name:
		return fmt.Errorf("%w: it is for the name %q, not %q", ErrInviteRefused, v.Name, r.Name)
	}
	for k, want := range v.Tags {
		if got, declared := r.Tags[k]; declared && got != want {
			return fmt.Errorf("%w: it attests tag %s=%q, the node declares %q", ErrInviteRefused, k, want, got)
		}
	}
	return nil
}
