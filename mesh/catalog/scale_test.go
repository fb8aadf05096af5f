package catalog

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/store"
	"meshd/store/artifact"
)

var (
	adverts = flag.Int("adverts", 0, "how many adverts TestAnEmptyNodeJoins syncs; 0: 20,000, or 2,000 without MESHD_TEST_ALL")
	perNode = flag.Int("per-origin", 100, "of one origin, of those")
)

// figures is what a process of this test tells of itself at its end.
type figures struct {
	Records                       int
	OpenSeconds, SyncSeconds      float64
	Read, Written                 int64
	HeapBytes, RSSBytes, RSSMost  int64
	FileBytes                     int64
	RootMicros                    float64
	Root                          string
	Repeated, Refused, Incomplete uint64
}

// TestAnEmptyNodeJoins syncs a whole catalog between two processes with real stores over loopback, kills the
// newcomer half way, and prints what it takes (SPEC 13): -adverts 1000000 is the large one.
func TestAnEmptyNodeJoins(t *testing.T) {
	if role := os.Getenv("MESHD_SCALE_ROLE"); role != "" {
		child(t, role)
		return
	}
	n := *adverts
	if n == 0 {
		if n = 2000; os.Getenv("MESHD_TEST_ALL") != "" {
			n = 20_000
		}
	}
	origins := max(2, n / *perNode)
	dir := t.TempDir()
	began := time.Now()
	root := breed(t, filepath.Join(dir, "a"), origins, *perNode)
	t.Logf("%d adverts of %d origins signed and stored in %.1f s", origins**perNode, origins, time.Since(began).Seconds())

	server := start(t, dir, "serve")
	addr := server.line(t)
	first := start(t, dir, "join", addr, root)
	for { // kill -9 half way
		n, err := strconv.Atoi(first.line(t))
		if err != nil {
			t.Fatal(err)
		}
		if n > origins**perNode/2 {
			break
		}
	}
	_ = first.cmd.Process.Kill()
	_ = first.cmd.Wait()
	joined := start(t, dir, "join", addr, root).end(t)
	served := server.end(t)
	for name, f := range map[string]figures{"newcomer": joined, "server": served} {
		t.Logf("%s: %d records; opened in %.2f s, synced in %.2f s; %.1f MB read, %.1f MB written; heap %.1f MB, RSS %.1f MB, at most %.1f MB; state.db %.1f MB; root of one changed log %.1f us",
			name, f.Records, f.OpenSeconds, f.SyncSeconds, mb(f.Read), mb(f.Written), mb(f.HeapBytes), mb(f.RSSBytes), mb(f.RSSMost), mb(f.FileBytes), f.RootMicros)
	}
	if joined.Root != root || served.Root != root {
		t.Errorf("roots differ: %s and %s, want %s", joined.Root, served.Root, root)
	}
	if joined.Refused+served.Refused+joined.Incomplete > 0 {
		t.Errorf("refused or incomplete: %+v", joined)
	}
	// After the kill the newcomer opened with half of it, and was sent the rest: a page more at most.
	if rest := int64(joined.Records) * 260; joined.Read > rest*6/10+2*maxPageBytes {
		t.Errorf("%d bytes were sent after the restart, of %d in all: it began anew", joined.Read, rest)
	}
}

func mb(n int64) float64 { return float64(n) / 1e6 }

// breed signs the adverts of many origins into one store, and returns the root of it all.
func breed(t *testing.T, dir string, origins, each int) string {
	w := newWorld(t, origins)
	s := must(store.Open(dir, store.Options{}))(t)
	defer func() { _ = s.Close() }()
	to := s.Shelf("catalog")
	type pairs struct{ keys, values [][]byte }
	out := make(chan pairs, 4)
	var wg sync.WaitGroup
	for worker := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := worker; i < origins; i += runtime.GOMAXPROCS(0) {
				shelf := newShelf()
				c := w.open(t, i, shelf)
				status(t, c, i)
				for j := range each {
					root := artifact.Sum(fmt.Append(nil, "root", i, j))
					body := must(EncodeArtifact(ArtifactBody{
						Counter: uint64(j + 1), Root: root, Tree: artifact.Sum(root[:]), SizeBytes: 1 << 20, Keep: 1, Semver: "1.2.3",
					}))(t)
					must(c.Append(KindArtifact, fmt.Sprintf("site%d/app%d", i, j), body, 1))(t)
				}
				var p pairs
				for _, k := range shelf.keys {
					if k[0] == prefixRecord {
						p.keys, p.values = append(p.keys, []byte(k)), append(p.values, shelf.value[k])
					}
				}
				out <- p
			}
		})
	}
	go func() { wg.Wait(); close(out) }()
	var batch pairs
	for p := range out {
		batch.keys, batch.values = append(batch.keys, p.keys...), append(batch.values, p.values...)
		if len(batch.keys) > 20_000 {
			if err := to.Apply(batch.keys, batch.values); err != nil {
				t.Error(err)
			}
			batch = pairs{}
		}
	}
	if err := to.Apply(batch.keys, batch.values); err != nil {
		t.Fatal(err)
	}
	c := w.openSeeded(t, 0, to, 99)
	return c.Root().String()
}

