package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/trust"
)

func TestAppendIsThereAfterARestart(t *testing.T) {
	w := newWorld(t, 1)
	shelf := newShelf()
	c := w.open(t, 0, shelf)
	publish(t, c, "app", 1, 2)
	publish(t, c, "app", 2, 2)
	publish(t, c, "app", 3, 2)
	publish(t, c, "gone", 1, 2)
	status(t, c, 1)
	status(t, c, 2)
	if _, err := c.Append(KindWithdraw, "gone", must(EncodeWithdraw(WithdrawBody{}))(t), 0); err != nil {
		t.Fatal(err)
	}
	again := w.open(t, 0, shelf)
	alike(t, c, again)
	if again.Epoch() != c.Epoch() {
		t.Error("a store that is whole began a new epoch")
	}
	for _, cat := range []*Catalog{c, again} {
		if got := fmt.Sprint(names(cat.Live(ScopeMain, KindArtifact, ""))); got != "[app@2 app@3]" {
			t.Errorf("live artifacts %s", got)
		}
		if got := fmt.Sprint(names(cat.Live(ScopeNodes, KindStatus, ""))); got != "[@3]" {
			t.Errorf("live statuses %s", got)
		}
		if cert, ok := cat.Cert(c.self); !ok || cert.Name != "node0" {
			t.Errorf("the own certificate is not in the log: %v", cert)
		}
		if r, ok := cat.Newest(KindArtifact, "app", c.self); !ok || r.Seq != 3 {
			t.Errorf("newest of app is %v, %d", ok, r.Seq)
		}
	}
	want := []trust.LogHead{{Epoch: c.Epoch(), Scope: ScopeMain, Seq: 5}, {Epoch: c.Epoch(), Scope: ScopeNodes, Seq: 3}}
	if got := again.Heads(c.self); !slices.Equal(got, want) {
		t.Errorf("heads %v, want %v", got, want)
	}
	publish(t, again, "app", 4, 2) // takes what was needless before it off the disk
	if shelf.records() != again.Stats().Records+1 {
		t.Errorf("%d records on disk, %d live", shelf.records(), again.Stats().Records)
	}
}

func TestAppendRefuses(t *testing.T) {
	w := newWorld(t, 1)
	c := w.open(t, 0, newShelf())
	status(t, c, 1)
	before := c.Root()
	tests := []struct {
		name, record string
		kind         uint8
		body         []byte
		want         string
	}{
		{"an unknown kind", "x", 77, nil, "not yet supported"},
		{"a wrong name", "a//b", KindArtifact, offer(t, 1, "x"), "artifact name"},
		{"a body that is none", "app", KindArtifact, []byte{9}, "record body"},
		{"too much", "", KindStatus, make([]byte, 1024), "bytes of a record"},
		{"a certificate of nobody", "", KindCert, must(EncodeCert(CertBody{[][]byte{{1}, {2}}}))(t), "charter"},
	}
	for _, tt := range tests {
		if _, err := c.Append(tt.kind, tt.record, tt.body, 0); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
		if c.Root() != before {
			t.Errorf("%s: something was appended", tt.name)
		}
	}
	w.ids[0].Chain = nil
	if _, err := w.open(t, 0, newShelf()).Append(KindStatus, "", nil, 0); err == nil {
		t.Error("a node without certificate appends")
	}
}

var errDisk = errors.New("no space left on device")

func TestAppendThatFailed(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied %v", applied), func(t *testing.T) {
			w := newWorld(t, 1)
			shelf := newShelf()
			c := w.open(t, 0, shelf)
			publish(t, c, "app", 1, 5)
			before := c.Root()
			shelf.fault = func() (bool, error) { return applied, errDisk }
			if _, err := c.Append(KindArtifact, "lost", offer(t, 1, "lost"), 1); !errors.Is(err, errDisk) {
				t.Fatalf("Append = %v", err)
			}
			shelf.fault = nil
			if c.Root() != before {
				t.Error("what failed is there")
			}
			crashed := w.open(t, 0, shelf.clone()) // it may have become durable: then it is there as a whole
			if h := crashed.set.logs[LogID{c.self, c.Epoch(), ScopeMain}]; !h.complete() || h.forked {
				t.Error("the log is torn")
			}
			publish(t, c, "app", 2, 5)
			alike(t, c, w.open(t, 0, shelf))
		})
	}
}

