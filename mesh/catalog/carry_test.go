package catalog

import (
	"bytes"
	"testing"
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
