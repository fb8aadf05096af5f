package link

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/trust"
)

func TestBackAddrsAreWhereThePeerWasSeenAndWhatItAdvertises(t *testing.T) {
	from := netip.MustParseAddr("10.0.0.2")
	tests := []struct {
		name string
		p    preface
		want []string
	}{
		{"seen alone", preface{Port: 6374}, []string{"10.0.0.2:6374"}},
		{"advertised too", preface{Port: 6374, Addrs: []string{"a.example:1", "10.0.0.2:6374", "no address", ":7"}}, []string{"10.0.0.2:6374", "a.example:1"}},
		{"listens nowhere", preface{Addrs: []string{"victim:22"}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := backAddrs(from, tt.p); !slices.Equal(got, tt.want) {
				t.Errorf("backAddrs = %q, want %q", got, tt.want)
			}
		})
	}
}

// asked starts node n with a protocol whose streams are dialled back, and returns what that came to.
func (w *world) asked(n int) (*node, <-chan error) {
	results := make(chan error, 8)
	cfg := w.config(n)
	nd := w.startWith(n, cfg, func(l *Link) {
		l.Handle("test/back/1", func(ctx context.Context, _ trust.Cert, c net.Conn) {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			results <- l.ReachBack(ctx, c)
			_ = c.Close()
		})
	})
	return nd, results
}

func TestReachBackReachesWhoAskedAndNobodyElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		peer, results := w.asked(1)
		asker, stranger := w.start(2), w.start(3)
		defer peer.stop()
		defer asker.stop()
		defer stranger.stop()
		w.teach(asker, peer)
		ask := func() error {
			c, err := asker.Dial(t.Context(), w.id(1), "test/back/1")
			must(t, err)
			defer func() { _ = c.Close() }()
			return <-results
		}
		must(t, ask())

		w.net.NAT(addr(2), true)
		wantError(t, ask(), "deadline exceeded")
		w.net.NAT(addr(2), false)
		must(t, ask())

		// Streams that go out from behind NAT work, and packets come back the way they went.
		w.net.NAT(addr(2), true)
		must(t, echo(asker, w.id(1), "out and back"))
		must(t, asker.Send(w.id(1), 't', []byte("ping")))
		expect(t, peer, asker.self.Short()+" ping")
		must(t, peer.Send(w.id(2), 't', []byte("pong")))
		expect(t, asker, peer.self.Short()+" pong")
		time.Sleep(time.Minute)
		must(t, peer.Send(w.id(2), 't', []byte("unasked")))
		none(t, asker)

		// An asker that advertises another node's address makes nobody a friend of that node.
		liar := w.config(4)
		liar.Advertise = []string{addr(3)}
		w.net.NAT(addr(4), true)
		asker2 := w.startWith(4, liar)
		defer asker2.stop()
		w.teach(asker2, peer)
		c, err := asker2.Dial(t.Context(), w.id(1), "test/back/1")
		must(t, err)
		defer func() { _ = c.Close() }()
		wantError(t, <-results, "node "+w.id(3).String()+" answers there")
	})
}
