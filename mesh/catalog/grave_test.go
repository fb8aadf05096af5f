package catalog

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/trust"
)

// admit says in the sponsor's log that node i was admitted.
func admit(tb testing.TB, sponsor *Catalog, w *world, i int) {
	tb.Helper()
	s := must(trust.SignStatement(trust.Statement{Kind: trust.Admission, Subject: w.ids[i].Public(), Name: fmt.Sprint("node", i), At: time.Now()}, w.ids[0]))(tb)
	must(sponsor.Append(KindStatement, fmt.Sprint("admission/", i), s, 0))(tb)
}

// TestTheLongDeadAgeOut: what nodes said of themselves goes when they were not seen for 90 days and offer
// nothing; who buried it and who did not agree, a newcomer too; and their return brings it back.
func TestTheLongDeadAgeOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 6)
		sponsor, busy, gone, b, late := w.open(t, 0, newShelf()), w.open(t, 1, newShelf()), w.open(t, 2, newShelf()), w.open(t, 3, newShelf()), w.open(t, 4, newShelf())
		for i := 1; i < 6; i++ {
			admit(t, sponsor, w, i)
		}
		for _, c := range []*Catalog{sponsor, busy, gone, b} {
			status(t, c, 1)
		}
		publish(t, busy, "app", 1, 1) // it is gone as well, and what it offers stays
		for _, c := range []*Catalog{busy, gone, b} {
			give(t, sponsor, c)
		}
		give(t, b, sponsor)
		give(t, gone, sponsor)
		alike(t, sponsor, b, gone)
		root, had := sponsor.Root(), sponsor.Stats().Records

		here := func(n id.Node) time.Time {
			if n == b.self {
				return time.Now()
			}
			return time.Time{}
		}
		if n, err := sponsor.Bury(time.Now(), here); n != 0 || err != nil {
			t.Errorf("at once %d logs age out, %v", n, err)
		}
		time.Sleep(BuryAfter - time.Hour)
		if n, err := sponsor.Bury(time.Now(), here); n != 0 || err != nil {
			t.Errorf("an hour too early %d logs age out, %v", n, err)
		}
		time.Sleep(2 * time.Hour)
		n, err := sponsor.Bury(time.Now(), here)
		if n != 1 || err != nil {
			t.Fatalf("%d logs age out, %v; want that of the node that is gone", n, err)
		}
		if s := sponsor.Stats(); s.Graves != 1 || s.Buried != 1 || s.Records != had-2 || sponsor.Root() != root {
			t.Errorf("after it %+v, root as it was: %v", s, sponsor.Root() == root)
		}
		if _, ok := sponsor.Key(gone.self); ok {
			t.Error("the certificate is still there")
		}
		sponsor = w.open(t, 0, sponsor.cfg.Shelf)
		alike(t, sponsor, b)

		l := join(sponsor, b) // has the log itself
		synctest.Wait()
		if n := l.bytes(); n > 100 {
			t.Errorf("who buried and who did not talk %d bytes about it", n)
		}
		k := join(sponsor, late)
		synctest.Wait()
		alike(t, sponsor, b, late)
		if s := late.Stats(); s.Graves != 1 {
			t.Errorf("the newcomer has %d graves", s.Graves)
		}
		late = reopen(t, w, 4, late, &k, sponsor)
		alike(t, sponsor, late)

		back := join(gone, late) // returns, and meets who has the grave alone
		synctest.Wait()
		alike(t, sponsor, b, late, gone)
		for _, c := range []*Catalog{sponsor, b, late} {
			if _, ok := c.Key(gone.self); !ok || c.Stats().Graves != 0 {
				t.Errorf("after its return: certificate known %v, %d graves", ok, c.Stats().Graves)
			}
		}
		status(t, gone, 7)
		synctest.Wait()
		alike(t, sponsor, b, late, gone, w.open(t, 4, late.cfg.Shelf))
		if err := errors.Join(l.end(), k.end(), back.end()); err != nil {
			t.Error(err)
		}
	})
}

// reopen ends a session of c, restarts it, and begins the session anew.
func reopen(t *testing.T, w *world, i int, c *Catalog, l **joined, with *Catalog) *Catalog {
	t.Helper()
	if err := (*l).end(); err != nil {
		t.Error(err)
	}
	c = w.open(t, i, c.cfg.Shelf)
	*l = join(with, c)
	synctest.Wait()
	return c
}

