package link

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/wire"
)

func TestBookSurvivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cfg := w.config(1)
		a, b := w.startWith(1, cfg), w.start(2)
		w.teach(a, b)
		must(t, echo(a, b.self, "met"))
		a.Learn(w.cert(3), []string{"three.example:6374"})
		a.Learn(w.cert(4), []string{"four.example:6374"})
		a.Forget(w.id(4))
		a.stop()
		a = w.startWith(1, cfg)
		peers := a.Peers()
		if len(peers) != 2 {
			t.Fatalf("%d peers after the restart, want 2", len(peers))
		}
		p, _ := a.Peer(b.self)
		if p.Cert == nil || p.Cert.Name != "node-2" || !slices.Equal(p.Addrs, []string{b.Addr()}) || p.LastSeen.IsZero() {
			t.Errorf("b is remembered as %+v", p)
		}
		three, ok := a.Peer(w.id(3))
		if !ok || three.Cert == nil || !slices.Equal(three.Addrs, []string{"three.example:6374"}) || !three.LastSeen.IsZero() {
			t.Errorf("3 is remembered as %+v", three)
		}
		must(t, echo(a, b.self, "found again"))
	})
}

func TestBookIsSavedWithinSecondsAndAfterAFailure(t *testing.T) {
	for _, applied := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			cfg := w.config(1)
			shelf := newFakeShelf()
			shelf.fail, shelf.applied = true, applied
			cfg.Book = shelf
			a := w.startWith(1, cfg)
			a.Learn(w.cert(2), []string{"two.example:1"})
			time.Sleep(2 * saveEvery) // virtual
			shelf.mu.Lock()
			if len(shelf.rows) != 1 || shelf.fail {
				t.Errorf("%d rows two savings after a failure, want 1", len(shelf.rows))
			}
			shelf.mu.Unlock()
			a.Learn(w.cert(1), []string{"self.example:1"}) // this node is no peer of its own
			a.Learn(w.cert(3), nil)
			a.stop()
			again, err := New(cfg)
			must(t, err)
			if len(again.Peers()) != 2 {
				t.Errorf("%d peers on disk at the end, want 2", len(again.Peers()))
			}
			must(t, again.Close())
		})
	}
}

func TestBookComesFromTextWhenTheShelfIsEmpty(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cfg := w.config(1)
		cfg.BookFile = filepath.Join(t.TempDir(), "peers")
		a, b := w.startWith(1, cfg), w.start(2)
		w.teach(a, b)
		must(t, echo(a, b.self, "met"))
		a.Learn(w.cert(3), []string{"three.example:6374", "[2001:db8::3]:6374"})
		a.stop()
		text, err := os.ReadFile(cfg.BookFile)
		must(t, err)
		want := textHead + "\n" + b.self.String() + " 10.0.0.2:6374\n" +
			w.id(3).String() + " three.example:6374 [2001:db8::3]:6374\n"
		if string(text) != want {
			t.Errorf("text copy is\n%swant\n%s", text, want)
		}
		must(t, os.WriteFile(cfg.BookFile, []byte(want+"nonsense\n\nzz 1:2\n"+w.id(1).String()+" self:1\n"), 0o600))
		cfg.Book = newFakeShelf() // state.db is lost
		a = w.startWith(1, cfg)
		if n := len(a.Peers()); n != 2 {
			t.Errorf("%d peers from the text copy, want 2", n)
		}
		must(t, echo(a, b.self, "found by text alone"))
	})
}

func TestBookLeavesOutWhatItCannotRead(t *testing.T) {
	w := newWorld(t)
	other := newWorldOf(t, w, 77)
	cfg := w.config(1)
	shelf := newFakeShelf()
	cfg.Book = shelf
	page := func(p page) []byte {
		b, err := wire.Marshal(pageVersion, p)
		must(t, err)
		return b
	}
	two, three, four := w.id(2), w.id(3), w.id(4)
	shelf.rows["p"+string(two[:])] = []byte("garbage")
	shelf.rows["p"] = page(pageOf(nil))
	shelf.rows["p"+string(three[:])] = page(pageOf(other.identity(3).Chain))
	shelf.rows["p"+string(four[:])] = page(pageOf(w.identity(4).Chain))
	l, err := New(cfg)
	must(t, err)
	defer func() { must(t, l.Close()) }()
	if n := len(l.Peers()); n != 2 {
		t.Errorf("%d peers, want 2", n)
	}
	if p, _ := l.Peer(three); p.Cert != nil || len(p.Addrs) != 1 {
		t.Errorf("a peer with a foreign certificate reads as %+v, want its address alone", p)
	}
	if p, _ := l.Peer(four); p.Cert == nil {
		t.Errorf("a good peer reads as %+v", p)
	}
}

func pageOf(chain [][]byte) page { return page{Chain: chain, Addrs: []string{"a:1"}, SeenMs: 1} }

func TestOnlyAddressesEnterTheBook(t *testing.T) {
	for a, want := range map[string]bool{
		"10.0.0.1:6374": true, "[::1]:6374": true, "node.example:1": true,
		"": false, ":6374": false, "node": false, "node:": false, "a b:1": false, "a\nb:1": false, "\x1b[2J:1": false,
		strings.Repeat("a", addrBytes) + ":1": false, "#a:1": false,
	} {
		if goodAddr(a) != want {
			t.Errorf("goodAddr(%q) = %v, want %v", a, !want, want)
		}
	}
}
