package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
)

const (
	chainLength = 2       // leaf and intermediate, never more
	maxCertDER  = 2 << 10 // bytes of one certificate
	serialBytes = 16
)

// attested is the content of the one critical extension of a leaf. It goes by no registered number:
// 2.25 is the arc of numbers that need none, and the rest spells "mesh".
type attested struct {
	Name string
	Tags map[string]string
	Box  [32]byte
}

func attestedOID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 25, 0x6d657368} }

// noExpiry is the date by which RFC 5280 4.1.2.5 says "no end". An intermediate ends when the charter
// stops naming its key, and not before: a leaf must not die with it.
func noExpiry() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }

// Issue signs a leaf for the key who, with name ("" binds none) and tags attested, and returns the
// chain. The sponsor must be one of the charter's; serial is 16 random bytes, not all zero.
func (c *Charter) Issue(
	sponsor *Identity, who ed25519.PublicKey, box [32]byte, name string, tags map[string]string,
	serial []byte, notBefore, notAfter time.Time,
) (chain [][]byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("issue certificate: %w", err)
		}
	}()
	if !c.names(sponsor.Public()) {
		return nil, fmt.Errorf("%s is no sponsor of mesh %s", sponsor.ID().Short(), c.MeshName())
	}
	if len(who) != ed25519.PublicKeySize || len(serial) != serialBytes {
		return nil, fmt.Errorf("key of %d bytes and serial of %d, want %d and %d",
			len(who), len(serial), ed25519.PublicKeySize, serialBytes)
	}
	if len(tags) == 0 {
		tags = nil
	}
	ext, err := wire.Marshal(wireVersion, attested{name, tags, box})
	if err != nil {
		return nil, err
	}
	parent, err := c.intermediate(sponsor)
	if err != nil {
		return nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial),
		NotBefore:    notBefore, NotAfter: notAfter,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           leafUsage(),
		URIs:                  []*url.URL{c.uri(id.FromKey(who))},
		ExtraExtensions:       []pkix.Extension{{Id: attestedOID(), Critical: true, Value: ext}},
	}
	der, err := x509.CreateCertificate(nil, leaf, parent, who, sponsor.Key)
	if err != nil {
		return nil, err
	}
	chain = [][]byte{der, parent.Raw}
	_, err = c.VerifyChain(chain) // whatever others would refuse is not issued
	return chain, err
}

// intermediate makes the sponsor's own CA certificate: the same bytes every time.
func (c *Charter) intermediate(sponsor *Identity) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: sponsor.ID().String()},
		NotBefore:    time.Unix(0, 0), NotAfter: noExpiry(),
		BasicConstraintsValid: true, IsCA: true, MaxPathLen: 0, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
		URIs:     []*url.URL{c.uri(sponsor.ID())},
	}
	der, err := x509.CreateCertificate(nil, template, template, sponsor.Public(), sponsor.Key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func parseCert(der []byte) (*x509.Certificate, error) {
	if len(der) > maxCertDER {
		return nil, fmt.Errorf("certificate of %d bytes, limit %d", len(der), maxCertDER)
	}
	return x509.ParseCertificate(der)
}

// LeafKey is the key that a chain's leaf names, whoever vouches for it: enough to judge what its owner signed.
func LeafKey(chain [][]byte) (ed25519.PublicKey, error) {
	if len(chain) == 0 {
		return nil, errors.New("certificate chain: it is empty")
	}
	leaf, err := parseCert(chain[0])
	if err != nil {
		return nil, fmt.Errorf("certificate chain: %w", err)
	}
	key, ok := leaf.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("certificate chain: leaf: key is a %T, want Ed25519", leaf.PublicKey)
	}
	return key, nil
}

// VerifyChain returns what the chain (leaf, intermediate) says, if every word of it is as this
// charter has it; all but time, for which see Cert.Usable, and revocation.
func (c *Charter) VerifyChain(chain [][]byte) (*Cert, error) {
	if len(chain) != chainLength {
		return nil, fmt.Errorf("certificate chain: %d certificates, want %d", len(chain), chainLength)
	}
	var certs [chainLength]*x509.Certificate
	for i, der := range chain {
		cert, err := parseCert(der)
		if err != nil {
			return nil, fmt.Errorf("certificate chain: %w", err)
		}
		certs[i] = cert
	}
	leaf, parent := certs[0], certs[1]
	if err := c.checkIntermediate(parent); err != nil {
		return nil, fmt.Errorf("certificate chain: intermediate: %w", err)
	}
	said, err := c.checkLeaf(leaf)
	if err != nil {
		return nil, fmt.Errorf("certificate chain: leaf: %w", err)
	}
	if err := verifyPath(leaf, parent); err != nil {
		return nil, fmt.Errorf("certificate chain: %w", err)
	}
	key := ed25519.PublicKey(bytes.Clone(leaf.PublicKey.(ed25519.PublicKey)))
	cert := &Cert{
		ID: id.FromKey(key), Sponsor: id.FromKey(parent.PublicKey.(ed25519.PublicKey)), Key: key,
		Box: said.Box, Name: said.Name, Tags: said.Tags,
		Serial:    hex.EncodeToString(leaf.SerialNumber.FillBytes(make([]byte, serialBytes))),
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(),
		Chain: [][]byte{bytes.Clone(chain[0]), bytes.Clone(chain[1])},
	}
	if cert.Tags == nil {
		cert.Tags = map[string]string{}
	}
	return cert, nil
}

