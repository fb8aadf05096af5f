package catalog

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"meshd/mesh/trust"
)

// What one catalog holds comes to another in pages, and makes it equal; equal catalogs have equal pages.
func TestPagesCarryACatalog(t *testing.T) {
	w := newWorld(t, 4)
	all := w.openAll(t)
	for i, c := range all[:3] {
		for n := range 20 {
			publish(t, c, "app", uint64(n+1), 1+i)
		}
		status(t, c, i)
	}
	every := func(LogID) bool { return true }
	pages := func(c *Catalog) (out [][][]byte) {
		if err := c.Pages(every, 7, 3000, func(p [][]byte) error { out = append(out, p); return nil }); err != nil {
			t.Fatal(err)
		}
		return out
	}
	carry := func(from, to *Catalog) *Carried {
		k := to.Carry()
		list := pages(from)
		for _, p := range list {
			if len(p) > 7 {
				t.Fatalf("a page of %d records", len(p))
			}
			if err := k.Check(p); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range list {
			if err := to.Take(p); err != nil {
				t.Fatal(err)
			}
		}
		return k
	}
	hub, other := all[0], all[1]
	carry(all[1], hub)
	carry(all[2], hub)
	if k := carry(hub, other); k.Fresh == 0 || k.Keyless != 0 {
		t.Errorf("%d new, %d without a key", k.Fresh, k.Keyless)
	}
	alike(t, hub, other)
	if k := carry(hub, other); k.Fresh != 0 {
		t.Errorf("carried again, %d records are new", k.Fresh)
	}
	a, b := pages(hub), pages(other)
	if len(a) != len(b) {
		t.Fatalf("%d and %d pages", len(a), len(b))
	}
	for i := range a {
		if !bytes.Equal(bytes.Join(a[i], nil), bytes.Join(b[i], nil)) {
			t.Fatalf("page %d is another", i)
		}
	}
	// Records of an origin whose certificate did not come are counted, and dropped by the merge too.
	if err := hub.Pages(func(l LogID) bool { return l.Scope == ScopeMain }, 1000, 1<<20, func(p [][]byte) error {
		k := all[3].Carry()
		if err := k.Check(p); err != nil {
			return err
		}
		if k.Fresh != 0 || k.Keyless != uint64(len(p)) {
			t.Errorf("without certificates %d of %d are believed", k.Fresh, len(p))
		}
		return all[3].Take(p)
	}); err != nil {
		t.Fatal(err)
	}
	if got := all[3].Live(ScopeMain, KindArtifact, ""); len(got) != 0 {
		t.Errorf("%d records of unknown origins were taken", len(got))
	}
}

// A certificate of which any byte was altered makes the page be refused; one of another mesh is whole, and left out.
func TestAnAlteredCertificateIsRefused(t *testing.T) {
	pageOf := func(w *world) (page [][]byte) {
		c := w.open(t, 0, newShelf())
		status(t, c, 1)
		if err := c.Pages(func(LogID) bool { return true }, 1, 1<<20, func(p [][]byte) error {
			if page == nil {
				page = p
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return page
	}
	w := newWorld(t, 2)
	reader, page := w.open(t, 1, newShelf()), pageOf(w)
	if k := reader.Carry(); k.Check(page) != nil || k.Fresh != 1 {
		t.Fatalf("the certificate as it was made: %d new", k.Fresh)
	}
	for i := range page[0] {
		bad := bytes.Clone(page[0])
		bad[i] ^= 1
		if k := reader.Carry(); k.Check([][]byte{bad}) == nil {
			t.Errorf("byte %d of %d altered: %d new, %d left out, no error", i, len(bad), k.Fresh, k.Keyless)
		}
	}
	self := must(trust.NewIdentity(bytes.NewReader(seed("foreigner", 0))))(t)
	abroad := &world{ids: []*trust.Identity{self}}
	abroad.charter = must(trust.NewCharter(ed25519.NewKeyFromSeed(seed("root", 1)), self.Public(), epochStart))(t)
	box, _ := self.BoxKey()
	self.Chain = must(abroad.charter.Issue(self, self.Public(), *box, "foreigner", nil, seed("serial", 0)[:16], epochStart, epochStart.Add(trust.LeafLife)))(t)
	k := reader.Carry()
	if err := k.Check(pageOf(abroad)); err != nil || k.Keyless != 1 || k.Fresh != 0 {
		t.Errorf("a certificate of another mesh: %v, %d left out, %d new", err, k.Keyless, k.Fresh)
	}
}
