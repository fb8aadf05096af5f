package catalog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"meshd/mesh/trust"
	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// world is a charter and admitted identities, all from seeds. The first is sponsor and revoker.
type world struct {
	charter *trust.Charter
	ids     []*trust.Identity
}

// epochStart is when the tests' clocks begin.
var epochStart = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func newWorld(tb testing.TB, n int) *world {
	tb.Helper()
	w := &world{}
	for i := range n {
		w.ids = append(w.ids, must(trust.NewIdentity(bytes.NewReader(seed("node", i))))(tb))
	}
	root := ed25519.NewKeyFromSeed(seed("root", 0))
	w.charter = must(trust.NewCharter(root, w.ids[0].Public(), epochStart))(tb)
	for i, self := range w.ids {
		box, _ := self.BoxKey()
		self.Chain = must(w.charter.Issue(w.ids[0], self.Public(), *box, fmt.Sprintf("node%d", i), nil,
			seed("serial", i)[:16], epochStart, epochStart.Add(trust.LeafLife)))(tb)
	}
	return w
}

func seed(what string, i int) []byte {
	h := sha256.Sum256(fmt.Appendf(nil, "%s %d", what, i))
	h[0] &= 0x7f
	return h[:]
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(tb testing.TB) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

func (w *world) open(tb testing.TB, i int, shelf Shelf) *Catalog {
	tb.Helper()
	return must(Open(Config{
		Shelf: shelf, Self: w.ids[i], Charter: w.charter, Wall: time.Now,
		Log: slog.New(slog.DiscardHandler), Rand: rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, i))),
		CacheBytes: []int{0, -1, 4000}[i%3], // all in memory, nothing, a few
	}))(tb)
}

func (w *world) openAll(tb testing.TB) []*Catalog {
	tb.Helper()
	var all []*Catalog
	for i := range w.ids {
		all = append(all, w.open(tb, i, newShelf()))
	}
	return all
}

// memory is a Shelf with faults.
type memory struct {
	mu    sync.Mutex
	keys  []string
	value map[string][]byte
	fault func() (apply bool, err error) // asked at each Apply
}

func newShelf() *memory { return &memory{value: map[string][]byte{}} }

func (m *memory) clone() *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := newShelf()
	c.keys = slices.Clone(m.keys)
	for k, v := range m.value {
		c.value[k] = v
	}
	return c
}

func (m *memory) Scan(from, to []byte, limit int) (keys, values [][]byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i, _ := slices.BinarySearch(m.keys, string(from))
	for ; i < len(m.keys) && m.keys[i] < string(to) && len(keys) < limit; i++ {
		keys = append(keys, []byte(m.keys[i]))
		values = append(values, bytes.Clone(m.value[m.keys[i]]))
	}
	return keys, values, nil
}

func (m *memory) Apply(keys, values [][]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fault != nil {
		apply, err := m.fault()
		if !apply {
			return err
		}
		m.apply(keys, values)
		return err
	}
	m.apply(keys, values)
	return nil
}

func (m *memory) apply(keys, values [][]byte) {
	for i, k := range keys {
		at, had := slices.BinarySearch(m.keys, string(k))
		switch {
		case values[i] != nil:
			m.value[string(k)] = bytes.Clone(values[i])
			if !had {
				m.keys = slices.Insert(m.keys, at, string(k))
			}
		case had:
			delete(m.value, string(k))
			m.keys = slices.Delete(m.keys, at, at+1)
		}
	}
}

// records counts what the disk holds.
func (m *memory) records() int {
	n := 0
	for _, k := range m.keys {
		if k[0] == prefixRecord {
			n++
		}
	}
	return n
}

func offer(tb testing.TB, counter uint64, content string) []byte {
	tb.Helper()
	d := artifact.Sum([]byte(content))
	return must(EncodeArtifact(ArtifactBody{Counter: counter, Root: d, Tree: d, SizeBytes: 1 << 20, Keep: 1, Semver: "1.2.3"}))(tb)
}

func publish(tb testing.TB, c *Catalog, name string, counter uint64, keep int) Record {
	tb.Helper()
	return must(c.Append(KindArtifact, name, offer(tb, counter, fmt.Sprint(name, counter, c.self)), keep))(tb)
}

func status(tb testing.TB, c *Catalog, kept int) Record {
	tb.Helper()
	return must(c.Append(KindStatus, "", must(EncodeStatus(StatusBody{Name: "n", Kept: kept}))(tb), 0))(tb)
}

// pipe is one end of an in-memory stream that counts what is written to it.
type pipe struct {
	net.Conn
	mu      sync.Mutex
	written int
	turns   *turns
	side    int
}

// turns counts how often the direction of a conversation changed.
type turns struct {
	mu   sync.Mutex
	last int
	n    int
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	p.written += len(b)
	p.mu.Unlock()
	if p.turns != nil {
		p.turns.mu.Lock()
		if p.turns.last != p.side {
			p.turns.last = p.side
			p.turns.n++
		}
		p.turns.mu.Unlock()
	}
	return p.Conn.Write(b)
}

func (p *pipe) bytes() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.written
}

// joined is a running session between two catalogs.
type joined struct {
	a, b   *pipe
	turns  *turns
	errs   chan error
	cancel context.CancelFunc
}

func join(a, b *Catalog) *joined {
	x, y := net.Pipe()
	return joinOver(a, b, x, y)
}

func joinOver(a, b *Catalog, x, y net.Conn) *joined {
	ctx, cancel := context.WithCancel(context.Background())
	t := &turns{}
	j := &joined{&pipe{Conn: x, turns: t, side: 1}, &pipe{Conn: y, turns: t, side: 2}, t, make(chan error, 2), cancel}
	go func() { j.errs <- a.Session(ctx, j.a, b.self) }()
	go func() { j.errs <- b.Session(ctx, j.b, a.self) }()
	return j
}

// end stops both sides and returns their errors.
func (j *joined) end() error {
	j.cancel()
	return errors.Join(<-j.errs, <-j.errs)
}

func (j *joined) bytes() int { return j.a.bytes() + j.b.bytes() }

// alike fails unless all catalogs are equal.
func alike(tb testing.TB, all ...*Catalog) {
	tb.Helper()
	for _, c := range all[1:] {
		if c.Root() != all[0].Root() {
			tb.Fatalf("catalogs differ: %s and %s\n%s\n%s", all[0].Root().Short(), c.Root().Short(), dump(all[0]), dump(c))
		}
	}
}

func dump(c *Catalog) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "catalog of %s, epoch %x:\n", c.self.Short(), c.epoch)
	for _, h := range c.set.order {
		fmt.Fprintf(&b, "  %s sealed %d complete %v forked %v gap %v:", h.id, h.sealed, h.complete(), h.forked, h.gap)
		for _, e := range h.recs.list() {
			fmt.Fprintf(&b, " %d/%d", e.seq, e.kind)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func names(list []Record) []string {
	var out []string
	for _, r := range list {
		out = append(out, fmt.Sprintf("%s@%d", r.Name, r.Seq))
	}
	return out
}

// proxy carries frames from x to y and lets edit change their bodies; it ends when a side closes.
func proxy(x io.Reader, y io.Writer, edit func(kind byte, body []byte) []byte) error {
	for {
		kind, body, err := wire.ReadFrame(x, maxFrameBytes)
		if err != nil {
			return err
		}
		if err := wire.WriteFrame(y, kind, edit(kind, body)); err != nil {
			return err
		}
	}
}