func TestANewStoreBeginsANewEpoch(t *testing.T) {
	w := newWorld(t, 1)
	a, b := w.open(t, 0, newShelf()), w.open(t, 0, newShelf())
	if err := b.NewEpoch(); err != nil {
		t.Fatal(err)
	}
	if a.Epoch() == 0 || a.Epoch() == b.Epoch() {
		t.Errorf("epochs %x and %x", a.Epoch(), b.Epoch())
	}
	if at := time.UnixMilli(int64(a.Epoch() >> epochRandBits)); time.Since(at) > time.Minute {
		t.Errorf("the epoch tells %s", at)
	}
	publish(t, b, "app", 1, 1)
	if err := b.NewEpoch(); err != nil {
		t.Fatal(err)
	}
	publish(t, b, "lib", 1, 1)
	if got := fmt.Sprint(names(b.Live(ScopeMain, KindArtifact, ""))); got != "[app@1 lib@1]" {
		t.Errorf("over two epochs %s", got)
	}
	if !b.HasOwn(KindCert) {
		t.Error("the new epoch has no certificate")
	}
}

func TestRevocation(t *testing.T) {
	w := newWorld(t, 3)
	all := w.openAll(t)
	revoker, thief, witness := all[0], all[1], all[2]
	publish(t, thief, "app", 1, 9)
	heads := append([]trust.LogHead{}, thief.Heads(thief.self)...)
	publish(t, thief, "app", 2, 9)
	if err := thief.NewEpoch(); err != nil {
		t.Fatal(err)
	}
	publish(t, thief, "evil", 1, 9)
	give(t, witness, thief)

	s := must(trust.SignStatement(trust.Statement{
		Kind: trust.Revocation, Subject: w.ids[1].Public(), Heads: heads, Reason: "stolen", At: epochStart,
	}, w.ids[0]))(t)
	if _, err := revoker.Append(KindStatement, "revoke", s, 0); err != nil {
		t.Fatal(err)
	}
	give(t, revoker, thief)
	give(t, witness, revoker)
	give(t, thief, revoker)
	for _, c := range all {
		if got := fmt.Sprint(names(c.Live(ScopeMain, KindArtifact, ""))); got != "[app@1]" {
			t.Errorf("live after the revocation %s", got)
		}
		if !c.Revoked(w.ids[1].Public()) || c.Revoked(w.ids[0].Public()) {
			t.Error("the wrong key is revoked")
		}
	}
	alike(t, all...)
	if _, err := thief.Append(KindStatus, "", nil, 0); !errors.Is(err, ErrRevoked) {
		t.Errorf("the revoked node appends: %v", err)
	}
	restarted := w.open(t, 2, witness.cfg.Shelf)
	alike(t, witness, restarted)

	// Who has no right to revoke says nothing.
	s = must(trust.SignStatement(trust.Statement{Kind: trust.Revocation, Subject: w.ids[0].Public(), At: epochStart}, w.ids[2]))(t)
	if _, err := witness.Append(KindStatement, "coup", s, 0); err != nil {
		t.Fatal(err)
	}
	if witness.Revoked(w.ids[0].Public()) {
		t.Error("a node without the right revokes")
	}
}

// give merges all that from has into to, as one page.
func give(t *testing.T, to, from *Catalog) {
	t.Helper()
	if err := to.merge(everything(t, from), nil, nil); err != nil {
		t.Fatal(err)
	}
}

func everything(t testing.TB, c *Catalog) []incoming {
	t.Helper()
	var certs, rest [][]byte
	for _, h := range c.set.order {
		for _, e := range h.recs.list() {
			if e.kind == KindCert {
				certs = append(certs, must(c.encoded(e))(t))
			} else {
				rest = append(rest, must(c.encoded(e))(t))
			}
		}
	}
	return must(decodePage(append(certs, rest...)))(t)
}

