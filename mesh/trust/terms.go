package trust

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bytes of a publisher's prefix: an artifact's name has no more (SPEC 7).
const maxPrefix = 200

// document turns terms into what is signed, each list in its one order.
func document(t Terms) (doc charterDoc, err error) {
	if t.Threshold < 1 || t.Threshold > maxKeys {
		return doc, fmt.Errorf("threshold %d, want 1 to %d", t.Threshold, maxKeys)
	}
	doc = charterDoc{Threshold: uint16(t.Threshold), ExpiresMs: t.Expires.UnixMilli()}
	for _, list := range []struct {
		in  []ed25519.PublicKey
		out *[][32]byte
	}{{t.Roots, &doc.Roots}, {t.Sponsors, &doc.Sponsors}, {t.ScoreKeys, &doc.ScoreKeys}, {t.Revokers, &doc.Revokers}} {
		if *list.out, err = ascending(list.in); err != nil {
			return doc, err
		}
	}
	for _, p := range t.Publishers {
		if len(p.Key) != ed25519.PublicKeySize {
			return doc, fmt.Errorf("publisher key of %d bytes, want %d", len(p.Key), ed25519.PublicKeySize)
		}
		doc.Publishers = append(doc.Publishers, publisherDoc{[32]byte(p.Key), p.Prefix})
	}
	slices.SortFunc(doc.Publishers, publisherDoc.compare)
	doc.Publishers = slices.Compact(doc.Publishers)
	return doc, doc.check()
}

func ascending(keys []ed25519.PublicKey) ([][32]byte, error) {
	var out [][32]byte
	for _, k := range keys {
		if len(k) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("public key of %d bytes, want %d", len(k), ed25519.PublicKeySize)
		}
		out = append(out, [32]byte(k))
	}
	slices.SortFunc(out, compareKeys)
	return slices.Compact(out), nil
}

func compareKeys(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) }

func (p publisherDoc) compare(o publisherDoc) int {
	if c := compareKeys(p.Key, o.Key); c != 0 {
		return c
	}
	return strings.Compare(p.Prefix, o.Prefix)
}

// check reports whether a document is well formed, whoever signed it.
func (d charterDoc) check() error {
	for _, list := range []struct {
		what string
		keys [][32]byte
	}{{"root", d.Roots}, {"sponsor", d.Sponsors}, {"score", d.ScoreKeys}, {"revoke", d.Revokers}} {
		if len(list.keys) > maxKeys {
			return fmt.Errorf("%d %s keys, limit %d", len(list.keys), list.what, maxKeys)
		}
		for i := 1; i < len(list.keys); i++ {
			if compareKeys(list.keys[i-1], list.keys[i]) >= 0 {
				return fmt.Errorf("%s keys do not ascend", list.what)
			}
		}
	}
	if len(d.Publishers) > maxKeys {
		return fmt.Errorf("%d publishers, limit %d", len(d.Publishers), maxKeys)
	}
	for i, p := range d.Publishers {
		if len(p.Prefix) > maxPrefix {
			return fmt.Errorf("publisher prefix of %d bytes, limit %d", len(p.Prefix), maxPrefix)
		}
		if i > 0 && d.Publishers[i-1].compare(p) >= 0 {
			return errors.New("publishers do not ascend")
		}
	}
	if d.Threshold < 1 || int(d.Threshold) > len(d.Roots) {
		return fmt.Errorf("needs %d signatures of %d root keys", d.Threshold, len(d.Roots))
	}
	if d.ExpiresMs <= d.MadeMs {
		return errors.New("expires before it was made")
	}
	return nil
}

// terms is the reverse of document.
func (d charterDoc) terms() Terms {
	t := Terms{
		Threshold: int(d.Threshold), Roots: publicKeys(d.Roots), Sponsors: publicKeys(d.Sponsors),
		ScoreKeys: publicKeys(d.ScoreKeys), Revokers: publicKeys(d.Revokers),
		Expires: time.UnixMilli(d.ExpiresMs).UTC(),
	}
	for _, p := range d.Publishers {
		t.Publishers = append(t.Publishers, Publisher{p.Key[:], p.Prefix})
	}
	return t
}

func publicKeys(keys [][32]byte) []ed25519.PublicKey {
	out := make([]ed25519.PublicKey, len(keys))
	for i := range keys {
		out[i] = keys[i][:]
	}
	return out
}
