package catalog

import (
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func withdraw(tb testing.TB, c *Catalog, name string) {
	tb.Helper()
	must(c.Append(KindWithdraw, name, must(EncodeWithdraw(WithdrawBody{}))(tb), 0))(tb)
}

// TestCheckpointsBoundWithdrawals: a log that offers little stays small, whatever was withdrawn from it, and
// who comes late or was long away agrees.
func TestCheckpointsBoundWithdrawals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		a, b, stale := w.open(t, 0, newShelf()), w.open(t, 1, newShelf()), w.open(t, 2, newShelf())
		publish(t, a, "old/epoch", 1, 1)
		if err := a.NewEpoch(); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			publish(t, a, fmt.Sprint("kept/", i), 1, 2)
			publish(t, a, fmt.Sprint("kept/", i), 2, 2)
		}
		withdraw(t, a, "old/epoch") // its artifact is in the epoch before
		for i := range 50 {
			publish(t, a, fmt.Sprint("gone/", i), 1, 1)
		}
		give(t, stale, a)
		before := a.Live(ScopeMain, KindArtifact, "kept/")
		for i := range 400 { // nobody told the own head yet
			publish(t, a, fmt.Sprint("gone/", i), 2, 1)
			withdraw(t, a, fmt.Sprint("gone/", i))
		}
		own := LogID{a.self, a.Epoch(), ScopeMain}
		if h := a.set.logs[own]; h.floor != 0 || h.withdrawals != 401 {
			t.Errorf("floor %d and %d withdrawals before anybody told the own head", h.floor, h.withdrawals)
		}
		l := join(a, b)
		synctest.Wait()
		for i := range 1000 {
			publish(t, a, fmt.Sprint("more/", i), 1, 1)
			withdraw(t, a, fmt.Sprint("more/", i))
		}
		synctest.Wait()
		alike(t, a, b)
		h := a.set.logs[own]
		if h.floor == 0 || h.recs.n > 2*checkpointFrom+2*45 {
			t.Errorf("%d records are live for 40 artifacts, floor %d", h.recs.n, h.floor)
		}
		if !h.complete() || !b.set.logs[own].complete() {
			t.Error("the log is not complete")
		}
		give(t, stale, b) // what it has below the floor is dead, and can not come back
		give(t, b, stale)
		alike(t, a, stale, w.open(t, 0, a.cfg.Shelf), w.open(t, 1, b.cfg.Shelf))
		for _, c := range []*Catalog{a, b, stale} {
			if got := c.Live(ScopeMain, KindArtifact, ""); len(got) != 40 {
				t.Errorf("%d artifacts are live, want 40: %v", len(got), names(got))
			}
			if c.set.floorsBroken() {
				t.Error("something below a floor is live")
			}
		}
		after := b.Live(ScopeMain, KindArtifact, "kept/")
		for i, r := range before { // written again, they are the same versions
			x, _, err := r.Ref()
			y, _, err2 := after[i].Ref()
			if x != y || !r.At.Equal(after[i].At) || err != nil || err2 != nil {
				t.Errorf("%v became %v (%v, %v)", x, y, err, err2)
			}
		}
		if err := l.end(); err != nil {
			t.Error(err)
		}
		if n := a.cfg.Shelf.(*memory).records(); n > 2*h.recs.n+20 {
			t.Errorf("%d records on disk for %d live", n, h.recs.n)
		}
	})
}

// floorsBroken reports whether a record below its log's floor is live.
func (s *set) floorsBroken() bool {
	for _, h := range s.order {
		if e := h.recs.at(place{}); e.seq < h.floor {
			return true
		}
	}
	return false
}

// TestACutCheckpointHarmsNothing: the disk fails at any of its transactions.
func TestACutCheckpointHarmsNothing(t *testing.T) {
	for at := range 3 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2)
			disk := newShelf()
			a, b := w.open(t, 0, disk), w.open(t, 1, newShelf())
			l := join(a, b)
			synctest.Wait()
			for i := range 1050 {
				publish(t, a, fmt.Sprint("kept/", i), 1, 1)
			}
			for i := range 1049 {
				withdraw(t, a, fmt.Sprint("gone/", i))
			}
			n := 0
			disk.fault = func() (bool, error) {
				if n++; n == 2+at { // the withdrawal itself, then pages of 1,000
					return at%2 == 0, errDisk
				}
				return true, nil
			}
			withdraw(t, a, "last")
			disk.fault = nil
			synctest.Wait()
			publish(t, a, "after", 1, 1)
			synctest.Wait()
			alike(t, a, b)
			again := w.open(t, 0, disk)
			if got := len(again.Live(ScopeMain, KindArtifact, "")); got < 1051 {
				t.Errorf("fault %d: %d artifacts are live, want 1051", at, got)
			}
			if err := l.end(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestACursorOutlivesPushAndRestart: a record that is pushed into the middle of a first sync does not make
// the log begin anew after a cut.
func TestACursorOutlivesPushAndRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a, b := w.open(t, 0, newShelf()), w.open(t, 1, newShelf())
		const records = 4000
		fill(t, a, records)
		all := size(t, a)
		had := 0
		for round := 0; had < records; round++ {
			if round > 8 {
				t.Fatalf("after %d sessions there are %d of %d records", round, had, records)
			}
			x, y := net.Pipe()
			l := joinOver(a, b, &short{Conn: x, left: all/4 + 4000}, y)
			publish(t, a, fmt.Sprint("pushed/", round), 1, 1)
			synctest.Wait()
			_ = l.end()
			b = w.open(t, 1, b.cfg.Shelf)
			got := b.Stats().Records
			if got < min(had+records/6, records) {
				t.Errorf("session %d brought %d records more", round, got-had)
			}
			had = got
		}
		l := join(a, b)
		synctest.Wait()
		alike(t, a, b)
		if err := l.end(); err != nil {
			t.Error(err)
		}
		for k := range b.cfg.Shelf.(*memory).value {
			if k[0] == prefixCursor && !b.stale[k] {
				t.Error("a cursor is left of a complete log")
			}
		}
	})
}

// TestRecordsFromTheFutureChangeNoOrder: time is shown, and never decides.
func TestRecordsFromTheFutureChangeNoOrder(t *testing.T) {
	w := newWorld(t, 2)
	a, b := w.open(t, 0, newShelf()), w.open(t, 1, newShelf())
	a.cfg.Wall = func() time.Time { return time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC) }
	publish(t, a, "app", 1, 1)
	a.cfg.Wall = time.Now
	publish(t, a, "app", 2, 1)
	give(t, b, a)
	give(t, b, a) // twice
	if got := fmt.Sprint(names(b.Live(ScopeMain, KindArtifact, ""))); got != "[app@2]" {
		t.Errorf("live %s", got)
	}
	if b.Stats().Repeated == 0 {
		t.Error("what came twice was not counted")
	}
}
