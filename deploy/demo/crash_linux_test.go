//go:build linux

package demo

import (
	"archive/tar"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"meshd/agent/control"
)

// crashes is how often each of the two loops crashes its node; rerun one with -run and -v.
var crashes = flag.Int("crashes", 0, "how often the kill -9 loop and the power-cut loop crash their node (0: 200, or 5 without MESHD_TEST_ALL)")

const (
	defaultCrashes = 200
	shortCrashes   = 5
	publishers     = 3                     // that publish at once
	mostAcked      = 6                     // before the crash; those under way come on top
	mostLater      = 15 * time.Millisecond // from then to the crash
	mostDying      = 10 * time.Millisecond // from a power cut to the end of the process, which must lie to nobody meanwhile
	sampled        = 40                    // artifacts that a node which joins after all fetches
)

// A ledger holds what a node acknowledged: for each artifact the seed of its bytes and the hash it was told under.
type ledger struct {
	mu    sync.Mutex
	acked map[string]control.Artifact // by name
	tell  chan struct{}               // one value an acknowledgement, while there is room
}

// contentOf is what was published under a name: in turn small enough to lie in state.db, of one chunk and of several.
func contentOf(name string) []byte {
	var seed [32]byte
	copy(seed[:], name)
	r := rand.New(rand.NewChaCha8(seed))
	content := make([]byte, []int{700, 24 << 10, 120 << 10}[r.IntN(3)])
	for i := range content {
		content[i] = byte(r.Uint32())
	}
	return content
}

func tarOf(content []byte) io.Reader {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	// A bytes.Buffer takes all.
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: ".", Size: int64(len(content)), Mode: 0o644})
	_, _ = w.Write(content)
	_ = w.Close()
	return &b
}

// publish publishes one artifact after the other until the node can't any more.
func (l *ledger) publish(t *testing.T, door *control.Client, prefix string) {
	for i := 0; ; i++ {
		name := fmt.Sprintf("%s-%d", prefix, i)
		a, err := door.Publish(t.Context(), name, "", tarOf(contentOf(name)), nil)
		if err != nil {
			return
		}
		l.mu.Lock()
		l.acked[name] = a
		l.mu.Unlock()
		select {
		case l.tell <- struct{}{}:
		default: // nobody counts any more
		}
	}
}