// openSeeded is open with random numbers of its own: epochs and salts.
func (w *world) openSeeded(tb testing.TB, i int, shelf Shelf, seed uint64) *Catalog {
	tb.Helper()
	c := w.open(tb, i, shelf)
	c.cfg.Rand = rand.NewChaCha8(sha256.Sum256(fmt.Append(nil, "run", seed)))
	return c
}

// process is a child that prints lines, the last of them its figures.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(t *testing.T, dir, role string, args ...string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestAnEmptyNodeJoins$")
	cmd.Env = append(os.Environ(), "MESHD_SCALE_ROLE="+role, "MESHD_SCALE_DIR="+dir, "MESHD_SCALE_ARGS="+strings.Join(args, " "))
	cmd.Stderr = os.Stderr
	in := must(cmd.StdinPipe())(t)
	out := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return &process{cmd, in, bufio.NewScanner(out)}
}

func (p *process) line(t *testing.T) string {
	t.Helper()
	if !p.out.Scan() {
		t.Fatalf("the process ended: %v", p.cmd.Wait())
	}
	return p.out.Text()
}

// end asks the process for its figures and waits for it.
func (p *process) end(t *testing.T) figures {
	t.Helper()
	_ = p.in.Close()
	var f figures
	for p.out.Scan() {
		if strings.HasPrefix(p.out.Text(), "{") {
			if err := json.Unmarshal(p.out.Bytes(), &f); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	return f
}

// child is a process of the test: node 0, which serves, or node 1, which joins.
func child(t *testing.T, role string) {
	w := newWorld(t, 2)
	dir := filepath.Join(os.Getenv("MESHD_SCALE_DIR"), map[string]string{"serve": "a", "join": "b"}[role])
	var f figures
	began := time.Now()
	s := must(store.Open(dir, store.Options{}))(t)
	defer func() { _ = s.Close() }()
	self := map[string]int{"serve": 0, "join": 1}[role]
	c := w.openSeeded(t, self, s.Shelf("catalog"), uint64(os.Getpid()))
	f.OpenSeconds = time.Since(began).Seconds()
	began = time.Now()
	var conns []*counting
	ctx, cancel := context.WithCancel(t.Context())
	var sessions sync.WaitGroup
	talk := func(conn net.Conn) {
		n := &counting{Conn: conn}
		conns = append(conns, n)
		sessions.Go(func() { _ = c.Session(ctx, n, w.ids[1-self].ID()) })
	}
	if role == "serve" {
		l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
		fmt.Println(l.Addr())
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			_ = l.Close()
		}()
		for {
			conn, err := l.Accept()
			if err != nil {
				break
			}
			talk(conn)
		}
	} else {
		addr, root, _ := strings.Cut(os.Getenv("MESHD_SCALE_ARGS"), " ")
		talk(must(net.Dial("tcp", addr))(t))
		for c.Root().String() != root {
			<-c.Changed()
			fmt.Println(c.Stats().Records)
		}
	}
	f.SyncSeconds = time.Since(began).Seconds()
	f.measure(c, dir)
	cancel()
	sessions.Wait()
	for _, n := range conns {
		f.Read, f.Written = f.Read+n.read, f.Written+n.written
	}
	fmt.Println(string(must(json.Marshal(f))(t)))
}

func (f *figures) measure(c *Catalog, dir string) {
	stats := c.Stats()
	f.Records, f.Root, f.Repeated, f.Refused, f.Incomplete = stats.Records, c.Root().String(), stats.Repeated, stats.Refused, stats.Incomplete
	c.mu.Lock() // its sessions run on
	h := c.set.order[len(c.set.order)/2]
	began := time.Now()
	for range 1000 {
		c.set.stale[h] = struct{}{}
		c.set.settle()
	}
	f.RootMicros = time.Since(began).Seconds() * 1e3
	c.mu.Unlock()
	if info, err := os.Stat(filepath.Join(dir, "state.db")); err == nil {
		f.FileBytes = info.Size()
	}
	f.RSSMost = proc("VmHWM")
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f.HeapBytes = int64(m.HeapAlloc)
	runtime.KeepAlive(c)
	f.RSSBytes = proc("VmRSS")
}

// proc reads a line in kB of /proc/self/status; 0 where there is none.
func proc(name string) int64 {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range bytes.Lines(b) {
		if rest, ok := strings.CutPrefix(string(line), name+":"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10
		}
	}
	return 0
}

// counting is a stream that counts.
type counting struct {
	net.Conn
	read, written int64
}

func (c *counting) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.read += int64(n)
	return n, err
}

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.written += int64(n)
	return n, err
}
