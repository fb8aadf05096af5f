package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a Chunks in memory, with faults. It refuses what it did not ask to be verified: a byte
// that is not what its chunk's name says is a failed test.
type memory struct {
	mu     sync.Mutex
	chunks map[artifact.Digest][]byte
	writes int
	// fault is asked before each Write: an error fails it, applied or not.
	fault func(write int) (applied bool, err error)
	// known, if not nil, is what may be written.
	known map[artifact.Digest]bool
	alien int // chunks written that are not known
	// boasts are chunks that it says to have whether or not it does.
	boasts map[artifact.Digest]bool
	wrote  chan struct{}
}

func newMemory() *memory { return &memory{chunks: map[artifact.Digest][]byte{}} }

func (m *memory) Missing(chunks []artifact.Chunk) ([]artifact.Chunk, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []artifact.Chunk
	for _, c := range chunks {
		if _, ok := m.chunks[c.ID]; !ok && !m.boasts[c.ID] {
			out = append(out, c)
		}
	}
	return out, nil
}

func (m *memory) Read(d artifact.Digest, buf []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.chunks[d]
	if !ok {
		return nil, fmt.Errorf("chunk %s: not held", d.Short())
	}
	return append(buf, b...), nil
}

func (m *memory) Write(chunks [][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes++
	applied, err := true, error(nil)
	if m.fault != nil {
		applied, err = m.fault(m.writes)
	}
	var total int
	for _, b := range chunks {
		total += len(b)
		d := artifact.Sum(b)
		if m.known != nil && !m.known[d] {
			m.alien++
		}
		if applied {
			m.chunks[d] = slices.Clone(b)
		}
	}
	if total > batch {
		return fmt.Errorf("batch of %d bytes", total)
	}
	if m.wrote != nil {
		select {
		case m.wrote <- struct{}{}:
		default:
		}
	}
	return err
}

// madeBy is who made all that put stores.
var madeBy = id.Node{0xaa}

// put stores an artifact of so many random files of that size, and returns its name.
func (m *memory) put(t testing.TB, seed uint64, files, sizeBytes int) artifact.Ref {
	t.Helper()
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	return m.putOf(t, files, sizeBytes, func(b []byte) { _, _ = random.Read(b) })
}

// putOf does the same with content that fill makes.
func (m *memory) putOf(t testing.TB, files, sizeBytes int, fill func([]byte)) artifact.Ref {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var man artifact.Manifest
	var cut artifact.Splitter
	content := make([]byte, sizeBytes)
	for i := range files {
		fill(content)
		e := artifact.Entry{Name: fmt.Sprintf("f%06d", i), Kind: artifact.File, Mode: 0o644, SizeBytes: int64(sizeBytes)}
		err := cut.Split(bytes.NewReader(content), func(b []byte) error {
			d := artifact.Sum(b)
			m.chunks[d] = slices.Clone(b)
			e.Chunks = append(e.Chunks, artifact.Chunk{ID: d, SizeBytes: uint32(len(b))})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		man.Entries = append(man.Entries, e)
	}
	man.Origin.Node = madeBy
	root, parts, ref, err := man.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range append(parts, root) {
		m.chunks[artifact.Sum(b)] = b
	}
	ref.Name = "app"
	ref.Version = artifact.Version{Counter: 1}
	return ref
}

// copyOf makes m hold what o holds.
func (m *memory) copyOf(o *memory) { m.chunks = maps.Clone(o.chunks) }

// ids returns all that m holds, sorted.
func (m *memory) ids() []artifact.Digest {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []artifact.Digest
	for d := range m.chunks {
		out = append(out, d)
	}
	slices.SortFunc(out, artifact.Digest.Compare)
	return out
}

func (m *memory) sizeBytes() (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range m.chunks {
		n += int64(len(b))
	}
	return n
}

// A node of the world: a swarm on a store. If hook is set, it makes the far end of each stream that
// somebody opens to this node; it is called under the lock of the world.
type node struct {
	name  id.Node
	store *memory
	swarm *Swarm
	allow func(peer id.Node, root artifact.Digest, maker id.Node) bool
	hook  func(c net.Conn) net.Conn
	link  *shaped // nil: as fast as may be
	down  bool
	dials int
}

// shaped is a node's connection: what it sends and what it receives takes turns each way.
type shaped struct {
	mu       sync.Mutex
	rate     float64 // bytes a second
	up, down time.Time
}

// take returns when n bytes from one to the other are through.
func take(from, to *shaped, n int) time.Time {
	from.mu.Lock()
	d := time.Duration(float64(n) / from.rate * float64(time.Second))
	from.up = later(from.up, time.Now()).Add(d)
	sent := from.up
	from.mu.Unlock()
	to.mu.Lock()
	defer to.mu.Unlock()
	to.down = later(to.down, sent.Add(-d)).Add(time.Duration(float64(n) / to.rate * float64(time.Second)))
	return later(to.down, sent)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// shape lets what is written to c pass from one link to the other, a TLS record at a time.
func shape(c net.Conn, from, to *shaped) net.Conn {
	if from == nil || to == nil {
		return c
	}
	return &tap{Conn: c, write: func(b []byte) ([]byte, error) {
		<-time.After(time.Until(take(from, to, len(b))))
		return b, nil
	}}
}

// A world joins nodes by pipes.
type world struct {
	t     testing.TB
	mu    sync.Mutex
	nodes map[id.Node]*node
	stop  context.CancelFunc
	ctx   context.Context
	wg    sync.WaitGroup
}

var errDown = errors.New("connection refused")

// newWorld makes a world whose swarms end with the test. Inside a bubble, call end before the bubble ends.
func newWorld(t testing.TB) *world {
	w := &world{t: t, nodes: map[id.Node]*node{}}
	w.ctx, w.stop = context.WithCancel(t.Context())
	return w
}

func (w *world) end() {
	w.stop()
	w.wg.Wait()
	for _, n := range w.nodes {
		if b := &n.swarm.buffers; b.lentBytes != 0 || b.pulls != 0 || b.spareBytes > maxRest {
			w.t.Errorf("%s: %d bytes of buffers were not given back, %d are spare, after all of %d pulls ended",
				n.name.Short(), b.lentBytes, b.spareBytes, b.pulls)
		}
	}
}

func (w *world) node(i byte) *node {
	n := &node{name: id.Node{i}, store: newMemory()}
	n.swarm = New(Config{
		Self: n.name, Chunks: n.store, Seed: uint64(i),
		Open: func(ctx context.Context, to id.Node) (net.Conn, error) { return w.open(n.name, to) },
		Allow: func(peer id.Node, root artifact.Digest, maker id.Node) bool {
			return n.allow == nil || n.allow(peer, root, maker)
		},
	})
	w.nodes[n.name] = n
	w.wg.Go(func() { _ = n.swarm.Run(w.ctx) })
	return n
}

func (w *world) open(from, to id.Node) (net.Conn, error) {
	w.mu.Lock()
	n := w.nodes[to]
	if n == nil || n.down {
		w.mu.Unlock()
		return nil, errDown
	}
	n.dials++
	near, far := net.Pipe()
	if o := w.nodes[from]; o != nil {
		near, far = shape(near, o.link, n.link), shape(far, n.link, o.link)
	}
	if n.hook != nil {
		far = n.hook(far)
	}
	w.mu.Unlock()
	w.wg.Go(func() { n.swarm.ServeConn(w.ctx, from, far) })
	return near, nil
}

func (w *world) set(n *node, down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n.down = down
}

// pull pulls with a limit of its own.
func (n *node) pull(t testing.TB, ref artifact.Ref, limit time.Duration, from ...*node) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return n.swarm.Pull(ctx, ref, names(from...), nil)
}

func names(from ...*node) func() []id.Node {
	var out []id.Node
	for _, h := range from {
		out = append(out, h.name)
	}
	return func() []id.Node { return out }
}

// mustHave fails the test unless n holds exactly what from holds.
func (n *node) mustHave(t testing.TB, from *node) {
	t.Helper()
	if got, want := n.store.ids(), from.store.ids(); !slices.Equal(got, want) {
		t.Fatalf("holds %d chunks, want the %d of the holder", len(got), len(want))
	}
}

// tap is a stream whose written bytes pass through a function. An error from it breaks the stream.
type tap struct {
	net.Conn
	write func(b []byte) ([]byte, error)
}

func (c *tap) Write(b []byte) (int, error) {
	for len(b) > 16<<10 {
		n, err := c.Write(b[:16<<10])
		if err != nil {
			return n, err
		}
		b = b[n:]
	}
	out, err := c.write(b)
	if len(out) > 0 {
		if _, werr := c.Conn.Write(out); werr != nil {
			return 0, werr
		}
	}
	if err != nil {
		c.Close()
		return 0, err
	}
	return len(b), nil
}

// tenMegabytes is a link that carries so much a second.
func tenMegabytes(c net.Conn) net.Conn {
	return &tap{Conn: c, write: func(b []byte) ([]byte, error) {
		<-time.After(time.Duration(len(b)) * 100 * time.Nanosecond)
		return b, nil
	}}
}