// checkIntermediate verifies the CA certificate by itself: a sponsor's own, and no more than that.
func (c *Charter) checkIntermediate(cert *x509.Certificate) error {
	key, err := c.checkCommon(cert)
	if err != nil {
		return err
	}
	switch {
	case !c.names(key):
		return fmt.Errorf("its key (node %s) is no sponsor in the charter of mesh %s", id.FromKey(key).Short(), c.MeshName())
	case !cert.BasicConstraintsValid || !cert.IsCA || cert.MaxPathLen != 0 || !cert.MaxPathLenZero:
		return errors.New("is not a CA of path length 0")
	case cert.KeyUsage != x509.KeyUsageCertSign:
		return errors.New("key usage is not certificate signing alone")
	case len(cert.ExtKeyUsage)+len(cert.UnknownExtKeyUsage) > 0:
		return errors.New("has an extended key usage")
	case len(cert.UnhandledCriticalExtensions) > 0:
		return fmt.Errorf("unknown critical extension %s", cert.UnhandledCriticalExtensions[0])
	case cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil:
		return errors.New("is not signed by its own key")
	}
	return nil
}

// checkLeaf verifies all of the leaf but its signature.
func (c *Charter) checkLeaf(cert *x509.Certificate) (attested, error) {
	var said attested
	if _, err := c.checkCommon(cert); err != nil {
		return said, err
	}
	switch {
	case !cert.BasicConstraintsValid || cert.IsCA:
		return said, errors.New("is a CA, or does not say that it is none")
	case cert.KeyUsage != x509.KeyUsageDigitalSignature:
		return said, errors.New("key usage is not digital signature alone")
	case !slices.Equal(cert.ExtKeyUsage, leafUsage()) || len(cert.UnknownExtKeyUsage) > 0:
		return said, errors.New("extended key usage is not TLS server and client alone")
	case cert.SerialNumber.Sign() <= 0 || cert.SerialNumber.BitLen() > 8*serialBytes:
		return said, fmt.Errorf("serial is not a positive number of at most %d bytes", serialBytes)
	case !cert.NotAfter.After(cert.NotBefore) || cert.NotAfter.Sub(cert.NotBefore) > MaxLeafLife:
		return said, fmt.Errorf("lives from %s to %s, limit %d days",
			stamp(cert.NotBefore), stamp(cert.NotAfter), MaxLeafLife/(24*time.Hour))
	case len(cert.UnhandledCriticalExtensions) != 1:
		return said, fmt.Errorf("%d unknown critical extensions, want our own alone", len(cert.UnhandledCriticalExtensions))
	}
	found := 0
	for _, ext := range cert.Extensions {
		if !ext.Id.Equal(attestedOID()) {
			continue
		}
		if found++; found > 1 || !ext.Critical {
			return said, errors.New("our extension is there twice, or is not critical")
		}
		if err := wire.Unmarshal(ext.Value, wireVersion, wire.Limits{Bytes: maxAttested, Items: MaxTags}, &said); err != nil {
			return said, err
		}
	}
	if found == 0 {
		return said, fmt.Errorf("unknown critical extension %s", cert.UnhandledCriticalExtensions[0])
	}
	if said.Name != "" {
		if err := CheckName(said.Name); err != nil {
			return said, err
		}
	}
	return said, CheckTags(said.Tags)
}

// checkCommon verifies what every certificate of a mesh has: an Ed25519 key, and exactly the one URI
// of that key in this mesh as its name.
func (c *Charter) checkCommon(cert *x509.Certificate) (ed25519.PublicKey, error) {
	key, ok := cert.PublicKey.(ed25519.PublicKey)
	if !ok || cert.SignatureAlgorithm != x509.PureEd25519 {
		return nil, fmt.Errorf("key %T, signed with %s: want Ed25519", cert.PublicKey, cert.SignatureAlgorithm)
	}
	if len(cert.DNSNames)+len(cert.EmailAddresses)+len(cert.IPAddresses) > 0 || len(cert.URIs) != 1 {
		return nil, errors.New("names are not exactly one URI")
	}
	if got, want := cert.URIs[0].String(), c.uri(id.FromKey(key)).String(); got != want {
		return nil, fmt.Errorf("is named %.120q, want %q", got, want)
	}
	return key, nil
}

// verifyPath lets the standard library judge signature, issuer and constraints too. Our extension,
// which checkLeaf has read, is struck off a copy.
func verifyPath(leaf, parent *x509.Certificate) error {
	judged := *leaf
	judged.UnhandledCriticalExtensions = nil
	roots := x509.NewCertPool()
	roots.AddCert(parent)
	_, err := judged.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: leaf.NotBefore,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return err
}

// names reports whether the charter lists key, all of it, as a sponsor's.
func (c *Charter) names(key ed25519.PublicKey) bool {
	return slices.ContainsFunc(c.terms.Sponsors, func(k ed25519.PublicKey) bool { return k.Equal(key) })
}

// uri is how a node of the mesh is named in certificates: meshd://MESHID/NODEID.
func (c *Charter) uri(n id.Node) *url.URL {
	return &url.URL{Scheme: "meshd", Host: hex.EncodeToString(c.mesh[:]), Path: "/" + n.String()}
}

func leafUsage() []x509.ExtKeyUsage {
	return []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
}
