package ring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"meshd/mesh/id"
	"meshd/mesh/link"
)

func TestFiveNodesSeeACrashAndAReturn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		nodes := w.ring(5, w.start)
		t.Logf("joined in %v", await(t, wholeLimit, nodes, nil))

		gone := nodes[4]
		w.net.Crash(addr(gone.n))
		rest := without(nodes, gone)
		t.Logf("crash seen in %v", await(t, 15*time.Second, rest, map[id.Node]Status{gone.self: Failed}))
		gone.stop()

		back := w.start(5)
		for _, n := range rest {
			back.link.Learn(n.cert, []string{n.link.Addr()})
		}
		_, err := back.Join(t.Context(), []id.Node{rest[1].self})
		must(t, err)
		nodes = append(rest, back)
		t.Logf("return seen in %v", await(t, wholeLimit, nodes, nil))

		back.stop()
		t.Logf("farewell seen in %v", await(t, 5*time.Second, rest, map[id.Node]Status{gone.self: Left}))
		for _, m := range rest[0].Members() {
			if m.Since.IsZero() {
				t.Errorf("%s has been %s since never", m.ID.Short(), m.Status)
			}
		}
	})
}

func TestTwoNodesOnLoopback(t *testing.T) {
	w := newWorld(t)
	nodes := w.ring(2, func(n int) *node { return w.startOn(n, link.Real, "127.0.0.1:0") })
	await(t, 30*time.Second, nodes, nil)
	must(t, nodes[0].Hint([]byte("over UDP")))
	select {
	case got := <-nodes[1].hints:
		if got != "over UDP" {
			t.Errorf("hint %q", got)
		}
	case <-time.After(30 * time.Second):
		t.Error("no hint in 30 s")
	}
	select {
	case <-nodes[0].acked:
	case <-time.After(30 * time.Second):
		t.Error("no ack in 30 s")
	}
	start := time.Now()
	nodes[1].stop()
	t.Logf("left in %v", time.Since(start))
	await(t, 30*time.Second, nodes[:1], map[id.Node]Status{nodes[1].self: Left})
}

func TestLeavingTakesLessThanASecond(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		nodes := w.ring(3, w.start)
		await(t, wholeLimit, nodes, nil)
		start := time.Now()
		nodes[0].stop()
		if d := time.Since(start); d >= time.Second {
			t.Errorf("leaving took %v", d)
		}
		w.net.Cut(addr(2), addr(3))
		start = time.Now()
		nodes[1].stop()
		if d := time.Since(start); d >= time.Second {
			t.Errorf("leaving without a peer took %v", d)
		}
		if _, err := nodes[1].Join(t.Context(), nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("join after the end: %v", err)
		}
		if err := nodes[1].Hint(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("hint after the end: %v", err)
		}
	})
}

func TestHintsReachAll(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		nodes := w.ring(5, w.start)
		await(t, wholeLimit, nodes, nil)
		time.Sleep(10 * time.Second) // virtual; every pair has met by then
		// Each of five sends a hint four times, to random others: one in 200 is not heard by one of them.
		deaf := nodes
		for i := range 3 {
			longest := strings.Repeat(fmt.Sprint(i), MaxHint)
			must(t, nodes[0].Hint([]byte(longest)))
			start := time.Now()
			deaf = slices.DeleteFunc(slices.Clone(nodes), func(n *node) bool {
				for {
					select {
					case got := <-n.hints:
						if got == longest {
							return true
						}
					case <-time.After(5 * time.Second):
						return false
					}
				}
			})
			if len(deaf) == 0 {
				t.Logf("hint %d was heard by all in %v", i+1, time.Since(start))
				break
			}
			t.Logf("hint %d was not heard by %d of %d nodes", i+1, len(deaf), len(nodes))
		}
		if len(deaf) > 0 {
			t.Error("of three hints none was heard by all")
		}
		if err := nodes[0].Hint(make([]byte, MaxHint+1)); err == nil {
			t.Error("a hint that is too long went out")
		}
		// Far more than serf's channel holds: the ring goes on.
		for range 3000 {
			must(t, nodes[0].Hint([]byte("flood")))
			<-nodes[0].hints
		}
		if len(nodes[0].Members()) != 5 {
			t.Error("members are gone after a flood")
		}
		for _, n := range nodes {
			for len(n.hints) > 0 {
				<-n.hints
			}
		}
	})
}

func TestAcksCarryTheRoot(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		nodes := w.ring(3, w.start)
		await(t, wholeLimit, nodes, nil)
		for _, n := range nodes {
			n.mu.Lock()
			n.root = [8]byte{7: byte(n.n)}
			n.mu.Unlock()
		}
		time.Sleep(20 * time.Second) // virtual
		for _, a := range nodes {
			for _, m := range a.Members() {
				for _, b := range nodes {
					if m.ID != b.self {
						continue
					}
					if m.Root != [8]byte{7: byte(b.n)} {
						t.Errorf("node %d knows root %x of node %d", a.n, m.Root, b.n)
					}
					if a != b && (m.RTT < time.Millisecond || m.RTT > 10*time.Millisecond) {
						t.Errorf("node %d measured %v to node %d", a.n, m.RTT, b.n)
					}
				}
			}
			a.mu.Lock()
			if len(a.roots) != 2 {
				t.Errorf("node %d was told %d roots, want 2", a.n, len(a.roots))
			}
			a.mu.Unlock()
		}
	})
}