func TestMergeRefusesForgeries(t *testing.T) {
	w := newWorld(t, 3)
	all := w.openAll(t)
	victim, forger := all[0], all[1]
	publish(t, victim, "app", 1, 1)
	give(t, forger, victim)
	tests := []struct {
		name string
		page [][]byte
	}{
		{"another's log", [][]byte{signed(t, w.ids[1].Key, Record{
			Log: LogID{w.ids[0].ID(), victim.Epoch(), ScopeMain}, Seq: 2, Live: victim.Root(), Kind: KindPlaced, Name: "x", At: epochStart,
		})}},
		{"another's certificate in its own log", [][]byte{signed(t, w.ids[1].Key, Record{
			Log: LogID{w.ids[1].ID(), 5, ScopeNodes}, Seq: 1, Live: victim.Root(), Kind: KindCert, At: epochStart,
			Body: must(EncodeCert(CertBody{w.ids[2].Chain}))(t),
		})}},
		{"another's statement in its own log", [][]byte{
			signed(t, w.ids[1].Key, Record{
				Log: LogID{w.ids[1].ID(), 5, ScopeNodes}, Seq: 1, Live: victim.Root(), Kind: KindCert, At: epochStart,
				Body: must(EncodeCert(CertBody{w.ids[1].Chain}))(t),
			}),
			signed(t, w.ids[1].Key, Record{
				Log: LogID{w.ids[1].ID(), 5, ScopeNodes}, Seq: 2, Live: victim.Root(), Kind: KindStatement, Name: "s", At: epochStart,
				Body: must(trust.SignStatement(trust.Statement{Kind: trust.Revocation, Subject: w.ids[2].Public(), At: epochStart}, w.ids[0]))(t),
			}),
		}},
	}
	for _, tt := range tests {
		to := w.open(t, 2, newShelf())
		give(t, to, victim)
		before := to.Root()
		if err := to.merge(must(decodePage(tt.page))(t), nil, nil); !errors.Is(err, errPeer) {
			t.Errorf("%s: merge = %v", tt.name, err)
		}
		if to.Root() != before {
			t.Errorf("%s: something was stored", tt.name)
		}
	}
	stranger := must(trust.NewIdentity(strings.NewReader(strings.Repeat("s", 32))))(t)
	to := w.open(t, 2, newShelf())
	page := [][]byte{signed(t, stranger.Key, Record{
		Log: LogID{stranger.ID(), 5, ScopeMain}, Seq: 1, Live: victim.Root(), Kind: KindPlaced, Name: "x", At: epochStart,
	})}
	if err := to.merge(must(decodePage(page))(t), nil, nil); err != nil || to.Stats().Keyless != 1 || to.Stats().Records != 0 {
		t.Errorf("a record of nobody known: %v, %+v", err, to.Stats())
	}
}

func TestRestoredBackup(t *testing.T) {
	w := newWorld(t, 2)
	shelf := newShelf()
	c, peer := w.open(t, 0, shelf), w.open(t, 1, newShelf())
	publish(t, c, "app", 1, 1)
	backup := shelf.clone()
	publish(t, c, "lib", 1, 1)
	give(t, peer, c)
	known := peer.cfg.Shelf.(*memory).clone()

	t.Run("that asks first", func(t *testing.T) {
		restored := w.open(t, 0, backup.clone())
		give(t, restored, peer)
		if restored.Epoch() <= c.Epoch() {
			t.Error("the old epoch goes on")
		}
		publish(t, restored, "new", 1, 1)
		give(t, peer, restored)
		alike(t, peer, restored)
		if got := fmt.Sprint(names(peer.Live(ScopeMain, KindArtifact, ""))); got != "[app@1 lib@2 new@1]" {
			t.Errorf("live %s", got)
		}
		if len(peer.Forks()) != 0 {
			t.Error("it counts as forked")
		}
	})
	t.Run("that publishes first", func(t *testing.T) {
		disk := backup.clone()
		restored := w.open(t, 0, disk)
		peer := w.open(t, 1, known)
		publish(t, restored, "early", 1, 1)
		publish(t, restored, "early2", 1, 1)
		give(t, peer, restored)
		give(t, restored, peer)
		alike(t, peer, restored)
		if !peer.Forked(c.self) || !restored.Forked(c.self) {
			t.Error("the fork is not told")
		}
		if restored.Epoch() <= c.Epoch() {
			t.Error("the forked epoch goes on")
		}
		publish(t, restored, "late", 1, 1)
		give(t, peer, restored)
		if got := fmt.Sprint(names(peer.Live(ScopeMain, KindArtifact, ""))); got != "[app@1 early@2 early2@3 late@1 lib@2]" {
			t.Errorf("of both branches are live %s", got)
		}
		again := w.open(t, 0, disk)
		if len(again.Forks()) != len(restored.Forks()) {
			t.Error("the proof did not outlive the restart")
		}
	})
}

