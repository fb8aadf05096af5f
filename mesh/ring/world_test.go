package ring

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"meshd/mesh/id"
	"meshd/mesh/link"
	"meshd/mesh/trust"
)

// TestMain fails when a goroutine outlives the tests by more than Settle.
func TestMain(m *testing.M) {
	code := m.Run()
	late := time.Now().Add(Settle)
	err := goleak.Find()
	for err != nil && time.Now().Before(late) {
		err = goleak.Find() // waits a little each time
	}
	if err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// bubble runs f in a synctest bubble whose clock goes on until the last goroutine of its rings ended.
func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(Settle) }) // virtual
		f(t, newWorld(t))
	})
}

// A world is one charter and the nodes under it, numbered from 1; number 1 is the sponsor.
type world struct {
	t       testing.TB
	net     *link.Memory
	charter *trust.Charter
	sponsor *trust.Identity
}

func newWorld(t testing.TB) *world {
	w := &world{t: t, net: link.NewMemory(1)}
	w.net.Delay(time.Millisecond, 2*time.Millisecond)
	w.sponsor = &trust.Identity{Key: w.key(1)}
	var err error
	w.charter, err = trust.NewCharter(w.key(999), w.sponsor.Public(), time.Now())
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

func (w *world) identity(n int) (*trust.Identity, trust.Cert) {
	i := &trust.Identity{Key: w.key(n)}
	pub, _ := i.BoxKey()
	serial := make([]byte, 16)
	binary.BigEndian.PutUint64(serial[8:], uint64(n))
	var err error
	i.Chain, err = w.charter.Issue(w.sponsor, i.Public(), *pub, fmt.Sprint("node-", n), nil, serial,
		time.Now().Add(-time.Hour), time.Now().Add(720*time.Hour))
	must(w.t, err)
	cert, err := w.charter.VerifyChain(i.Chain)
	must(w.t, err)
	return i, *cert
}

func addr(n int) string { return fmt.Sprintf("10.0.%d.%d:6374", n/250, n%250) }

// A node is a link and a ring on it, running.
type node struct {
	*Ring
	n      int
	link   *link.Link
	cert   trust.Cert
	cancel context.CancelFunc
	done   chan error
	hints  chan string

	mu      sync.Mutex
	root    [8]byte
	roots   map[id.Node][8]byte // heard in acks
	unknown map[id.Node]bool    // not certified, as far as this node knows
	acked   chan struct{}       // capacity 1
}

func (w *world) start(n int) *node { return w.startOn(n, w.net.Host(addr(n)), ":0") }

func (w *world) startOn(n int, network link.Network, listen string) *node {
	identity, cert := w.identity(n)
	log := slog.New(slog.DiscardHandler)
	l, err := link.New(link.Config{
		Identity: identity, Charter: w.charter, Network: network, Book: noShelf{}, Listen: listen,
		Wall: time.Now, Log: log,
	})
	must(w.t, err)
	nd := &node{
		n: n, link: l, cert: cert, hints: make(chan string, 1000), done: make(chan error, 2),
		roots: map[id.Node][8]byte{}, unknown: map[id.Node]bool{}, acked: make(chan struct{}, 1),
	}
	nd.Ring, err = New(Config{
		Link: l, Self: identity, Cert: cert, Label: "meshd/" + w.charter.MeshName(),
		Root: func() [8]byte {
			nd.mu.Lock()
			defer nd.mu.Unlock()
			return nd.root
		},
		OnRoot: func(peer id.Node, root [8]byte) {
			nd.mu.Lock()
			nd.roots[peer] = root
			nd.mu.Unlock()
			notify(nd.acked)
		},
		OnHint: func(b []byte) { nd.hints <- string(b) },
		Known: func(p id.Node) bool {
			nd.mu.Lock()
			defer nd.mu.Unlock()
			return !nd.unknown[p]
		},
		Log: log, Wall: time.Now,
	})
	must(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	linkCtx, endLink := context.WithCancel(context.Background())
	nd.cancel = cancel
	linkDone := make(chan error, 1)
	go func() { linkDone <- l.Run(linkCtx) }()
	go func() {
		err := nd.Run(ctx)
		endLink()
		if linkErr := <-linkDone; err == nil {
			err = linkErr
		}
		nd.done <- err
	}()
	w.t.Cleanup(nd.stop)
	return nd
}

// stop leaves the ring and waits.
func (n *node) stop() {
	n.cancel()
	err := <-n.done
	n.done <- err // for a second stop
}

// ring starts n nodes of which all know all, joined over the first.
func (w *world) ring(n int, start func(n int) *node) []*node {
	nodes := make([]*node, n)
	for i := range nodes {
		nodes[i] = start(i + 1)
	}
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				a.link.Learn(b.cert, []string{b.link.Addr()})
			}
		}
	}
	for _, a := range nodes[1:] {
		joined, err := a.Join(w.t.Context(), []id.Node{nodes[0].self})
		must(w.t, err)
		if joined != 1 {
			w.t.Errorf("node %d joined %d, want 1", a.n, joined)
		}
	}
	return nodes
}

// wholeLimit is how long the last pair of a new ring may take to hear of each other: gossip may miss it, and
// then the next exchange of states, every half minute, tells.
const wholeLimit = 45 * time.Second

// await waits until all of nodes see the status of every one of them as want says (alive where it is silent)
// and returns how long that took.
func await(t testing.TB, limit time.Duration, nodes []*node, want map[id.Node]Status) time.Duration {
	t.Helper()
	start := time.Now()
	late := time.After(limit)
	for _, n := range nodes {
		for !n.sees(nodes, want) {
			select {
			case <-n.Changed():
			case <-late:
				t.Fatalf("after %v node %d sees %v, want %v and else alive", limit, n.n, n.Members(), want)
			}
		}
	}
	return time.Since(start)
}

func (n *node) sees(nodes []*node, want map[id.Node]Status) bool {
	got := map[id.Node]Status{}
	for _, m := range n.Members() {
		got[m.ID] = m.Status
	}
	for _, o := range nodes {
		status, ok := want[o.self]
		if !ok {
			status = Alive
		}
		if got[o.self] != status {
			return false
		}
	}
	for o, status := range want {
		if got[o] != status {
			return false
		}
	}
	return true
}

func without(nodes []*node, n *node) []*node {
	return slices.DeleteFunc(slices.Clone(nodes), func(o *node) bool { return o == n })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// noShelf remembers nothing.
type noShelf struct{}

func (noShelf) Scan([]byte, []byte, int) (keys, values [][]byte, err error) { return nil, nil, nil }
func (noShelf) Apply([][]byte, [][]byte) error                              { return nil }
