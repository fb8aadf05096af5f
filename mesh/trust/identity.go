package trust

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"path/filepath"
	"time"

	"meshd/mesh/id"
)

// Files of an identity in a data folder.
const (
	keyFile     = "node.key"
	certFile    = "node.crt"
	charterName = "charter"

	boxInfo = "meshd box 1"
)

// An Identity is a node's own key and, once it is admitted, its certificate chain. Whoever replaces
// Chain must be the only one who reads it then.
type Identity struct {
	Key   ed25519.PrivateKey
	Chain [][]byte // DER: leaf, then the sponsor's intermediate; nil before admission
}

// NewIdentity makes a key from 32 bytes of random; nil means crypto/rand. The same bytes give the
// same key: simulated nodes take theirs from a seed.
func NewIdentity(random io.Reader) (*Identity, error) {
	key, err := NewKey(random)
	if err != nil {
		return nil, err
	}
	return &Identity{Key: key}, nil
}

// NewKey makes an Ed25519 key from 32 bytes of random; nil means crypto/rand.
func NewKey(random io.Reader) (ed25519.PrivateKey, error) {
	if random == nil {
		random = rand.Reader
	}
	var seed [ed25519.SeedSize]byte
	if _, err := io.ReadFull(random, seed[:]); err != nil {
		return nil, fmt.Errorf("new key: %w", err)
	}
	return ed25519.NewKeyFromSeed(seed[:]), nil
}

// ID returns the node id of the key.
func (i *Identity) ID() id.Node { return id.FromKey(i.Public()) }

// Public returns the public half of the key.
func (i *Identity) Public() ed25519.PublicKey { return i.Key.Public().(ed25519.PublicKey) }

// BoxKey returns the X25519 pair with which packets are sealed, derived from the seed of the node key
// by HKDF: a node has one secret to keep.
func (i *Identity) BoxKey() (pub, priv *[32]byte) {
	secret, err := hkdf.Key(sha256.New, i.Key.Seed(), nil, boxInfo, 32)
	if err != nil {
		panic("trust: HKDF refuses 32 bytes: " + err.Error())
	}
	key, err := ecdh.X25519().NewPrivateKey(secret)
	if err != nil {
		panic("trust: X25519 refuses 32 bytes: " + err.Error())
	}
	priv, pub = (*[32]byte)(secret), (*[32]byte)(key.PublicKey().Bytes())
	return pub, priv
}

// Certificate returns what the node shows in a TLS handshake: its chain or, before admission, a
// certificate signed by itself that proves the key and nothing else.
func (i *Identity) Certificate() (tls.Certificate, error) {
	if i.Chain != nil {
		return tls.Certificate{Certificate: i.Chain, PrivateKey: i.Key}, nil
	}
	guest := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: i.ID().String()},
		NotBefore:    time.Unix(0, 0), NotAfter: noExpiry(),
		KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(nil, guest, guest, i.Public(), i.Key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("guest certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: i.Key}, nil
}

// Save writes node.key and, when admitted, node.crt to the folder dir, which must exist. Each file is
// replaced as a whole and durable on return. A node.key of another key is never overwritten.
func (i *Identity) Save(dir string) error {
	if err := SaveKey(filepath.Join(dir, keyFile), i.Key); err != nil {
		return err
	}
	if i.Chain == nil {
		return nil
	}
	var text []byte
	for _, der := range i.Chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der})...)
	}
	return ReplaceFile(filepath.Join(dir, certFile), text)
}

// LoadIdentity reads what Save wrote. The error wraps fs.ErrNotExist when there is no node.key; with
// no node.crt the identity has no chain. The chain is not verified: see Charter.VerifyChain.
func LoadIdentity(dir string) (*Identity, error) {
	key, err := LoadKey(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, err
	}
	i := &Identity{Key: key}
	path := filepath.Join(dir, certFile)
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if err != nil {
		return nil, err
	}
	for text = bytes.TrimSpace(text); len(text) > 0; text = bytes.TrimSpace(text) {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != pemCert {
			return nil, fmt.Errorf("read %s: not certificates in PEM; join the mesh again to replace it", path)
		}
		i.Chain = append(i.Chain, block.Bytes)
		text = rest
	}
	if len(i.Chain) != chainLength {
		return nil, fmt.Errorf("read %s: %d certificates, want %d; join the mesh again to replace it",
			path, len(i.Chain), chainLength)
	}
	return i, nil
}

// Save writes the charter to the folder dir, as a whole and durable on return.
func (c *Charter) Save(dir string) error {
	return ReplaceFile(filepath.Join(dir, charterName), c.raw)
}

// LoadCharter reads and verifies what Save wrote. The error wraps fs.ErrNotExist when there is none.
func LoadCharter(dir string) (*Charter, error) {
	path := filepath.Join(dir, charterName)
	b, err := readFile(path)
	if err != nil {
		return nil, err
	}
	c, err := ParseCharter(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return c, nil
}
