package link

import (
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/trust"
)

// A lodging is a leaf, behind NAT, whose point has a way to it, and an asker that knows the point alone.
type lodging struct {
	*world
	asker, point, leaf *node
	who                chan string // whom the leaf saw ask
	undo               func()
}

const protoSecret = "test/secret/1"

// lodge makes one; the leaf answers a relay with protoEcho's stream, and says who opened it.
func lodge(t *testing.T, w *world) *lodging {
	l := &lodging{world: w, asker: w.start(1), point: w.start(2), who: make(chan string, 64)}
	w.net.NAT(addr(3), true)
	l.leaf = w.startWith(3, w.config(3), func(link *Link) {
		link.Handle("test/who/1", func(_ context.Context, peer trust.Cert, c net.Conn) {
			l.who <- peer.ID.Short()
			_, _ = io.Copy(c, c) // until the far end is done
			_ = c.Close()
		})
		link.Handle(protoSecret, func(_ context.Context, _ trust.Cert, c net.Conn) { _ = c.Close() })
	})
	w.teach(l.asker, l.point)
	w.teach(l.leaf, l.point)
	must(t, echo(l.leaf, w.id(2), "the point knows the leaf"))
	l.undo = l.point.Through(w.id(3), func(token [16]byte, proto string) error {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_ = l.leaf.AnswerRelay(ctx, w.id(2), token, "test/who/1") // the point waits in vain
		}()
		return nil
	})
	return l
}

func (l *lodging) end() {
	l.asker.stop()
	l.leaf.stop()
	l.point.stop()
}

// ask has the asker speak with the leaf through the point.
func (l *lodging) ask(t *testing.T, proto string) (net.Conn, error) {
	return l.asker.DialThrough(t.Context(), l.id(2), l.id(3), proto)
}

func TestThroughItsPointALeafIsAskedByWhoItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lodge(t, newWorld(t))
		defer l.end()
		c, err := l.ask(t, "test/who/1")
		must(t, err)
		must(t, echoOn(c, "there and back"))
		if got, want := <-l.who, l.id(1).Short(); got != want {
			t.Errorf("the leaf sees %s ask, want %s", got, want)
		}
		must(t, c.Close())

		// Nobody takes the point's address for that of the other end.
		for _, who := range []struct {
			at   *node
			knew int
		}{{l.leaf, 1}, {l.asker, 3}} {
			if p, ok := who.at.Peer(l.id(who.knew)); ok && slices.Contains(p.Addrs, addr(2)) {
				t.Errorf("node %d believes that %d is at %v", who.at.n, who.knew, p.Addrs)
			}
		}
		time.Sleep(time.Minute)
		l.point.mu.Lock()
		defer l.point.mu.Unlock()
		if n := len(l.point.relays); n != 0 {
			t.Errorf("%d relays go on after all was said", n)
		}
	})
}

func TestWhatAPointDoesNotPassOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lodge(t, newWorld(t))
		defer l.end()
		_, err := l.ask(t, protoSecret) // the leaf speaks it, and not there
		wantError(t, err, "no application protocol")
		_, err = l.asker.DialThrough(t.Context(), l.id(2), l.id(4), "test/who/1")
		wantError(t, err, "not attached there")

		// A point that joins the asker with somebody else, or with itself, is found out.
		undo := l.point.Through(l.id(4), func(token [16]byte, proto string) error { return (*l.point.ways[l.id(3)])(token, proto) })
		_, err = l.asker.DialThrough(t.Context(), l.id(2), l.id(4), "test/who/1")
		wantError(t, err, "opens no stream") // node 3 answers in the name of node 4
		undo()

		// One that is revoked is refused by the leaf, whatever the point thinks.
		l.revoke(1)
		_, err = l.ask(t, "test/who/1")
		wantError(t, err, "unreachable")
		l.undo()
		_, err = l.ask(t, "test/who/1")
		wantError(t, err, "unreachable")
	})
}

func TestRelaysAreFewAndShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lodge(t, newWorld(t))
		defer l.end()
		var open []net.Conn
		for range maxRelaysEach {
			c, err := l.ask(t, "test/who/1")
			must(t, err)
			must(t, echoOn(c, "hello"))
			open = append(open, c)
		}
		_, err := l.ask(t, "test/who/1")
		wantError(t, err, "too many")
		must(t, open[0].Close())
		time.Sleep(time.Second)
		c, err := l.ask(t, "test/who/1")
		must(t, err)
		time.Sleep(relayLimit + time.Second)
		if echoOn(c, "still there?") == nil {
			t.Errorf("a relay lasts for more than %v", relayLimit)
		}
		for _, c := range append(open, c) {
			_ = c.Close() // ended by the point already
		}
	})
}

// What comes in place of an id or of TLS is an error of the streams that it came on.
func TestNoiseToAPointAndToALeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lodge(t, newWorld(t))
		defer l.end()
		for _, noise := range []string{"", "short", string(make([]byte, 64<<10))} {
			c, err := l.asker.Dial(t.Context(), l.id(2), ProtoRelay)
			must(t, err)
			_, _ = io.WriteString(c, noise)
			_ = c.Close()
		}
		to := l.id(3)
		c, err := l.asker.Dial(t.Context(), l.id(2), ProtoRelay)
		must(t, err)
		must(t, askRelay(t.Context(), c, to))
		_, _ = c.Write(make([]byte, 64<<10))
		_, _ = io.Copy(io.Discard, c) // until the leaf, and so the point, ends it
		_ = c.Close()
		time.Sleep(time.Minute)
		c, err = l.ask(t, "test/who/1")
		must(t, err)
		must(t, echoOn(c, "all is well"))
		must(t, c.Close())
	})
}

// A point that answers in the leaf's place is found out by the asker: TLS goes through to the end.
func TestAPointCannotPassForItsLeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		asker := w.start(1)
		defer asker.stop()
		point := w.startWith(2, w.config(2), func(link *Link) {
			link.Handle(ProtoRelay, func(_ context.Context, _ trust.Cert, c net.Conn) {
				_, _ = io.ReadFull(c, make([]byte, 16))
				_, _ = c.Write([]byte{relayJoined})
				inner, err := link.enter(c)
				must(t, err)
				defer link.started.Done()
				link.serveAll(inner, []string{protoEcho})
			})
		})
		defer point.stop()
		w.teach(asker, point)
		_, err := asker.DialThrough(t.Context(), w.id(2), w.id(3), protoEcho)
		wantError(t, err, "node "+w.id(2).String()+" answers there")
	})
}
