package trust

import (
	"crypto/ed25519"
	"fmt"
	"regexp"
	"time"
	"unicode"

	"meshd/mesh/id"
)

// Lifetimes of a leaf certificate (SPEC 11).
const (
	LeafLife    = 30 * 24 * time.Hour  // what a sponsor gives
	MaxLeafLife = 366 * 24 * time.Hour // what anybody accepts
	// Grace is how long unrevoked peers accept each other past expiry, and also before the time of
	// issue: a fleet whose clocks went back must not fall apart.
	Grace = 365 * 24 * time.Hour
)

// Limits of names and tags that a certificate, an invite or a request carries.
const (
	MaxTags     = 32
	maxTagKey   = 63  // bytes
	maxTagValue = 128 // bytes
	maxAttested = 768 // bytes of name, tags and box key in a certificate: a record holds 2 KiB
)

// A Cert is what a verified chain says about a node. It is not changed after VerifyChain.
type Cert struct {
	ID      id.Node
	Sponsor id.Node // who issued it
	Key     ed25519.PublicKey
	Box     [32]byte          // X25519 key of the node's sealed packets
	Name    string            // attested; "" when the certificate binds none
	Tags    map[string]string // attested; never nil
	Serial  string            // 32 hexadecimal digits
	// NotBefore and NotAfter are by the sponsor's clock, in whole seconds.
	NotBefore, NotAfter time.Time
	Chain               [][]byte // as verified: leaf, intermediate
}

// Usable returns nil while peers accept the certificate: from a year before its time to a year past
// its expiry. That it is not revoked is for the caller to know.
func (c *Cert) Usable(now time.Time) error {
	switch {
	case now.Before(c.NotBefore.Add(-Grace)):
		return fmt.Errorf("certificate of %s begins at %s, more than a year from now (%s): set the clock",
			c.ID.Short(), stamp(c.NotBefore), stamp(now))
	case now.After(c.NotAfter.Add(Grace)):
		return fmt.Errorf("certificate of %s expired at %s, more than a year before now (%s): renew it at a sponsor",
			c.ID.Short(), stamp(c.NotAfter), stamp(now))
	}
	return nil
}

// Expired reports whether the certificate lives on grace: still usable, and told to people.
func (c *Cert) Expired(now time.Time) bool { return now.After(c.NotAfter) }

// RenewAt is when the node asks a sponsor for the next certificate: after a third of its life.
func (c *Cert) RenewAt() time.Time {
	return c.NotBefore.Add(c.NotAfter.Sub(c.NotBefore) / 3)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// namePattern is that of SPEC 4.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// CheckName returns nil for a node name as SPEC 4 allows them.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("node name %.80q: want a letter or digit, then up to 62 of letters, digits, and . _ -", name)
	}
	return nil
}

// CheckTags returns nil for tags that a certificate may attest and a node may declare.
func CheckTags(tags map[string]string) error {
	if len(tags) > MaxTags {
		return fmt.Errorf("%d tags, limit %d", len(tags), MaxTags)
	}
	for k, v := range tags {
		if !namePattern.MatchString(k) || len(k) > maxTagKey {
			return fmt.Errorf("tag key %.80q: want a letter or digit, then up to 62 of letters, digits, and . _ -", k)
		}
		if len(v) > maxTagValue {
			return fmt.Errorf("tag %s: value of %d bytes, limit %d", k, len(v), maxTagValue)
		}
		for _, r := range v {
			if !unicode.IsPrint(r) {
				return fmt.Errorf("tag %s: value %q has a character that cannot be printed", k, v)
			}
		}
	}
	return nil
}
