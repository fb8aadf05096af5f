package catalog

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/wire"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNewRecordsReachThePeerAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t, 3).openAll(t)
		status(t, all[0], 1)
		publish(t, all[1], "app", 1, 1)
		ab, bc := join(all[0], all[1]), join(all[1], all[2])
		synctest.Wait()
		alike(t, all...)
		for _, c := range all {
			if !c.OwnChecked() {
				t.Error("compared, and the own head is not checked")
			}
		}
		start := time.Now()
		publish(t, all[0], "lib", 1, 1) // over two hops
		publish(t, all[2], "lib", 1, 1)
		synctest.Wait()
		alike(t, all...)
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %s", took)
		}
		select {
		case <-all[2].Changed():
		default:
			t.Error("nobody was told")
		}
		if err := errors.Join(ab.end(), bc.end()); err != nil {
			t.Error(err)
		}
	})
}

func TestEqualCatalogsCostLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t, 2).openAll(t)
		status(t, all[0], 1)
		publish(t, all[1], "app", 1, 1)
		j := join(all[0], all[1])
		synctest.Wait()
		alike(t, all...)
		before := j.bytes()
		all[0].Kick(all[1].self)
		synctest.Wait()
		cost := j.bytes() - before
		t.Logf("equal catalogs: %d bytes", cost)
		if cost == 0 || cost > 100 {
			t.Errorf("comparing equal catalogs costs %d bytes, want 1 to 100", cost)
		}
		before = j.bytes()
		<-time.After(10 * keepAlive) // virtual
		if cost := j.bytes() - before; cost > 10*2*100 {
			t.Errorf("ten idle minutes cost %d bytes", cost)
		}
		if err := j.end(); err != nil {
			t.Error(err)
		}
	})
}

// TestConvergence: two to five catalogs, each with its own history, over links that come, go and are cut
// mid-frame, all end equal.
func TestConvergence(t *testing.T) {
	w := newWorld(t, 5)
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 1))
			n := 2 + random.IntN(4)
			all := make([]*Catalog, n)
			for i := range all {
				all[i] = w.open(t, i, newShelf())
			}
			backups := map[int]*memory{} // restored ones fork logs, in every other seed
			for range 40 + random.IntN(100) {
				i := random.IntN(n)
				switch roll := random.IntN(20); {
				case seed%2 == 0 || roll > 1:
					disturb(t, w, random, all, i)
				case roll == 0:
					backups[i] = all[i].cfg.Shelf.(*memory).clone()
				case backups[i] != nil:
					all[i] = w.open(t, i, backups[i].clone())
				}
			}
			synctest.Wait()
			var links []*joined
			for i := 1; i < n; i++ {
				links = append(links, join(all[i], all[random.IntN(i)]))
			}
			synctest.Wait()
			for _, l := range links {
				if err := l.end(); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
			}
			alike(t, all...)
			for _, h := range all[0].set.order {
				if seed%2 == 0 && (!h.complete() || h.forked) {
					t.Errorf("seed %d: log %s: complete %v, forked %v", seed, h.id, h.complete(), h.forked)
				}
			}
			alike(t, all[0], w.open(t, 0, all[0].cfg.Shelf))
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		})
	}
}

// disturb does one random thing to one of the catalogs.
func disturb(t *testing.T, w *world, random *rand.Rand, all []*Catalog, i int) {
	c := all[i]
	name := fmt.Sprint("app", random.IntN(4))
	switch random.IntN(12) {
	case 0:
		must(c.Append(KindWithdraw, name, must(EncodeWithdraw(WithdrawBody{}))(t), 0))(t)
	case 1:
		status(t, c, random.IntN(100))
	case 2:
		all[i] = w.open(t, i, c.cfg.Shelf) // a crash
	case 3:
		if err := c.NewEpoch(); err != nil {
			t.Fatal(err)
		}
	case 4, 5, 6: // a link for some bytes
		o := all[(i+1+random.IntN(len(all)-1))%len(all)]
		x, y := net.Pipe()
		l := joinOver(c, o, &short{Conn: x, left: random.IntN(4000)}, y)
		publish(t, c, name, random.Uint64N(100)+1, 1+random.IntN(3))
		synctest.Wait()
		_ = l.end() // cut or not
	default:
		publish(t, c, name, random.Uint64N(100)+1, 1+random.IntN(3))
	}
}

// short is a stream that breaks after some bytes.
type short struct {
	net.Conn
	left int
}

func (s *short) Write(b []byte) (int, error) {
	if len(b) > s.left {
		_, _ = s.Conn.Write(b[:s.left])
		_ = s.Close()
		return 0, io.ErrClosedPipe
	}
	s.left -= len(b)
	return s.Conn.Write(b)
}

