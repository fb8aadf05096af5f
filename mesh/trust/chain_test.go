package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshd/mesh/wire"
)

func TestIssueAndVerify(t *testing.T) {
	c, _, sponsor := founded(t)
	who := newIdentity(t, 3)
	pub, _ := who.BoxKey()
	tags := map[string]string{"tier": "edge", "site": "Zürich"}
	chain := issue(t, c, sponsor, who, "till-1", tags)
	got, err := c.VerifyChain(chain)
	if err != nil {
		t.Fatal(err)
	}
	want := &Cert{
		ID: who.ID(), Sponsor: sponsor.ID(), Key: who.Public(), Box: *pub, Name: "till-1", Tags: tags,
		Serial: strings.Repeat("fe", 16), NotBefore: noon, NotAfter: noon.Add(LeafLife), Chain: chain,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("certificate (-want +got):\n%s", d)
	}
	if again := issue(t, c, sponsor, who, "till-1", tags); !bytes.Equal(again[1], chain[1]) {
		t.Error("the intermediate is not the same bytes every time")
	}
	t.Logf("leaf %d bytes, intermediate %d", len(chain[0]), len(chain[1]))
}

func TestIssueRefuses(t *testing.T) {
	c, _, sponsor := founded(t)
	who := newIdentity(t, 3)
	serial := bytes.Repeat([]byte{1}, serialBytes)
	large := map[string]string{}
	for i := range 10 {
		large["key"+string(rune('a'+i))] = strings.Repeat("v", maxTagValue)
	}
	for name, try := range map[string]func() error{
		"no sponsor": func() error {
			_, err := c.Issue(who, who.Public(), [32]byte{}, "", nil, serial, noon, noon.Add(LeafLife))
			return err
		},
		"zero serial": func() error {
			_, err := c.Issue(sponsor, who.Public(), [32]byte{}, "", nil, make([]byte, 16), noon, noon.Add(LeafLife))
			return err
		},
		"ends before it begins": func() error {
			_, err := c.Issue(sponsor, who.Public(), [32]byte{}, "", nil, serial, noon, noon)
			return err
		},
		"lives too long": func() error {
			_, err := c.Issue(sponsor, who.Public(), [32]byte{}, "", nil, serial, noon, noon.Add(MaxLeafLife+time.Second))
			return err
		},
		"bad name": func() error {
			_, err := c.Issue(sponsor, who.Public(), [32]byte{}, "../etc", nil, serial, noon, noon.Add(LeafLife))
			return err
		},
		"tags too large": func() error {
			_, err := c.Issue(sponsor, who.Public(), [32]byte{}, "", large, serial, noon, noon.Add(LeafLife))
			return err
		},
		"short key": func() error {
			_, err := c.Issue(sponsor, who.Public()[:31], [32]byte{}, "", nil, serial, noon, noon.Add(LeafLife))
			return err
		},
	} {
		if try() == nil {
			t.Errorf("%s: issued", name)
		}
	}
}

// forge is a chain in the making: what the honest one has, for a case to spoil.
type forge struct {
	c             *Charter
	sponsor, who  *Identity
	leaf, parent  *x509.Certificate
	leafKey       any // public
	signer        any // private: of the leaf
	parentKey     ed25519.PrivateKey
	said          attested
	noExt, twice  bool
	extCritical   bool
	extID         asn1.ObjectIdentifier
	chain         func(leaf, parent []byte) [][]byte
	extraCritical bool
	rawExt        []byte
}

func newForge(t *testing.T) *forge {
	c, _, sponsor := founded(t)
	who := newIdentity(t, 3)
	pub, _ := who.BoxKey()
	return &forge{
		c: c, sponsor: sponsor, who: who, leafKey: who.Public(), signer: sponsor.Key, parentKey: sponsor.Key,
		said: attested{"till-1", map[string]string{"tier": "edge"}, *pub}, extCritical: true, extID: attestedOID(),
		leaf: &x509.Certificate{
			SerialNumber: big.NewInt(77), NotBefore: noon, NotAfter: noon.Add(LeafLife), BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: leafUsage(), URIs: []*url.URL{c.uri(who.ID())},
		},
		parent: &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: sponsor.ID().String()},
			NotBefore: time.Unix(0, 0), NotAfter: noExpiry(), BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
			KeyUsage: x509.KeyUsageCertSign, URIs: []*url.URL{c.uri(sponsor.ID())},
		},
		chain: func(leaf, parent []byte) [][]byte { return [][]byte{leaf, parent} },
	}
}

