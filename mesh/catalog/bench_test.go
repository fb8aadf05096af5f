package catalog

import (
	"flag"
	"fmt"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"meshd/store/artifact"
)

var full = flag.Bool("full", false, "compare catalogs of 100,000 records")

// crowd makes a shelf with the logs of many origins, each with records artifacts and a status, as node 0
// would hold them, and the catalogs that wrote them.
func crowd(tb testing.TB, w *world, records int) (*memory, []*Catalog) {
	tb.Helper()
	shelf := newShelf()
	var origins []*Catalog
	var keys, values [][]byte
	for i := range w.ids {
		c := w.open(tb, i, newShelf())
		status(tb, c, i)
		for j := range records {
			publish(tb, c, fmt.Sprintf("app%d/%d", i, j), 1, 1)
		}
		for _, in := range everything(tb, c) {
			keys, values = append(keys, in.key()), append(values, in.encoded)
		}
		origins = append(origins, c)
	}
	shelf.apply(keys, values)
	return shelf, origins
}

// TestAThousandOfAHundredThousand prints what finding differences costs (SPEC 13). By default the catalogs
// are a tenth of that size, and the thousand new records of a few of the origins a tenth as well.
func TestAThousandOfAHundredThousand(t *testing.T) {
	origins, perOrigin, changed := 100, 20, []int{5, 10, 100}
	if *full {
		origins, perOrigin, changed = 1000, 100, []int{20, 100, 1000}
	}
	w := newWorld(t, origins)
	shelf, authors := crowd(t, w, perOrigin)
	from := 0
	for _, n := range changed { // the last takes all origins, and so finds what the others wrote new as well
		writers := authors[min(from, origins-n) : min(from, origins-n)+n]
		from += n
		synctest.Test(t, func(t *testing.T) {
			a, b := w.open(t, 0, shelf.clone()), w.open(t, 1, shelf.clone())
			before, had := size(t, b), b.Stats().Records
			for i := range origins {
				publish(t, writers[i%n], fmt.Sprintf("new%d/%d", n, i), uint64(i+2), 1)
			}
			for _, author := range writers {
				give(t, b, author)
			}
			records, fresh := size(t, b)-before, b.Stats().Records-had
			start := time.Now()
			x, y := net.Pipe()
			j := joinOver(a, b, x, y)
			synctest.Wait()
			alike(t, a, b)
			overhead := j.bytes() - records
			t.Logf("%d new of %d in %d of %d origins: %d bytes of records, %d of overhead, %d turns from the first word (%s virtual)",
				fresh, a.Stats().Records, n, origins, records, overhead, j.turns.n, time.Since(start))
			if most := 10_000; 10*n <= origins && overhead > most { // spread wider it costs more: printed
				t.Errorf("overhead of %d bytes, want at most %d", overhead, most)
			}
			if j.turns.n > 8 { // five, and where answers overlap one or two more
				t.Errorf("%d turns", j.turns.n)
			}
			// Once more over the open stream, where a ping told that the roots are unlike.
			before, sent, turns := size(t, b), j.bytes(), j.turns.n
			for i := range origins {
				publish(t, writers[i%n], fmt.Sprintf("more%d/%d", n, i), uint64(i+2), 1)
			}
			b.mu.Lock()
			open := b.sessions
			b.sessions = map[*session]bool{} // nothing is pushed
			b.mu.Unlock()
			for _, author := range writers {
				give(t, b, author)
			}
			b.mu.Lock()
			b.sessions = open
			b.mu.Unlock()
			a.Unlike(b.self)
			synctest.Wait()
			alike(t, a, b)
			turns = j.turns.n - turns
			t.Logf("  and where a ping told it: %d of overhead, %d turns", j.bytes()-sent-(size(t, b)-before), turns)
			if turns > 6 { // four, likewise
				t.Errorf("%d turns are more than two round trips", turns)
			}
			if err := j.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAPhoneTenThousandBehind prints what a node that was away has to hear (SPEC 13): 10,000 adverts of 100
// origins. The records are as publishers write them: two digests, a name of some 20 letters.
func TestAPhoneTenThousandBehind(t *testing.T) {
	origins, each := 20, 50
	if *full {
		origins, each = 100, 100
	}
	w := newWorld(t, origins+1)
	shelf, authors := crowd(t, w, 1)
	phone := w.open(t, origins, shelf.clone())
	base := w.open(t, 0, shelf)
	before := size(t, base)
	for i, author := range authors[:origins] {
		for j := range each {
			root := artifact.Sum(fmt.Append(nil, i, j))
			body := must(EncodeArtifact(ArtifactBody{
				Counter: uint64(j + 1), Root: root, Tree: artifact.Sum(root[:]), SizeBytes: 1 << 20, Keep: 1, Semver: "1.20.3",
			}))(t)
			must(author.Append(KindArtifact, fmt.Sprintf("site%d/component-%d", i, j), body, 1))(t)
		}
		give(t, base, author)
	}
	records := size(t, base) - before
	synctest.Test(t, func(t *testing.T) {
		base, phone := w.open(t, 0, base.cfg.Shelf), w.open(t, origins, phone.cfg.Shelf)
		j := join(base, phone)
		synctest.Wait()
		alike(t, base, phone)
		t.Logf("%d adverts behind: %d bytes in all, %d of them records; %d a record", origins*each, j.bytes(), records, records/(origins*each))
		if most := 300 * origins * each; j.bytes() > most {
			t.Errorf("%d bytes, want at most %d", j.bytes(), most)
		}
		if err := j.end(); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	c := newWorld(b, 1).open(b, 0, newShelf())
	status(b, c, 0)
	body := offer(b, 1, "x")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := c.Append(KindArtifact, fmt.Sprint("app", i%1000), body, 1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRoot(b *testing.B) {
	shelf, _ := crowd(b, newWorld(b, 1000), 1)
	c := newWorld(b, 1000).open(b, 0, shelf)
	h := c.set.order[len(c.set.order)/2]
	for b.Loop() {
		c.set.stale[h] = struct{}{}
		c.set.settle()
	}
}

func BenchmarkSync10000(b *testing.B) {
	w := newWorld(b, 100)
	shelf, _ := crowd(b, w, 98)
	full := w.open(b, 0, shelf)
	sent := 0
	for b.Loop() {
		empty := w.open(b, 1, newShelf())
		j := join(full, empty)
		<-empty.Checked()
		<-full.Checked()
		if err := j.end(); err != nil {
			b.Fatal(err)
		}
		alike(b, full, empty)
		sent = j.bytes()
	}
	b.ReportMetric(float64(size(b, full)), "record-bytes")
	b.ReportMetric(float64(sent), "wire-bytes")
}

// BenchmarkOpen10000 also tells what a catalog of 10,000 records keeps in memory.
func BenchmarkOpen10000(b *testing.B) {
	w := newWorld(b, 100)
	shelf, _ := crowd(b, w, 98)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	kept := w.open(b, 0, shelf)
	runtime.GC()
	runtime.ReadMemStats(&after)
	for b.Loop() {
		w.open(b, 0, shelf)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "heap-MB")
	runtime.KeepAlive(kept)
}

func BenchmarkLive(b *testing.B) {
	shelf, _ := crowd(b, newWorld(b, 100), 98)
	c := newWorld(b, 100).open(b, 0, shelf)
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			c.Live(ScopeMain, KindArtifact, "")
		}
	})
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			c.Live(ScopeMain, KindArtifact, "app50/50")
		}
	})
}
