//go:build unix

package swarm

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

// page is a Chunks that costs what a page cache costs: one copy.
type page struct {
	*memory
	arena []byte
	got   map[artifact.Digest]bool
}

func newPage(of *memory) *page {
	return &page{memory: of, arena: make([]byte, batch), got: map[artifact.Digest]bool{}}
}

func (p *page) Missing(chunks []artifact.Chunk) (out []artifact.Chunk, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range chunks {
		if !p.got[c.ID] {
			out = append(out, c)
		}
	}
	return out, nil
}

func (p *page) Read(d artifact.Digest, _ []byte) ([]byte, error) {
	return nil, fmt.Errorf("chunk %s: not held", d.Short())
}

func (p *page) Write(chunks [][]byte) error {
	summed := make([]artifact.Summed, len(chunks))
	for i, b := range chunks {
		summed[i] = artifact.SumUp(b)
	}
	return p.keep(summed)
}

func (p *page) keep(chunks []artifact.Summed) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, c := range chunks {
		n += copy(p.arena[n:], c.Bytes)
		p.got[c.ID] = true
	}
	return nil
}

// batchPage is a page that is told the names.
type batchPage struct{ *page }

func (p batchPage) Begin() artifact.Batch { return pageBatch{p.page} }

type pageBatch struct{ page *page }

func (b pageBatch) Write(chunks []artifact.Summed) error { return b.page.keep(chunks) }

func (pageBatch) Commit() error { return nil }

func (pageBatch) Close() {}

// tlsPair is a listener and a dial of mutual TLS 1.3 on loopback, as link makes them.
func tlsPair(t testing.TB) (net.Listener, func() (net.Conn, error)) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert, InsecureSkipVerify: true,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, SessionTicketsDisabled: true,
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, func() (net.Conn, error) { return tls.Dial("tcp", l.Addr().String(), conf) }
}

// cpu is what the process has used so far, kernel time included.
func cpu() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rawTransfer sends size bytes over TLS in large writes, and hashes them as they come, a chunk at a
// time: the least that a verified transfer can cost.
func rawTransfer(t testing.TB, size int64) (used time.Duration) {
	l, open := tlsPair(t)
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			done <- err
			return
		}
		b := make([]byte, 1<<20)
		for n := int64(0); n < size && err == nil; n += int64(len(b)) {
			_, err = c.Write(b)
		}
		c.Close()
		done <- err
	}()
	c, err := open()
	if err != nil {
		t.Fatal(err)
	}
	before := cpu()
	b := make([]byte, 64<<10)
	for err == nil {
		if _, err = io.ReadFull(c, b); err == nil {
			artifact.Sum(b)
		}
	}
	c.Close()
	if werr := <-done; werr != nil || err != io.EOF {
		t.Fatal(err, werr)
	}
	return cpu() - before
}

// swarmTransfer pulls the artifact over TLS.
func swarmTransfer(t testing.TB, from *memory, ref artifact.Ref, to Chunks) (used, took time.Duration) {
	l, open := tlsPair(t)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	nobody := func(context.Context, id.Node) (net.Conn, error) { return nil, errDown }
	yes := func(id.Node, artifact.Digest, id.Node) bool { return true }
	server := New(Config{Open: nobody, Chunks: from, Allow: yes})
	client := New(Config{
		Open:   func(context.Context, id.Node) (net.Conn, error) { return open() },
		Chunks: to, Allow: yes,
	})
	wg.Go(func() { _ = server.Run(ctx) })
	wg.Go(func() { _ = client.Run(ctx) })
	wg.Go(func() {
		if c, err := l.Accept(); err == nil {
			server.ServeConn(ctx, id.Node{2}, c)
		}
	})
	before, start := cpu(), time.Now()
	if err := client.Pull(ctx, ref, func() []id.Node { return []id.Node{{1}} }, nil); err != nil {
		t.Fatal(err)
	}
	return cpu() - before, time.Since(start)
}

func TestPullOverRealTLS(t *testing.T) {
	from, to := newMemory(), newMemory()
	ref := from.put(t, 1, 5, 5<<20)
	swarmTransfer(t, from, ref, to)
	if !slices.Equal(from.ids(), to.ids()) {
		t.Errorf("%d chunks came, want %d", len(to.ids()), len(from.ids()))
	}
}

// BenchmarkOneToOne compares 256 MiB over mutual TLS, verified, with raw TLS and SHA-256 in the same
// run, by the CPU of both sides (SPEC 13: at most 1.7).
func BenchmarkOneToOne(b *testing.B) {
	const size = 256 << 20
	from := newMemory()
	ref := from.put(b, 1, 1, size)
	b.SetBytes(size)
	var raw, once, twice, took time.Duration
	n := 0
	for b.Loop() {
		n++
		raw += rawTransfer(b, size)
		cpu, t := swarmTransfer(b, from, ref, batchPage{newPage(from)})
		again, _ := swarmTransfer(b, from, ref, newPage(from))
		once, twice, took = once+cpu, twice+again, took+t
	}
	b.ReportMetric(raw.Seconds()/float64(n), "raw-cpu-s")
	b.ReportMetric(once.Seconds()/float64(n), "cpu-s")
	b.ReportMetric(took.Seconds()/float64(n), "s")
	b.ReportMetric(once.Seconds()/raw.Seconds(), "x-raw")
	b.ReportMetric(twice.Seconds()/raw.Seconds(), "x-raw-hashed-twice")
}

// BenchmarkSmallFiles pulls 10,000 files of 4 KiB.
func BenchmarkSmallFiles(b *testing.B) {
	from := newMemory()
	ref := from.put(b, 1, 10_000, 4<<10)
	b.SetBytes(ref.SizeBytes)
	for b.Loop() {
		used, took := swarmTransfer(b, from, ref, batchPage{newPage(from)})
		b.ReportMetric(used.Seconds(), "cpu-s")
		b.ReportMetric(took.Seconds(), "s")
	}
}

// BenchmarkSmallArtifact pulls 10 KiB over a stream that is open: the swarm's part of publish to placed.
func BenchmarkSmallArtifact(b *testing.B) {
	w := newWorld(b)
	defer w.end()
	from, to := w.node(1), w.node(2)
	l, open := tlsPair(b)
	to.swarm.cfg.Open = func(context.Context, id.Node) (net.Conn, error) { return open() }
	w.wg.Go(func() {
		if c, err := l.Accept(); err == nil {
			from.swarm.ServeConn(w.ctx, to.name, c)
		}
	})
	var refs []artifact.Ref
	for i := range 1000 {
		refs = append(refs, from.store.put(b, uint64(i), 1, 10<<10))
	}
	i := 0
	for b.Loop() {
		if i%len(refs) == 0 {
			to.store.chunks = map[artifact.Digest][]byte{}
		}
		if err := to.pull(b, refs[i%len(refs)], time.Minute, from); err != nil {
			b.Fatal(err)
		}
		i++
	}
}