// lost checks that all that was acknowledged under the names that match is listed as it was, with all its bytes on the
// node, and returns how many are not.
func (l *ledger) lost(n *node, pattern string) (count int) {
	n.f.t.Helper()
	list, err := n.door().Artifacts(n.f.t.Context(), pattern, false)
	if err != nil {
		n.f.t.Fatal(err)
	}
	found := map[string]control.Artifact{}
	for _, a := range list {
		found[a.Name] = a
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, want := range l.acked {
		if ok, err := filepath.Match(pattern, name); err != nil || !ok {
			continue
		}
		if got, ok := found[name]; !ok || got.Hash != want.Hash || got.Counter != want.Counter || !got.Local {
			count++
			n.f.t.Errorf("acknowledged: %+v\nnow listed: %+v", want, got)
		}
	}
	return count
}

// bytesOf checks that the node hands out what was published under these names.
func (l *ledger) bytesOf(n *node, names ...string) {
	n.f.t.Helper()
	for _, name := range names {
		var b bytes.Buffer
		if err := n.door().Get(n.f.t.Context(), name, &b, nil); err != nil {
			n.f.t.Errorf("get %s: %v", name, err)
			continue
		}
		r := tar.NewReader(&b)
		if _, err := r.Next(); err != nil {
			n.f.t.Errorf("get %s: %v", name, err)
			continue
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, contentOf(name)) {
			n.f.t.Errorf("get %s: %d bytes that are not what was published (%v)", name, len(got), err)
		}
	}
}

// names are all those acknowledged that begin with a prefix, in order.
func (l *ledger) names(prefix string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name := range l.acked {
		if strings.HasPrefix(name, prefix) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// checkDatabase looks through every page of the node's database, as bbolt check does; the node must not run.
func (n *node) checkDatabase() {
	n.f.t.Helper()
	if aside, err := filepath.Glob(filepath.Join(n.dir, "state.db.broken-*")); err != nil || len(aside) > 0 {
		n.f.t.Fatalf("a database was set aside: %v %v", aside, err)
	}
	db, err := bbolt.Open(filepath.Join(n.dir, "state.db"), 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: true, Timeout: testTime})
	if err != nil {
		n.f.t.Fatal(err)
	}
	err = db.View(func(tx *bbolt.Tx) error {
		var errs []error
		for err := range tx.Check() {
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		n.f.t.Fatalf("state.db: %v", err)
	}
}

// crashOften lets a node be crashed again and again while people publish at it, and checks after each crash that its
// database is sound, that it serves, keeps its promises, and has all it ever acknowledged. crash ends n's process and
// leaves its folder as after the crash.
func crashOften(t *testing.T, n *node, random *rand.Rand, crash func()) {
	t.Helper()
	rounds := *crashes
	switch {
	case rounds > 0:
	case thorough():
		rounds = defaultCrashes
	default:
		rounds = shortCrashes
	}
	l := &ledger{acked: map[string]control.Artifact{}, tell: make(chan struct{}, 2*mostAcked)}
	began := time.Now()
	answers, whole := make([]time.Duration, 0, rounds), make([]time.Duration, 0, rounds)
	for round := range rounds {
		l.crashOnce(t, n, round, random, crash)
		n.checkDatabase()
		start := time.Now()
		n.start()
		answers = append(answers, time.Since(start))
		prefix := fmt.Sprintf("r%d", round)
		l.lost(n, prefix+"-*")
		if names := l.names(prefix + "-"); len(names) > 0 {
			l.bytesOf(n, names[len(names)-1])
		}
		holds(t, n.work("kept.txt"), "kept\n")
		whole = append(whole, time.Since(start))
		if t.Failed() {
			t.Fatalf("crash %d of %d", round+1, rounds)
		}
	}
	took := time.Since(began)
	slices.Sort(answers)
	slices.Sort(whole)
	t.Logf("%d crashes in %v, %d artifacts acknowledged, %d lost; from start to answering p50 %v, worst %v; to all there and kept p50 %v, worst %v (aim: 2s)",
		rounds, round(took), len(l.acked), l.lost(n, "*"), round(answers[rounds/2]), round(answers[rounds-1]), round(whole[rounds/2]), round(whole[rounds-1]))
	l.bytesOf(n, l.names("")...)
	l.heardBy(n.f.join("late"), n)
}

// crashOnce has several people publish, and crashes the node some time after it acknowledged a few.
func (l *ledger) crashOnce(t *testing.T, n *node, round int, random *rand.Rand, crash func()) {
	t.Helper()
	door := n.door()
	var people sync.WaitGroup
	for who := range publishers {
		people.Go(func() { l.publish(t, door, fmt.Sprintf("r%d-%c", round, 'a'+who)) })
	}
	timeout := time.NewTimer(testTime)
	defer timeout.Stop()
	for range random.IntN(mostAcked + 1) {
		select {
		case <-l.tell:
		case <-timeout.C:
			t.Errorf("nothing was acknowledged for %v", testTime)
		}
	}
	time.Sleep(time.Duration(random.Int64N(int64(mostLater)))) // the crash comes at any moment
	crash()
	people.Wait()
	for len(l.tell) > 0 {
		<-l.tell
	}
}

// heardBy checks that a node which joins after all crashes hears the same of everything, finds no log forked, and is
// served.
func (l *ledger) heardBy(late, n *node) {
	t := n.f.t
	t.Helper()
	eventually(t, "a node that joins lists the same", func() (bool, string) {
		a, b := offers(n), offers(late)
		return slices.Equal(a, b), fmt.Sprintf("%d of %d", len(b), len(a))
	})
	names := l.names("")
	random := rand.New(rand.NewPCG(1, uint64(len(names))))
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	l.bytesOf(late, names[:min(len(names), sampled)]...)
	for _, m := range []*node{n, late} {
		if said := m.ctl("doctor"); strings.Contains(said, "fork") {
			t.Errorf("the doctor of %s says\n%s", m.name, said)
		}
	}
}

// meshd is killed while it works, again and again: nothing that it acknowledged is lost.
func TestNothingAcknowledgedIsLostByKills(t *testing.T) {
	if thorough() {
		t.Parallel()
	}
	f := newFleet(t)
	host := f.found("host", blobScore)
	crashOften(t, host, rand.New(rand.NewPCG(4, 9)), host.kill)
}

// The power of a node's disk is cut while it works, again and again: what was not synced is gone, what was acknowledged
// is not.
func TestNothingAcknowledgedIsLostByPowerCuts(t *testing.T) {
	if !thorough() {
		t.Skip("skip: needs MESHD_TEST_ALL=1")
	}
	t.Parallel()
	f := newFleet(t)
	dir := filepath.Join(f.dir, "host")
	d := attachDisk(t, dir)
	host := f.found("host", blobScore)
	random := rand.New(rand.NewPCG(4, 10))
	cuts, forgot := 0, 0
	crashOften(t, host, random, func() {
		witness := filepath.Join(dir, "witness")
		if err := os.WriteFile(witness, []byte("not synced"), 0o600); err != nil {
			t.Fatal(err)
		}
		d.cutPower()
		time.Sleep(time.Duration(random.Int64N(int64(mostDying))))
		host.kill()
		d.remount()
		cuts++
		if b, err := os.ReadFile(witness); errors.Is(err, os.ErrNotExist) || err == nil && len(b) == 0 {
			forgot++
		}
		if err := os.Remove(witness); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	})
	t.Logf("of %d files that were written just before the power was cut, and not synced, %d were lost", cuts, forgot)
	if forgot < cuts/2 {
		t.Errorf("only %d of %d power cuts lost what was not synced: this shows little", forgot, cuts)
	}
}