func (f *forge) make(t *testing.T) [][]byte {
	t.Helper()
	value, err := wire.Marshal(wireVersion, f.said)
	if err != nil {
		t.Fatal(err)
	}
	if f.rawExt != nil {
		value = f.rawExt
	}
	if !f.noExt {
		f.leaf.ExtraExtensions = append(f.leaf.ExtraExtensions, pkix.Extension{Id: f.extID, Critical: f.extCritical, Value: value})
	}
	if f.twice {
		f.leaf.ExtraExtensions = append(f.leaf.ExtraExtensions, f.leaf.ExtraExtensions[0])
	}
	unknown := pkix.Extension{Id: asn1.ObjectIdentifier{2, 25, 99}, Critical: true, Value: []byte{5, 0}}
	if f.extraCritical {
		f.leaf.ExtraExtensions = append(f.leaf.ExtraExtensions, unknown)
	}
	parent, err := x509.CreateCertificate(nil, f.parent, f.parent, f.parentKey.Public(), f.parentKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(parent)
	if err != nil {
		t.Fatal(err)
	}
	if !made.PublicKey.(ed25519.PublicKey).Equal(f.signer.(ed25519.PrivateKey).Public()) {
		made = &x509.Certificate{Subject: f.parent.Subject, RawSubject: made.RawSubject} // signed by another than it says
	}
	leaf, err := x509.CreateCertificate(nil, f.leaf, made, f.leafKey, f.signer)
	if err != nil {
		t.Fatal(err)
	}
	return f.chain(leaf, parent)
}

func TestBadChains(t *testing.T) {
	stranger := newIdentity(t, 40)
	link := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	cases := map[string]func(f *forge){
		"leaf without a name":  func(f *forge) { f.leaf.URIs = nil },
		"leaf with two URIs":   func(f *forge) { f.leaf.URIs = append(f.leaf.URIs, f.leaf.URIs[0]) },
		"leaf with a DNS name": func(f *forge) { f.leaf.DNSNames = []string{"till-1"} },
		"leaf with an address": func(f *forge) { f.leaf.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} },
		"leaf with e-mail":     func(f *forge) { f.leaf.EmailAddresses = []string{"a@b"} },
		"wrong mesh": func(f *forge) {
			f.leaf.URIs = []*url.URL{link("meshd://" + strings.Repeat("0", 64) + "/" + f.who.ID().String())}
		},
		"mesh's sub-domain": func(f *forge) {
			f.leaf.URIs = []*url.URL{link("meshd://a." + f.c.uri(f.who.ID()).Host + "/" + f.who.ID().String())}
		},
		"another node's name": func(f *forge) { f.leaf.URIs = []*url.URL{f.c.uri(f.sponsor.ID())} },
		"name with a query":   func(f *forge) { f.leaf.URIs = []*url.URL{link(f.c.uri(f.who.ID()).String() + "?a=b")} },
		"name in upper case":  func(f *forge) { f.leaf.URIs = []*url.URL{link(strings.ToUpper(f.c.uri(f.who.ID()).String()))} },
		"leaf that is a CA": func(f *forge) {
			f.leaf.IsCA, f.leaf.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		},
		"leaf with no verdict":  func(f *forge) { f.leaf.BasicConstraintsValid = false },
		"leaf for code signing": func(f *forge) { f.leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} },
		"leaf for anything":     func(f *forge) { f.leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny} },
		"leaf without usage":    func(f *forge) { f.leaf.ExtKeyUsage = nil },
		"leaf may encipher":     func(f *forge) { f.leaf.KeyUsage |= x509.KeyUsageKeyEncipherment },
		"leaf too long-lived":   func(f *forge) { f.leaf.NotAfter = noon.Add(MaxLeafLife + time.Hour) },
		"leaf ends at once":     func(f *forge) { f.leaf.NotAfter = noon },
		"serial too long":       func(f *forge) { f.leaf.SerialNumber = new(big.Int).Lsh(big.NewInt(1), 130) },
		"no extension":          func(f *forge) { f.noExt = true },
		"extension not critical": func(f *forge) {
			f.extCritical = false
		},
		"extension twice":       func(f *forge) { f.twice = true },
		"other critical too":    func(f *forge) { f.extraCritical = true },
		"other critical alone":  func(f *forge) { f.noExt, f.extraCritical = true, true },
		"ours plain, other not": func(f *forge) { f.extCritical, f.extraCritical = false, true },
		"extension garbage":     func(f *forge) { f.rawExt = []byte{wireVersion, 0xdd, 255, 255, 255, 255} },
		"extension too large": func(f *forge) {
			f.rawExt = append([]byte{wireVersion, 0x93, 0xda, 4, 0}, bytes.Repeat([]byte{'x'}, 1024)...)
		},
		"name not allowed":          func(f *forge) { f.said.Name = "a b" },
		"tag not allowed":           func(f *forge) { f.said.Tags = map[string]string{"tier": "\x1b[2J"} },
		"signed by a stranger":      func(f *forge) { f.signer = stranger.Key },
		"signed by itself":          func(f *forge) { f.signer = f.who.Key },
		"leaf's key P-256":          func(f *forge) { f.leafKey = ecdsaKey(t).Public() },
		"parent of a stranger":      func(f *forge) { f.adopt(stranger) },
		"parent's name, other key":  func(f *forge) { f.parentKey, f.signer = stranger.Key, stranger.Key },
		"parent that is no CA":      func(f *forge) { f.parent.IsCA, f.parent.MaxPathLenZero = false, false },
		"parent without path limit": func(f *forge) { f.parent.MaxPathLenZero, f.parent.MaxPathLen = false, -1 },
		"parent of path length 1":   func(f *forge) { f.parent.MaxPathLenZero, f.parent.MaxPathLen = false, 1 },
		"parent for anything":       func(f *forge) { f.parent.KeyUsage |= x509.KeyUsageDigitalSignature },
		"parent of another mesh": func(f *forge) {
			f.parent.URIs = []*url.URL{link("meshd://" + strings.Repeat("1", 64) + "/" + f.sponsor.ID().String())}
		},
		"parent without a name": func(f *forge) { f.parent.URIs = nil },
		"parent with constraints": func(f *forge) {
			f.parent.PermittedURIDomains, f.parent.PermittedDNSDomainsCritical = []string{"elsewhere.example"}, true
		},
		"parent with usage": func(f *forge) { f.parent.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} },
		"parent with a critical extension": func(f *forge) {
			f.parent.ExtraExtensions = []pkix.Extension{{Id: attestedOID(), Critical: true, Value: []byte{5, 0}}}
		},
		"leaf alone":         func(f *forge) { f.chain = func(l, _ []byte) [][]byte { return [][]byte{l} } },
		"parent alone":       func(f *forge) { f.chain = func(_, p []byte) [][]byte { return [][]byte{p} } },
		"nothing":            func(f *forge) { f.chain = func(_, _ []byte) [][]byte { return nil } },
		"wrong order":        func(f *forge) { f.chain = func(l, p []byte) [][]byte { return [][]byte{p, l} } },
		"one more":           func(f *forge) { f.chain = func(l, p []byte) [][]byte { return [][]byte{l, p, p} } },
		"leaf twice":         func(f *forge) { f.chain = func(l, _ []byte) [][]byte { return [][]byte{l, l} } },
		"parent twice":       func(f *forge) { f.chain = func(_, p []byte) [][]byte { return [][]byte{p, p} } },
		"bytes after":        func(f *forge) { f.chain = func(l, p []byte) [][]byte { return [][]byte{append(l, 0), p} } },
		"not a certificate":  func(f *forge) { f.chain = func(_, p []byte) [][]byte { return [][]byte{{1, 2, 3}, p} } },
		"signature changed":  func(f *forge) { f.chain = func(l, p []byte) [][]byte { l[len(l)-1] ^= 1; return [][]byte{l, p} } },
		"parent sig changed": func(f *forge) { f.chain = func(l, p []byte) [][]byte { p[len(p)-1] ^= 1; return [][]byte{l, p} } },
		"certificate too large": func(f *forge) {
			f.leaf.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 25, 98}, Value: make([]byte, maxCertDER)}}
		},
		"sub-CA": func(f *forge) { subCA(t, f) },
	}
	honest := newForge(t)
	if _, err := honest.c.VerifyChain(honest.make(t)); err != nil {
		t.Fatalf("the honest chain: %v", err)
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			f := newForge(t)
			spoil(f)
			chain := f.make(t)
			cert, err := f.c.VerifyChain(chain)
			if err == nil {
				t.Fatalf("accepted: %+v", cert)
			}
			t.Log(err)
		})
	}
}