func TestUncertifiedNodeIsLetInOnceItIsCertified(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, b, c := w.start(1), w.start(2), w.start(3)
		for _, x := range []*node{a, b, c} {
			for _, y := range []*node{a, b, c} {
				if x != y {
					x.link.Learn(y.cert, []string{y.link.Addr()})
				}
			}
		}
		a.unknown[c.self] = true
		_, err := b.Join(t.Context(), []id.Node{a.self})
		must(t, err)
		_, err = c.Join(t.Context(), []id.Node{b.self})
		must(t, err)
		time.Sleep(5 * time.Second) // virtual
		for _, m := range a.Members() {
			if m.ID == c.self {
				t.Errorf("a node without a certificate is a member, %s", m.Status)
			}
		}
		a.mu.Lock()
		delete(a.unknown, c.self)
		a.mu.Unlock()
		await(t, 3*time.Second, []*node{a, b, c}, nil)
	})
}

func TestDelegateRefusesForeignNamesAndAddresses(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		n := w.start(1)
		other := id.Node{1, 2, 3}
		tests := []struct {
			name string
			peer memberlist.Node
			ok   bool
		}{
			{"certified", memberlist.Node{Name: name(other), Addr: logicalIP(other), Port: logicalPort}, true},
			{"self at any address", memberlist.Node{Name: name(n.self), Addr: logicalIP(other), Port: 1}, true},
			{"no id", memberlist.Node{Name: "node-7", Addr: logicalIP(other), Port: logicalPort}, false},
			{"another's address", memberlist.Node{Name: name(other), Addr: logicalIP(n.self), Port: logicalPort}, false},
			{"another port", memberlist.Node{Name: name(other), Addr: logicalIP(other), Port: 1}, false},
		}
		for _, tt := range tests {
			if err := (*aliveDelegate)(n.Ring).NotifyAlive(&tt.peer); (err == nil) != tt.ok {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		n.unknown[other] = true
		if err := (*aliveDelegate)(n.Ring).NotifyAlive(&tests[0].peer); err == nil {
			t.Error("a node without a certificate was let in")
		}
		n.mu.Lock()
		delete(n.unknown, other)
		n.mu.Unlock()
	})
}

func TestSplitHealsByJoin(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		nodes := w.ring(4, w.start)
		await(t, wholeLimit, nodes, nil)
		each := func(do func(a, b string)) {
			for _, a := range nodes[:2] {
				for _, b := range nodes[2:] {
					do(addr(a.n), addr(b.n))
				}
			}
		}
		each(w.net.Cut)
		await(t, 30*time.Second, nodes[:2], map[id.Node]Status{nodes[2].self: Failed, nodes[3].self: Failed})
		time.Sleep(time.Minute) // virtual
		each(w.net.Heal)
		start := time.Now()
		joined, err := nodes[0].Join(t.Context(), []id.Node{nodes[2].self, nodes[3].self, {9}})
		if joined != 2 || err != nil {
			t.Errorf("joined %d, %v; want both that answer", joined, err)
		}
		await(t, wholeLimit, nodes, nil)
		t.Logf("whole again in %v", time.Since(start))
	})
}

func TestJoinEndsWhereNobodyAnswers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a := w.start(1)
		_, cert := w.identity(2)
		a.link.Learn(cert, []string{addr(2)})
		w.net.Cut(addr(1), addr(2))
		start := time.Now()
		n, err := a.Join(t.Context(), []id.Node{cert.ID})
		if d := time.Since(start); n != 0 || !errors.Is(err, link.ErrUnreachable) || d > warmLimit {
			t.Errorf("joined %d, %v after %v", n, err, d)
		}
		_, err = a.Join(t.Context(), []id.Node{a.self})
		if err == nil {
			t.Error("a node joined itself")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.Join(ctx, []id.Node{cert.ID}); !errors.Is(err, context.Canceled) {
			t.Errorf("join with an ended context: %v", err)
		}
		if m := a.Members(); len(m) != 1 || m[0].ID != a.self || m[0].Status != Alive {
			t.Errorf("alone in the ring: %+v", m)
		}
	})
}

func TestNameHasOneSpelling(t *testing.T) {
	n := id.Node{0xff, 0xfe, 15: 0xfd}
	got, err := parseName(name(n))
	if err != nil || got != n {
		t.Errorf("%s reads as %s, %v", name(n), got, err)
	}
	for _, bad := range []string{"", "node-7", n.String(), name(n) + "A", name(n)[:21] + "R", name(n)[:20] + "\n\n", name(n)[:21] + "_"} {
		if got, err := parseName(bad); err == nil {
			t.Errorf("%q reads as %s", bad, got)
		}
	}
}

func TestLogLines(t *testing.T) {
	tests := []struct {
		line, text string
		level      slog.Level
	}{
		{"[ERR] memberlist: bad\n", "memberlist: bad", slog.LevelWarn},
		{"[ERROR] serf: bad", "serf: bad", slog.LevelWarn},
		{"[WARN] serf: hm", "serf: hm", slog.LevelInfo},
		{
			"[WARN] memberlist: ignoring alive message for 'x': no certificate of it is known yet\n",
			"memberlist: ignoring alive message for 'x': no certificate of it is known yet", slog.LevelDebug,
		},
		{"[INFO] serf: ok", "serf: ok", slog.LevelDebug},
		{"[no end", "[no end", slog.LevelDebug},
		{"", "", slog.LevelDebug},
	}
	for _, tt := range tests {
		if level, text := parseLine([]byte(tt.line)); level != tt.level || text != tt.text {
			t.Errorf("parseLine(%q) = %v, %q", tt.line, level, text)
		}
	}
	w := &logWriter{}
	now := time.Now()
	for range logLines {
		if _, ok := w.allow(now); !ok {
			t.Fatal("a line within the limit was dropped")
		}
	}
	if _, ok := w.allow(now); ok {
		t.Error("a line over the limit was let through")
	}
	if skipped, ok := w.allow(now.Add(logEvery)); !ok || skipped != 1 {
		t.Errorf("a minute later: %v with %d skipped", ok, skipped)
	}
}