// TestGravesOfStrangersAreRefused: a peer can not fill the catalog with graves of nodes that no sponsor
// admitted, nor bury what is here.
func TestGravesOfStrangersAreRefused(t *testing.T) {
	w := newWorld(t, 3)
	sponsor, c := w.open(t, 0, newShelf()), w.open(t, 1, newShelf())
	admit(t, sponsor, w, 2)
	give(t, c, sponsor)
	root := c.Root()
	var graves []grave
	for i := range 1000 {
		graves = append(graves, grave{origin: [8]byte{byte(i), byte(i >> 8)}, tag: [8]byte{byte(i), byte(i >> 8), 1}})
	}
	for _, h := range c.set.order {
		graves = append(graves, h.grave())
	}
	if err := c.inter(graves); err != nil || c.Root() != root || c.Stats().Graves != 0 {
		t.Errorf("of strangers %d graves were taken, %v", c.Stats().Graves, err)
	}
	graves = nil
	for i := range 1000 {
		graves = append(graves, grave{origin: [8]byte(graveOf(w.ids[2].ID())), tag: [8]byte{byte(i), byte(i >> 8), 1}})
	}
	if err := c.inter(graves); err != nil || c.Stats().Graves != maxGravesOf {
		t.Errorf("of one node %d graves were taken, want %d; %v", c.Stats().Graves, maxGravesOf, err)
	}
}

// TestAProofOfAForkSpreadsByItself: whoever hears of it needs neither branch; a forged one is refused.
func TestAProofOfAForkSpreadsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4)
		disk := newShelf()
		before := w.open(t, 0, disk)
		publish(t, before, "app", 1, 1)
		after := w.open(t, 0, disk.clone())
		x, y := publish(t, before, "app", 2, 1), publish(t, after, "app", 3, 1)
		witness := w.open(t, 1, newShelf())
		give(t, witness, before)
		give(t, witness, after)
		if !witness.Forked(before.self) {
			t.Fatal("the witness saw no fork")
		}
		// The next version makes both needless before anybody else hears of them.
		publish(t, after, "app", 4, 1)
		give(t, witness, after)
		far := w.open(t, 2, newShelf())
		near := w.open(t, 3, newShelf())
		give(t, far, witness)
		if far.Forked(before.self) {
			t.Fatal("both branches are still live: the test shows nothing")
		}
		one, two := join(witness, near), join(near, far)
		synctest.Wait()
		epoch := after.Epoch()
		three := join(far, after) // the origin itself opens a new epoch
		synctest.Wait()
		for _, c := range []*Catalog{near, far, after, w.open(t, 2, far.cfg.Shelf)} {
			if !c.Forked(before.self) {
				t.Error("the proof did not come")
			}
		}
		if after.Epoch() == epoch {
			t.Error("the forked epoch goes on")
		}
		if err := errors.Join(one.end(), two.end(), three.end()); err != nil {
			t.Error(err)
		}
		bad := y
		bad.Sig[0]++
		for _, f := range []Fork{{x, bad}, {x, x}, {x, publish(t, after, "other", 1, 1)}} {
			p := must(f.encode())(t)
			if err := near.heardProof(p); err == nil {
				t.Error("a forged proof was taken")
			}
		}
	})
}

// TestAClonedNodeStopsWriting: two machines with one key that hear of each other open one epoch after the
// other, three times; then both say what is wrong.
func TestAClonedNodeStopsWriting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		disk := newShelf()
		one := w.open(t, 0, disk)
		publish(t, one, "app", 1, 1)
		two := w.openSeeded(t, 0, disk.clone(), 2)
		hub := w.open(t, 1, newShelf())
		l, k := join(one, hub), join(two, hub)
		var err error
		for i := uint64(0); i < 20 && err == nil; i++ {
			for _, c := range []*Catalog{one, two} {
				synctest.Wait()
				if _, e := c.Append(KindArtifact, "app", offer(t, i+2, "x"), 1); e != nil {
					err = e
				}
			}
		}
		if !errors.Is(err, ErrCloned) {
			t.Errorf("they go on: %v", err)
		}
		say := func(c *Catalog) {
			if _, err := c.Append(KindStatus, "", must(EncodeStatus(StatusBody{Name: "n", State: StatusCloned}))(t), 1); err != nil {
				t.Errorf("it can't say that it is cloned: %v", err)
			}
			synctest.Wait()
		}
		switch {
		case one.Cloned():
			say(one)
		case two.Cloned():
			say(two)
		default:
			t.Error("neither says so")
		}
		if !one.Cloned() || !two.Cloned() {
			t.Errorf("cloned: %v and %v; one told the other", one.Cloned(), two.Cloned())
		}
		time.Sleep(cloneTime + time.Minute)
		if _, err := one.Append(KindArtifact, "app", offer(t, 99, "x"), 1); err != nil {
			t.Errorf("an hour later: %v", err)
		}
		synctest.Wait()
		alike(t, one, two, hub)
		if err := errors.Join(l.end(), k.end()); err != nil {
			t.Error(err)
		}
	})
}

func graveOf(n id.Node) []byte { return n[:8] }