// What the disk made something else of is dropped and comes back from a peer; where it was the node's own, it goes on in a
// new epoch, because it can't know the end of the old one.
func TestADamagedRecordIsDroppedAndFetchedAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func([]byte) []byte
	}{
		{"a bit", func(b []byte) []byte { b[len(b)/3] ^= 1; return b }},
		{"cut", func(b []byte) []byte { return b[:len(b)-20] }},
		{"cut to nothing", func([]byte) []byte { return []byte{} }},
	} {
		for _, of := range []int{0, 1} {
			t.Run(fmt.Sprintf("%s of node %d", tt.name, of), func(t *testing.T) {
				w := newWorld(t, 2)
				shelf := newShelf()
				c, peer := w.open(t, 0, shelf), w.open(t, 1, newShelf())
				for i := range 3 {
					publish(t, c, fmt.Sprint("own", i), 1, 1)
					publish(t, peer, fmt.Sprint("peers", i), 1, 1)
				}
				give(t, c, peer)
				give(t, peer, c)
				want, epoch := fmt.Sprint(names(c.Live(ScopeMain, KindArtifact, ""))), c.Epoch()
				origin, damaged := w.ids[of].ID(), 0
				for k, v := range shelf.value {
					if k[0] == prefixRecord && strings.HasPrefix(k[1:], string(origin[:])) {
						shelf.value[k] = tt.damage(bytes.Clone(v))
						damaged++
					}
				}
				again := must(Open(c.cfg))(t)
				if had := 2 * damaged; again.Stats().Records != had-damaged {
					t.Errorf("%d records are live of %d, %d of them damaged", again.Stats().Records, had, damaged)
				}
				if (again.Epoch() > epoch) != (of == 0) {
					t.Errorf("epoch %x after %x", again.Epoch(), epoch)
				}
				give(t, again, peer)
				alike(t, again, peer)
				if got := fmt.Sprint(names(again.Live(ScopeMain, KindArtifact, ""))); got != want {
					t.Errorf("back are %s, want %s", got, want)
				}
				publish(t, again, "next", 1, 1)
				give(t, peer, again)
				alike(t, again, peer)
				if again.Forked(again.self) || peer.Forked(again.self) {
					t.Error("the own log is forked")
				}
			})
		}
	}
}

func TestRecordsOfThousandsOfNames(t *testing.T) {
	w := newWorld(t, 1)
	c := w.open(t, 0, newShelf())
	for i := range 100 {
		publish(t, c, fmt.Sprintf("app%02d", (i*37)%100), 1, 1)
	}
	got := names(c.Live(ScopeMain, KindArtifact, ""))
	if !slices.IsSorted(got) || len(got) != 100 {
		t.Errorf("not sorted: %v", got)
	}
	if n := len(c.Live(ScopeMain, KindArtifact, "app1")); n != 10 {
		t.Errorf("%d begin with app1", n)
	}
	if got := c.Heads(id.Node{}); got != nil {
		t.Errorf("heads of nobody: %v", got)
	}
}