// adopt lets the stranger stand where the sponsor should.
func (f *forge) adopt(s *Identity) {
	f.parentKey, f.signer = s.Key, s.Key
	f.parent.Subject.CommonName, f.parent.URIs = s.ID().String(), []*url.URL{f.c.uri(s.ID())}
}

// subCA puts a CA that the sponsor signed between it and the leaf.
func subCA(t *testing.T, f *forge) {
	sub := newIdentity(t, 41)
	own, err := f.c.intermediate(f.sponsor)
	if err != nil {
		t.Fatal(err)
	}
	below := *f.parent
	below.Subject.CommonName, below.URIs = sub.ID().String(), []*url.URL{f.c.uri(sub.ID())}
	der, err := x509.CreateCertificate(nil, &below, own, sub.Public(), f.sponsor.Key)
	if err != nil {
		t.Fatal(err)
	}
	f.adopt(sub)
	f.chain = func(leaf, _ []byte) [][]byte { return [][]byte{leaf, der} }
}

func ecdsaKey(t *testing.T) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestSponsorOutOfTheCharterCountsNoMore(t *testing.T) {
	c, root, sponsor := founded(t)
	chain := issue(t, c, sponsor, newIdentity(t, 3), "", nil)
	terms := c.Terms()
	terms.Sponsors = []ed25519.PublicKey{newIdentity(t, 8).Public()}
	next, err := c.Amend(terms, noon, root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next.VerifyChain(chain); err == nil {
		t.Error("a chain of a former sponsor is accepted")
	}
}

func TestUsable(t *testing.T) {
	c := Cert{NotBefore: noon, NotAfter: noon.Add(LeafLife)}
	day := 24 * time.Hour
	for name, tt := range map[string]struct {
		now             time.Time
		usable, expired bool
	}{
		"fresh":                    {noon, true, false},
		"last moment":              {noon.Add(LeafLife), true, false},
		"expired":                  {noon.Add(LeafLife + time.Second), true, true},
		"a year after":             {noon.Add(LeafLife + 365*day), true, true},
		"more than a year after":   {noon.Add(LeafLife + 365*day + time.Second), false, true},
		"clock a year behind":      {noon.Add(-365 * day), true, false},
		"clock further behind":     {noon.Add(-366 * day), false, false},
		"clock a year ahead":       {noon.Add(365 * day), true, true},
		"phone asleep for a month": {noon.Add(31 * day), true, true},
	} {
		if got := c.Usable(tt.now) == nil; got != tt.usable || c.Expired(tt.now) != tt.expired {
			t.Errorf("%s: usable %v, expired %v, want %v, %v", name, got, c.Expired(tt.now), tt.usable, tt.expired)
		}
	}
	if got, want := c.RenewAt(), noon.Add(10*day); !got.Equal(want) {
		t.Errorf("renew at %s, want %s", got, want)
	}
}

// The TLS of the standard library takes the certificates, admitted and guest, and both ends export
// the value over which a join is proved.
func TestCertificatesServeTLS(t *testing.T) {
	c, _, sponsor := founded(t)
	guest := newIdentity(t, 3)
	config := func(i *Identity) *tls.Config {
		cert, err := i.Certificate()
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{
			Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert,
			InsecureSkipVerify: true, Time: func() time.Time { return noon },
		}
	}
	a, b := net.Pipe()
	client, server := tls.Client(a, config(guest)), tls.Server(b, config(sponsor))
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	var values [2][]byte
	var chains [2][][]byte
	for i, end := range []*tls.Conn{client, server} {
		state := end.ConnectionState()
		v, err := state.ExportKeyingMaterial("EXPERIMENTAL meshd", nil, 32)
		if err != nil {
			t.Fatal(err)
		}
		values[i] = v
		for _, cert := range state.PeerCertificates {
			chains[i] = append(chains[i], cert.Raw)
		}
	}
	if !bytes.Equal(values[0], values[1]) {
		t.Error("the ends export unlike values")
	}
	if _, err := c.VerifyChain(chains[0]); err != nil {
		t.Errorf("chain of the sponsor over TLS: %v", err)
	}
	if _, err := c.VerifyChain(chains[1]); err == nil {
		t.Error("a guest's own certificate is accepted as admitted")
	}
}

func FuzzChain(f *testing.F) {
	c, _, sponsor := founded(f)
	chain := issue(f, c, sponsor, newIdentity(f, 3), "till-1", map[string]string{"tier": "edge"})
	f.Add(chain[0], chain[1])
	f.Fuzz(func(t *testing.T, leaf, parent []byte) {
		cert, err := c.VerifyChain([][]byte{leaf, parent})
		if err == nil && !(bytes.Equal(leaf, chain[0]) && cert.Name == "till-1") {
			t.Errorf("a chain that nobody signed is accepted: %x", leaf)
		}
	})
}

func FuzzAttested(f *testing.F) {
	if b, err := wire.Marshal(wireVersion, attested{"till-1", map[string]string{"tier": "edge"}, [32]byte{1}}); err == nil {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var said attested
		if wire.Unmarshal(b, wireVersion, wire.Limits{Bytes: maxAttested, Items: MaxTags}, &said) != nil {
			return
		}
		if again, err := wire.Marshal(wireVersion, said); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x reads to what writes to %x (%v)", b, again, err)
		}
	})
}