// TestACutSyncGoesOn: what came before a cut is not sent again.
func TestACutSyncGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a, b := w.open(t, 0, newShelf()), w.open(t, 1, newShelf())
		const records = 4000
		fill(t, a, records)
		x, y := net.Pipe()
		all := size(t, a)
		l := joinOver(a, b, &short{Conn: x, left: all / 2}, y)
		synctest.Wait()
		_ = l.end()
		had := b.Stats().Records
		if had < 1000 || had >= records {
			t.Fatalf("%d records after half of the bytes", had)
		}
		b = w.open(t, 1, b.cfg.Shelf)
		l = join(a, b)
		synctest.Wait()
		alike(t, a, b)
		if err := l.end(); err != nil {
			t.Error(err)
		}
		if rest := l.bytes(); rest > all*(records-had)/records+all/20 {
			t.Errorf("%d of %d records were there, and %d of %d bytes were sent again", had, records, rest, all)
		}
	})
}

// fill gives a catalog many records quickly.
func fill(tb testing.TB, c *Catalog, records int) {
	tb.Helper()
	for i := range records {
		publish(tb, c, fmt.Sprintf("fill/%05d", i), 1, 1)
	}
}

// size is the bytes of all records.
func size(tb testing.TB, c *Catalog) int {
	n := 0
	for _, h := range c.set.order {
		for _, e := range h.recs.list() {
			n += len(must(c.encoded(e))(tb))
		}
	}
	return n
}

// through joins a and b over a proxy that may change the frames to b.
func through(a, b *Catalog, edit func(kind byte, body []byte) []byte) *joined {
	ax, ap := net.Pipe()
	bx, bp := net.Pipe()
	go func() { _ = proxy(ap, bp, edit); _ = ap.Close(); _ = bp.Close() }()
	go func() {
		_ = proxy(bp, ap, func(_ byte, b []byte) []byte { return b })
		_ = ap.Close()
		_ = bp.Close()
	}()
	return joinOver(a, b, ax, bx)
}

func TestARelayThatHoldsBackIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := newWorld(t, 3).openAll(t)
		origin, victim, honest := all[0], all[1], all[2]
		publish(t, origin, "app", 1, 3)
		held := publish(t, origin, "app", 2, 3)
		publish(t, origin, "app", 3, 3)
		give(t, honest, origin)
		drop := func(kind byte, body []byte) []byte {
			if kind != framePage {
				return body
			}
			f := must(decodeFrame[pageFrame](body))(t)
			f.Records = slices.DeleteFunc(f.Records, func(b []byte) bool {
				r := must(DecodeRecord(b))(t)
				return r.Log == held.Log && r.Seq == held.Seq
			})
			return must(wire.Marshal(sessionVersion, &f))(t)
		}
		bad := through(origin, victim, drop)
		synctest.Wait()
		if victim.Stats().Incomplete != 1 {
			t.Errorf("%d logs told incomplete, want 1", victim.Stats().Incomplete)
		}
		if victim.set.logs[held.Log].complete() {
			t.Error("the log seems whole")
		}
		if n := bad.bytes(); n > 20_000 {
			t.Errorf("the two talked %d bytes about it", n)
		}
		good := join(honest, victim) // while the bad one is still there
		synctest.Wait()
		alike(t, all...)
		if !victim.set.logs[held.Log].complete() {
			t.Error("the log is not whole")
		}
		if err := errors.Join(bad.end(), good.end()); err != nil {
			t.Error(err)
		}
	})
}

func TestForkSpreadsAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		disk := newShelf()
		before := w.open(t, 0, disk)
		publish(t, before, "app", 1, 2)
		after := w.open(t, 0, disk.clone())
		for i := range uint64(3) {
			publish(t, before, fmt.Sprint("before", i), 1, 1)
			publish(t, after, fmt.Sprint("after", i), 1, 1)
			publish(t, after, "app", i+2, 2)
		}
		b, c, d := w.open(t, 1, newShelf()), w.open(t, 2, newShelf()), w.open(t, 3, newShelf())
		give(t, b, before) // before is gone; only b and c know its branch
		give(t, c, b)
		give(t, d, after)
		links := []*joined{join(b, c), join(c, d), join(d, after)}
		synctest.Wait()
		alike(t, b, c, d, after)
		for _, x := range []*Catalog{b, c, d, after} {
			if got := len(x.Live(ScopeMain, KindArtifact, "")); got != 8 {
				t.Errorf("%d of 8 live artifacts of both branches", got)
			}
		}
		epoch := after.Epoch()
		if epoch == before.Epoch() {
			t.Error("the forked epoch goes on")
		}
		publish(t, after, "app", 9, 2)
		synctest.Wait()
		alike(t, b, c, d, after)
		if got := fmt.Sprint(names(b.Live(ScopeMain, KindArtifact, "app"))); !strings.Contains(got, "app@1]") {
			t.Errorf("live apps %s", got)
		}
		for _, l := range links {
			if err := l.end(); err != nil {
				t.Error(err)
			}
		}
	})
}
