package link

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/trust"
)

func TestFiveLinksHandOverStreamsAndPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.net.Delay(time.Millisecond, 20*time.Millisecond)
		nodes := make([]*node, 5)
		for i := range nodes {
			nodes[i] = w.start(i + 1)
		}
		for _, a := range nodes {
			for _, b := range nodes {
				if a == b {
					continue
				}
				w.teach(a, b)
				must(t, echo(a, b.self, "hello"))
			}
		}
		for _, a := range nodes {
			for _, b := range nodes {
				if a == b {
					continue
				}
				must(t, a.Send(b.self, 't', []byte("packet")))
				expect(t, b, a.self.Short()+" packet")
			}
		}
	})
}

func TestTwoLinksOnLoopback(t *testing.T) {
	w := newWorld(t)
	nodes := make([]*node, 2)
	for i := range nodes {
		cfg := w.config(i + 1)
		cfg.Network, cfg.Listen = Real, "127.0.0.1:0"
		nodes[i] = w.startWith(i+1, cfg)
	}
	a, b := nodes[0], nodes[1]
	w.teach(a, b)
	must(t, echo(a, b.self, "over TCP"))
	must(t, a.Send(b.self, 't', []byte("over UDP")))
	expect(t, b, a.self.Short()+" over UDP")
	must(t, b.Send(a.self, 't', []byte("and back")))
	expect(t, a, b.self.Short()+" and back")
	if _, _, err := Real.Listen(a.Addr()); err == nil {
		t.Error("a busy port was bound twice")
	}
	c, cert, err := a.DialAddr(t.Context(), b.Addr(), protoEcho)
	must(t, err)
	if cert.ID != b.self || cert.Name != "node-2" {
		t.Errorf("DialAddr says %s %q answers", cert.ID, cert.Name)
	}
	must(t, echoOn(c, "seed"))
	must(t, c.Close())
}

func TestDialRefusesWhoeverIsNotTheNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start(1), w.start(2)
		other := newWorldOf(t, w, 77)
		stranger := other.startWith(9, other.config(9))
		tests := []struct {
			name, addr, want string
		}{
			{"another node of the mesh", b.Addr(), "node " + b.self.String() + " answers there"},
			{"node of another mesh", stranger.Addr(), "handshake"},
			{"nobody", "10.0.0.99:6374", "refused"},
			{"this node", a.Addr(), "this node itself"},
		}
		for _, tt := range tests {
			a.Forget(w.id(3))
			a.Learn(w.cert(3), []string{tt.addr})
			_, err := a.Dial(t.Context(), w.id(3), protoEcho)
			if !errors.Is(err, ErrUnreachable) {
				t.Errorf("%s: error %v does not wrap ErrUnreachable", tt.name, err)
			}
			wantError(t, err, tt.want)
		}
		_, err := a.Dial(t.Context(), w.id(4), protoEcho)
		wantError(t, err, "no address")
		_, _, err = a.DialAddr(t.Context(), b.Addr(), "meshd/none/1")
		wantError(t, err, "handshake")
	})
}

// newWorldOf is another mesh on the network of w.
func newWorldOf(t *testing.T, w *world, first int) *world {
	o := &world{t: t, net: w.net, revoked: map[id.Node]bool{}, sponsor: &trust.Identity{Key: w.key(first)}}
	var err error
	o.charter, err = trust.NewCharter(w.key(first+1), o.sponsor.Public(), time.Now())
	must(t, err)
	return o
}

func TestExpiredBeyondGraceIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start(1)
		late := w.config(2)
		late.Wall = func() time.Time { return time.Now().Add(2 * 365 * 24 * time.Hour) }
		b := w.startWith(2, late)
		w.teach(a, b)
		wantError(t, echo(a, b.self, "x"), "bad certificate")
	})
}

func TestRevokedKeyIsShutOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b, c := w.start(1), w.start(2), w.start(3)
		w.teach(a, b)
		w.teach(a, c)
		w.teach(b, a)
		must(t, echo(a, b.self, "met"))
		in, err := b.Dial(t.Context(), a.self, protoEcho)
		must(t, err)
		out, err := a.Dial(t.Context(), b.self, protoEcho)
		must(t, err)
		stays, err := a.Dial(t.Context(), c.self, protoEcho)
		must(t, err)
		w.revoke(2)
		a.DropRevoked()
		for name, conn := range map[string]net.Conn{"inbound": in, "outbound": out} {
			if err := echoOn(conn, "still there?"); err == nil {
				t.Errorf("%s stream of a revoked key lives on", name)
			}
			_ = conn.Close()
		}
		must(t, echoOn(stays, "still here"))
		must(t, stays.Close())
		wantError(t, echo(a, b.self, "x"), "revoked")
		if err := echo(b, a.self, "x"); err == nil {
			t.Error("a revoked key was let in")
		}
		before := a.Stats().PacketsUnknown
		must(t, b.Send(a.self, 't', []byte("x")))
		synctest.Wait()
		none(t, a)
		if a.Stats().PacketsUnknown != before+1 {
			t.Errorf("packet of a revoked key: %+v", a.Stats())
		}
	})
}

func TestGuestIsHeardOnItsProtocolAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cfg := w.config(1)
		l, err := New(cfg)
		must(t, err)
		type visit struct {
			key      ed25519.PublicKey
			exporter []byte
		}
		visits := make(chan visit, 1)
		l.HandleGuest("meshd/admit/1", func(_ context.Context, key ed25519.PublicKey, c net.Conn) {
			e, err := Exporter(c)
			if err != nil {
				t.Error(err)
			}
			visits <- visit{key, e}
			_ = c.Close()
		})
		l.Handle(protoEcho, func(_ context.Context, _ trust.Cert, c net.Conn) { _ = c.Close() })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		guest := &trust.Identity{Key: w.key(50)}
		from := w.net.Host(addr(50))

		c, err := DialGuest(t.Context(), from, guest, l.Addr(), w.id(1), "meshd/admit/1")
		must(t, err)
		e, err := Exporter(c)
		must(t, err)
		v := <-visits
		if !v.key.Equal(guest.Public()) || string(v.exporter) != string(e) || len(e) != 32 {
			t.Errorf("guest %x with exporter %x; the far end saw %x and %x", guest.Public(), e, v.key, v.exporter)
		}
		_ = c.Close() // the far end was first
		_, err = DialGuest(t.Context(), from, guest, l.Addr(), w.id(2), "meshd/admit/1")
		wantError(t, err, "want "+w.id(2).String())
		// The member protocol: TLS 1.3 tells the dialler with its first read that it was refused.
		c, err = DialGuest(t.Context(), from, guest, l.Addr(), w.id(1), protoEcho)
		must(t, err)
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a guest on a member's protocol got %v", err)
		}
		_ = c.Close()
		w.revoke(50)
		c, err = DialGuest(t.Context(), from, guest, l.Addr(), w.id(1), "meshd/admit/1")
		must(t, err)
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a revoked guest got %v", err)
		}
		_ = c.Close()
		cancel()
		must(t, <-done)
	})
}

func TestGarbageOnThePortHarmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var lines atomic.Int64
		cfg := w.config(1)
		cfg.Log = slog.New(countingHandler{slog.DiscardHandler, &lines})
		a, b := w.startWith(1, cfg), w.start(2)
		w.teach(b, a)
		random := rand.NewChaCha8([32]byte{1})
		junk := make([]byte, 1<<20)
		_, _ = random.Read(junk) // never fails
		vandal := w.net.Host(addr(66))
		_, packets, err := vandal.Listen(":0")
		must(t, err)
		for range 100 {
			c, err := vandal.Dial(t.Context(), a.Addr())
			must(t, err)
			_, _ = c.Write(junk) // the far end closes when it has seen enough
			_ = c.Close()
			for size := range 20 {
				_, err := packets.WriteTo(junk[:size*100], net.UDPAddrFromAddrPort(a.bound))
				must(t, err)
			}
			synctest.Wait()
		}
		_ = packets.Close()
		must(t, echo(b, a.self, "unharmed"))
		s := a.Stats()
		if s.StreamsFailed != 100 || s.PacketsMalformed != 2000 {
			t.Errorf("garbage counted as %+v, want 100 streams and 2000 packets", s)
		}
		if n := lines.Load(); n > 3 {
			t.Errorf("%d lines of log for garbage, want at most 3", n)
		}
		none(t, a)
	})
}

func TestSilentStreamsCostTheirAddressAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start(1), w.start(2)
		w.teach(b, a)
		slow := w.net.Host(addr(66))
		var open []net.Conn
		for range 2000 {
			c, err := slow.Dial(t.Context(), a.Addr())
			must(t, err)
			open = append(open, c)
			if len(open)%64 == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		if s := a.Stats(); s.StreamsRefused != 2000-maxHandshakesPerAddr {
			t.Errorf("%d of 2000 silent streams refused, want all but %d", s.StreamsRefused, maxHandshakesPerAddr)
		}
		before := time.Now()
		must(t, echo(b, a.self, "an honest peer"))
		if d := time.Since(before); d > 0 {
			t.Errorf("an honest peer waited %v", d)
		}
		time.Sleep(handshakeLimit + time.Second) // virtual
		if s := a.Stats(); s.StreamsFailed != maxHandshakesPerAddr {
			t.Errorf("%d silent streams ended after the handshake limit, want %d", s.StreamsFailed, maxHandshakesPerAddr)
		}
		for _, c := range open {
			_ = c.Close()
		}
		if a.gate.all != 0 || len(a.gate.byAddr)+len(a.gate.youngAddr)+len(a.gate.byPeer) != 0 {
			t.Errorf("places were not given back: %+v", a.gate)
		}
	})
}

func TestOneNodeHasLimitedStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start(1), w.start(2)
		w.teach(b, a)
		var open []net.Conn
		for range maxConnsPerPeer {
			c, err := b.Dial(t.Context(), a.self, protoEcho)
			must(t, err)
			open = append(open, c)
		}
		_, err := b.Dial(t.Context(), a.self, protoEcho)
		wantError(t, err, "limit")
		must(t, open[0].Close())
		synctest.Wait()
		must(t, echo(b, a.self, "room again"))
		for _, c := range open[1:] {
			must(t, c.Close())
		}
	})
}

func TestOfflineRefusesUntilLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start(1), w.start(2)
		w.teach(a, b)
		w.teach(b, a)
		must(t, echo(a, b.self, "met"))
		live, err := b.Dial(t.Context(), a.self, protoEcho)
		must(t, err)
		a.SetOffline(true)
		if err := echoOn(live, "x"); err == nil {
			t.Error("a stream outlived SetOffline")
		}
		_ = live.Close()
		if err := echo(a, b.self, "x"); !errors.Is(err, ErrOffline) {
			t.Errorf("dial while offline: %v", err)
		}
		if err := echo(b, a.self, "x"); err == nil {
			t.Error("an offline node took a stream")
		}
		must(t, a.Send(b.self, 't', []byte("x")))
		must(t, b.Send(a.self, 't', []byte("x")))
		synctest.Wait()
		none(t, a)
		none(t, b)
		a.SetOffline(false)
		must(t, echo(b, a.self, "back"))
		must(t, a.Send(b.self, 't', []byte("back")))
		expect(t, b, a.self.Short()+" back")
	})
}

func TestCutLinkEndsInTimeAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start(1), w.start(2)
		w.teach(a, b)
		live, err := a.Dial(t.Context(), b.self, protoEcho)
		must(t, err)
		must(t, echoOn(live, "before"))
		w.net.Cut(addr(1), addr(2))
		before := time.Now()
		err = echo(a, b.self, "x")
		if took := time.Since(before); !errors.Is(err, ErrUnreachable) || took > dialLimit {
			t.Errorf("dial over a cut link: %v after %v", err, took)
		}
		must(t, a.Send(b.self, 't', []byte("lost")))
		synctest.Wait()
		w.net.Heal(addr(1), addr(2))
		must(t, echoOn(live, "after"))
		must(t, live.Close())
		none(t, b)
	})
}

func TestClosedLinkRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start(1), w.start(2)
		w.teach(b, a)
		live, err := b.Dial(t.Context(), a.self, protoEcho)
		must(t, err)
		a.stop()
		if err := echoOn(live, "x"); err == nil {
			t.Error("a stream outlived the link")
		}
		_ = live.Close()
		if err := echo(a, b.self, "x"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("dial of a closed link: %v", err)
		}
		if err := a.Send(b.self, 't', nil); err != nil {
			t.Errorf("send of a closed link: %v", err)
		}
		never, err := New(w.config(3))
		must(t, err)
		must(t, never.Close())
		must(t, never.Close())
	})
}

func TestNewNeedsACertificateAndAFreePort(t *testing.T) {
	w := newWorld(t)
	cfg := w.config(2)
	cfg.Identity = &trust.Identity{Key: w.key(2)}
	_, err := New(cfg)
	wantError(t, err, "not admitted")
	a := w.start(1)
	_, err = New(w.config(1))
	wantError(t, err, "address already in use")
	a.stop()
	cfg = w.config(2)
	cfg.BookFile = filepath.Join(t.TempDir(), "peers")
	must(t, os.WriteFile(cfg.BookFile, []byte(strings.Repeat("x", textBytes+1)), 0o600))
	_, err = New(cfg)
	wantError(t, err, fmt.Sprint("limit ", textBytes))
}
