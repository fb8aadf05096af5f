package link

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meshd/mesh/id"
	"meshd/mesh/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const protoEcho = "meshd/echo/1"

// A world is one charter and the nodes under it, numbered from 1; number 1 is the sponsor.
type world struct {
	t       testing.TB
	net     *Memory
	charter *trust.Charter
	sponsor *trust.Identity

	mu      sync.Mutex
	revoked map[id.Node]bool
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, net: NewMemory(1), revoked: map[id.Node]bool{}}
	root := w.key(200)
	w.sponsor = &trust.Identity{Key: w.key(1)}
	var err error
	w.charter, err = trust.NewCharter(root, w.sponsor.Public(), time.Now())
	must(t, err)
	return w
}

func (w *world) key(n int) ed25519.PrivateKey {
	var seed [32]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n))
	key, err := trust.NewKey(bytes.NewReader(seed[:]))
	must(w.t, err)
	return key
}

func (w *world) identity(n int) *trust.Identity {
	i := &trust.Identity{Key: w.key(n)}
	pub, _ := i.BoxKey()
	serial := make([]byte, 16)
	serial[15] = byte(n)
	chain, err := w.charter.Issue(w.sponsor, i.Public(), *pub, fmt.Sprint("node-", n), nil, serial,
		time.Now().Add(-time.Hour), time.Now().Add(720*time.Hour))
	must(w.t, err)
	i.Chain = chain
	return i
}

func (w *world) cert(n int) trust.Cert {
	c, err := w.charter.VerifyChain(w.identity(n).Chain)
	must(w.t, err)
	return *c
}

func (w *world) id(n int) id.Node { return id.FromKey(w.key(n).Public().(ed25519.PublicKey)) }

func addr(n int) string { return fmt.Sprintf("10.0.0.%d:6374", n) }

func (w *world) revoke(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revoked[w.id(n)] = true
}

func (w *world) isRevoked(key ed25519.PublicKey) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.revoked[id.FromKey(key)]
}

// config is that of node n on the simulated network.
func (w *world) config(n int) Config {
	return Config{
		Identity: w.identity(n), Charter: w.charter, Network: w.net.Host(addr(n)), Book: newFakeShelf(),
		Listen: ":0", Wall: time.Now, Log: slog.New(slog.DiscardHandler), Revoked: w.isRevoked,
	}
}

// A node is a running link that echoes streams and collects packets.
type node struct {
	*Link
	n    int
	stop func() // crashes nothing: ends Run and waits
	got  chan string
}

func (w *world) start(n int) *node { return w.startWith(n, w.config(n)) }

func (w *world) startWith(n int, cfg Config, more ...func(*Link)) *node {
	l, err := New(cfg)
	must(w.t, err)
	for _, m := range more {
		m(l)
	}
	nd := &node{Link: l, n: n, got: make(chan string, 1024)}
	l.Handle(protoEcho, func(_ context.Context, _ trust.Cert, c net.Conn) {
		_, _ = io.Copy(c, c) // until the far end is done
		_ = c.Close()
	})
	l.HandlePacket('t', func(from id.Node, b []byte, _ time.Time) { nd.got <- from.Short() + " " + string(b) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	nd.stop = sync.OnceFunc(func() {
		cancel()
		must(w.t, <-done)
	})
	w.t.Cleanup(nd.stop)
	return nd
}

// teach lets a know b and where it is.
func (w *world) teach(a, b *node) { a.Learn(w.cert(b.n), []string{b.Addr()}) }

// echo sends text over a new stream from a to the node b and back.
func echo(a *node, b id.Node, text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := a.Dial(ctx, b, protoEcho)
	if err != nil {
		return err
	}
	return errors.Join(echoOn(c, text), c.Close())
}

func echoOn(c net.Conn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	back := make([]byte, len(text))
	if _, err := io.ReadFull(c, back); err != nil {
		return err
	}
	if string(back) != text {
		return fmt.Errorf("echo of %q is %q", text, back)
	}
	return nil
}

// expect waits for one packet.
func expect(t testing.TB, n *node, want string) {
	t.Helper()
	select {
	case got := <-n.got:
		if got != want {
			t.Fatalf("node %d got packet %q, want %q", n.n, got, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("node %d got no packet %q in 30 s: %+v", n.n, want, n.Stats())
	}
}

// none fails when a packet was handed over by now.
func none(t testing.TB, n *node) {
	t.Helper()
	select {
	case got := <-n.got:
		t.Fatalf("node %d got packet %q, want none", n.n, got)
	default:
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t testing.TB, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) {
		t.Fatalf("error %v, want one with %q", err, part)
	}
}

// A fakeShelf is a Shelf in memory whose next Apply can be made to fail.
type fakeShelf struct {
	mu      sync.Mutex
	rows    map[string][]byte
	fail    bool // the next Apply fails
	applied bool // and has been applied all the same
}

func newFakeShelf() *fakeShelf { return &fakeShelf{rows: map[string][]byte{}} }

func (s *fakeShelf) Scan(from, to []byte, limit int) (keys, values [][]byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for k := range s.rows {
		if k >= string(from) && k < string(to) {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	for _, k := range names[:min(limit, len(names))] {
		keys = append(keys, []byte(k))
		values = append(values, slices.Clone(s.rows[k]))
	}
	return keys, values, nil
}

var errDisk = errors.New("simulated disk failure")

func (s *fakeShelf) Apply(keys, values [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail && !s.applied {
		s.fail = false
		return errDisk
	}
	for i, k := range keys {
		if values[i] == nil {
			delete(s.rows, string(k))
		} else {
			s.rows[string(k)] = slices.Clone(values[i])
		}
	}
	if s.fail {
		s.fail = false
		return errDisk
	}
	return nil
}

// A countingHandler counts records above debug.
type countingHandler struct {
	slog.Handler
	lines *atomic.Int64
}

func (h countingHandler) Enabled(_ context.Context, l slog.Level) bool { return l > slog.LevelDebug }

func (h countingHandler) Handle(context.Context, slog.Record) error {
	h.lines.Add(1)
	return nil
}
