package swarm

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// speak opens a stream to n as a peer that writes its own frames.
func (w *world) speak(n *node, as id.Node) net.Conn {
	near, far := net.Pipe()
	w.wg.Go(func() { n.swarm.ServeConn(w.ctx, as, far) })
	return near
}

func mustFrame(t testing.TB, kind byte, v any) []byte {
	t.Helper()
	b, err := frame(kind, v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// inParts are the frames of an answer, whose bytes come in two parts where there are two.
func inParts(t testing.TB, d *data, b []byte) []byte {
	t.Helper()
	out := mustFrame(t, kindData, d)
	for _, p := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
		if len(p) > 0 {
			out = append(append(out, mustFrame(t, kindPart, &part{Bytes: uint32(len(p))})...), p...)
		}
	}
	return out
}

// exchange writes one frame and reads one; the bytes of an answer are returned too.
func exchange(t *testing.T, c net.Conn, frame []byte) (kind byte, body, raw []byte) {
	t.Helper()
	if _, err := c.Write(frame); err != nil {
		t.Fatal(err)
	}
	kind, body, err := wire.ReadFrame(c, maxFrame)
	if err != nil {
		t.Fatal(err)
	}
	if kind == kindData {
		var d data
		if err := decode(body, &d); err != nil {
			t.Fatal(err)
		}
		for len(raw) < int(d.Bytes) {
			raw = append(raw, readPart(t, c)...)
		}
	}
	return kind, body, raw
}

// readPart reads one part of an answer.
func readPart(t *testing.T, c net.Conn) []byte {
	t.Helper()
	kind, body, err := wire.ReadFrame(c, maxFrame)
	if err != nil || kind != kindPart {
		t.Fatalf("frame of kind %d, %v; want a part", kind, err)
	}
	return partOf(t, c, body)
}

// partOf reads the bytes behind the head of a part.
func partOf(t *testing.T, c net.Conn, body []byte) []byte {
	t.Helper()
	var p part
	if err := decode(body, &p); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, p.Bytes)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func refusedAs(t *testing.T, kind byte, body []byte) refusal {
	t.Helper()
	var r refuse
	if kind != kindRefuse {
		t.Fatalf("answer of kind %d, want a refusal", kind)
	}
	if err := decode(body, &r); err != nil {
		t.Fatal(err)
	}
	return refusal(r.Why)
}

// A node that fetches an artifact knows what it is made of before any of it is durable. Who asks it then has the right
// that it will have, and is told at most that there is nothing yet: a refusal would keep it away for seconds.
func TestWhoAsksForWhatIsOnItsWayIsNotRefused(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		n, elsewhere := w.node(1), newMemory()
		ref := elsewhere.put(t, 1, 1, 100)
		var asked []id.Node
		n.allow = func(_ id.Node, _ artifact.Digest, maker id.Node) bool {
			asked = append(asked, maker)
			return maker == madeBy
		}
		c := w.speak(n, id.Node{7})
		defer c.Close()
		ask := func() (byte, []byte, []byte) {
			return exchange(t, c, mustFrame(t, kindWant, &want{Req: 1, Root: ref.Root, IDs: ref.Root[:]}))
		}
		kind, body, _ := ask()
		if got := refusedAs(t, kind, body); got != refusedAbsent || len(asked) > 0 {
			t.Errorf("before anything is known of it: %v, rights asked for of %v", got, asked)
		}
		m, err := load(elsewhere, ref.Root)
		if err != nil {
			t.Fatal(err)
		}
		n.swarm.manifests.put(m)
		if kind, _, raw := ask(); kind != kindData || len(raw) > 0 {
			t.Errorf("while it is fetched: kind %d with %d bytes, want an answer that lacks them", kind, len(raw))
		}
		n.store.copyOf(elsewhere)
		if kind, _, raw := ask(); kind != kindData || artifact.Sum(raw) != ref.Root {
			t.Errorf("once it is here: kind %d with %d bytes", kind, len(raw))
		}
	})
}

func TestOnlyChunksOfAnArtifactThePeerMayHaveAreServed(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		n := w.node(1)
		open, secret := n.store.put(t, 1, 1, 100), n.store.put(t, 2, 1, 100)
		own, err := load(n.store, open.Root)
		if err != nil {
			t.Fatal(err)
		}
		other, err := load(n.store, secret.Root)
		if err != nil {
			t.Fatal(err)
		}
		n.allow = func(_ id.Node, root artifact.Digest, _ id.Node) bool { return root != secret.Root }
		c := w.speak(n, id.Node{7})
		defer c.Close()
		get := func(root, chunk artifact.Digest) (byte, []byte, []byte) {
			return exchange(t, c, mustFrame(t, kindWant, &want{Req: 1, Root: root, IDs: chunk[:]}))
		}

		if _, _, raw := get(open.Root, own.chunks[0].ID); artifact.Sum(raw) != own.chunks[0].ID {
			t.Error("a chunk that may be had was not served")
		}
		kind, body, _ := get(secret.Root, other.chunks[0].ID)
		if got := refusedAs(t, kind, body); got != refusedAccess {
			t.Errorf("a secret artifact: %v", got)
		}
		kind, body, _ = get(open.Root, other.chunks[0].ID)
		if got := refusedAs(t, kind, body); got != refusedAbsent {
			t.Errorf("a secret chunk in the name of an open artifact: %v", got)
		}
		kind, body, _ = get(own.chunks[0].ID, own.chunks[0].ID)
		if got := refusedAs(t, kind, body); got != refusedAbsent {
			t.Errorf("a chunk that is no root block: %v", got)
		}
		kind, body, _ = exchange(t, c, mustFrame(t, kindShare, &share{Req: 2, Root: secret.Root}))
		if got := refusedAs(t, kind, body); got != refusedAccess {
			t.Errorf("a share of a secret artifact: %v", got)
		}
		kind, body, _ = exchange(t, c, mustFrame(t, kindTell, &tell{Root: secret.Root, Answer: true}))
		var b bye
		if kind != kindBye || decode(body, &b) != nil || refusal(b.Why) != refusedAccess {
			t.Errorf("what it has of a secret artifact: kind %d, %+v", kind, b)
		}
		if s := n.swarm.Stats(); s.ServedBytes != int64(own.chunks[0].SizeBytes) || s.Foreign != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestRefusedPullSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		a, me := w.node(1), w.node(9)
		ref := a.store.put(t, 1, 1, 1000)
		a.allow = func(id.Node, artifact.Digest, id.Node) bool { return false }
		err := me.pull(t, ref, time.Minute, a)
		if err == nil || !strings.Contains(err.Error(), "01000000: it does not let this node have the artifact") {
			t.Errorf("pull = %v", err)
		}
	})
}

func TestWhatANodeHasIsToldAsAMap(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		n := w.node(1)
		ref := n.store.put(t, 1, 1, 2<<20)
		m, err := load(n.store, ref.Root)
		if err != nil {
			t.Fatal(err)
		}
		c := w.speak(n, id.Node{7})
		defer c.Close()
		question := mustFrame(t, kindTell, &tell{Root: ref.Root, Answer: true})
		var h tell
		if kind, body, _ := exchange(t, c, question); kind != kindTell || decode(body, &h) != nil || !h.All {
			t.Errorf("a whole artifact: kind %d, %+v", kind, h)
		}
		delete(n.store.chunks, m.chunks[3].ID)
		kind, body, _ := exchange(t, c, question)
		if kind != kindTell || decode(body, &h) != nil || h.All {
			t.Fatalf("all but one: kind %d, %+v", kind, h)
		}
		has := parseBits(h.Bits, len(m.chunks))
		if has == nil || has.count() != len(m.chunks)-1 || has.has(3) {
			t.Errorf("all but the fourth chunk: %v", has)
		}
	})
}

func TestPeerThatBreaksTheProtocolIsCutOffAndBanned(t *testing.T) {
	long := binary.BigEndian.AppendUint32(nil, 1<<30)
	tests := []struct {
		name  string
		frame func(t *testing.T) []byte
		want  string
	}{
		{"frame without end", func(*testing.T) []byte { return append(long, kindTell) }, "bytes of a frame: 1073741824, limit"},
		{"unknown kind", func(*testing.T) []byte { return []byte{0, 0, 0, 0, 99} }, "kind 99"},
		{"not a message", func(*testing.T) []byte { return []byte{0, 0, 0, 2, kindWant, version, 0xc1} }, "malformed"},
		{"bytes nobody asked for", func(t *testing.T) []byte {
			return mustFrame(t, kindData, &data{Req: 5, Bytes: 100})
		}, "request 5, which was not made"},
		{"a part of nothing", func(t *testing.T) []byte {
			return mustFrame(t, kindPart, &part{Bytes: 1})
		}, "a part of no answer"},
		{"refusal of nothing", func(t *testing.T) []byte {
			return mustFrame(t, kindRefuse, &refuse{Req: 6, Why: 1})
		}, "request 6, which was not made"},
		{"too many chunks", func(t *testing.T) []byte {
			return mustFrame(t, kindWant, &want{Req: 1, IDs: make([]byte, 33*(maxWant+1))})
		}, "chunks of one want: 513, limit 512"},
		{"half a digest", func(t *testing.T) []byte {
			return mustFrame(t, kindWant, &want{Req: 1, IDs: make([]byte, 40)})
		}, "not a whole number"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				n := w.node(1)
				c := w.speak(n, id.Node{7})
				defer c.Close()
				if _, err := c.Write(tt.frame(t)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				s := n.swarm.Stats()
				if s.Violations != 1 || len(s.Banned) != 1 || s.Sessions != 0 || !strings.Contains(s.Banned[0].Why, tt.want) {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// A holder that answers wants with what the test says.
func TestAnswersOfTheWrongLengthAreCutOff(t *testing.T) {
	tests := []struct {
		name   string
		answer func(w want) data
		want   string
	}{
		{"endless root block", func(w want) data { return data{Req: w.Req, Bytes: 1 << 31} }, "bytes of a root block"},
		{"empty root block", func(w want) data { return data{Req: w.Req} }, "bytes of a root block"},
		{"marks that do not fit", func(w want) data { return data{Req: w.Req, Absent: []byte{1, 2, 3}} }, "marks for 1 chunks"},
		{"absent and yet sent", func(w want) data { return data{Req: w.Req, Absent: []byte{1}, Bytes: 9} }, "answer of 9 bytes, want 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				me := w.node(9)
				ref := w.node(1).store.put(t, 1, 1, 1000)
				liar := id.Node{5}
				me.swarm.cfg.Open = func(context.Context, id.Node) (net.Conn, error) {
					near, far := net.Pipe()
					w.wg.Go(func() {
						defer far.Close()
						if _, body, err := wire.ReadFrame(far, maxFrame); err == nil {
							var q want
							if err := decode(body, &q); err != nil {
								t.Error(err)
							}
							d := tt.answer(q)
							_, _ = far.Write(append(inParts(t, &d, make([]byte, min(d.Bytes, 100))), make([]byte, 100)...))
						}
					})
					return near, nil
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				err := me.swarm.Pull(ctx, ref, func() []id.Node { return []id.Node{liar} }, nil)
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("pull = %v", err)
				}
				s := me.swarm.Stats()
				if len(s.Banned) != 1 || s.Banned[0].Node != liar || s.Violations != 1 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

func TestFloodOfRequestsIsRefusedNotKept(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		n := w.node(1)
		ref := n.store.put(t, 1, 1, 1<<20)
		hold := make(chan struct{})
		n.allow = func(id.Node, artifact.Digest, id.Node) bool { <-hold; return true }
		c := w.speak(n, id.Node{7})
		defer c.Close()
		const asked = maxJobs + 100
		foreign := artifact.Sum([]byte("no part of it"))
		answers := make(chan int)
		go func() {
			busy := 0
			for range asked {
				kind, body, err := wire.ReadFrame(c, maxFrame)
				if err != nil {
					t.Error(err)
					break
				}
				var r refuse
				if kind == kindRefuse && decode(body, &r) == nil && refusal(r.Why) == refusedBusy {
					busy++
				}
			}
			answers <- busy
		}()
		for i := range asked {
			if _, err := c.Write(mustFrame(t, kindWant, &want{Req: uint32(i), Root: ref.Root, IDs: foreign[:]})); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // the first is in work
		}
		close(hold)
		if busy := <-answers; busy != asked-maxJobs-1 {
			t.Errorf("%d of %d requests refused, want all beyond %d and the one in work", busy, asked, maxJobs)
		}
	})
}

// FuzzStream feeds bytes of a peer to a session that has asked it for something: no panic, no hang, and
// no more than 1 MiB of memory for 64 KiB of input.
func FuzzStream(f *testing.F) {
	root := artifact.Sum([]byte("root"))
	for _, b := range [][]byte{
		mustFrame(f, kindWant, &want{Req: 1, Root: root, IDs: root[:]}),
		inParts(f, &data{Req: 1, Bytes: 5}, []byte("hello")),
		mustFrame(f, kindPart, &part{Bytes: 7}),
		mustFrame(f, kindData, &data{Req: 2, Bytes: 1000, Absent: []byte{1}}),
		mustFrame(f, kindRefuse, &refuse{Req: 1, Why: 2}),
		mustFrame(f, kindCancel, &cancel{Req: 1}),
		mustFrame(f, kindTell, &tell{Root: root, Answer: true, Bits: []byte{7}, Others: root[:16]}),
		mustFrame(f, kindMore, &more{Root: root, Runs: []byte{0, 7}}),
		mustFrame(f, kindShare, &share{Req: 3, Root: root, Parts: 2}),
		mustFrame(f, kindBye, &bye{Root: root, Why: 1}),
		inParts(f, &data{Req: 3, Bytes: 5, Runs: []byte{0, 2}}, []byte("hello")),
		{0xff, 0xff, 0xff, 0xff, 1},
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 64<<10 {
			t.Skip("longer than the property speaks of")
		}
		s := New(Config{
			Chunks: newMemory(), Allow: func(id.Node, artifact.Digest, id.Node) bool { return true },
			Open: func(context.Context, id.Node) (net.Conn, error) { return nil, errDown },
		})
		c := &recorded{in: bytes.NewReader(in)}
		x := newSession(s, id.Node{1}, c, idleTime)
		content := []artifact.Chunk{{ID: root, SizeBytes: 4}, {ID: root, SizeBytes: 1}}
		choose := func(list []byte) ([]artifact.Chunk, error) {
			chosen, err := parseRuns(list, len(content))
			if err != nil {
				return nil, err
			}
			var out []artifact.Chunk
			for _, c := range chosen.indices() {
				out = append(out, content[c])
			}
			return out, nil
		}
		for _, r := range []*request{
			{root: root, chunks: []artifact.Chunk{{ID: root}}},
			{root: root, chunks: []artifact.Chunk{{ID: root, SizeBytes: 1000}, {ID: root, SizeBytes: 1}}},
			{root: root, share: choose},
		} {
			r.done = func(a answer) { a.body.release() }
			if _, err := x.ask(r); err != nil {
				t.Fatal(err)
			}
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := x.read(); err == nil {
			t.Error("the stream ended without a reason")
		}
		x.end(errDown)
		if err := x.write(); err != nil {
			t.Log(err)
		}
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20+24*uint64(len(in)) {
			t.Errorf("%d bytes allocated for %d", got, len(in))
		}
	})
}

// recorded is a stream whose bytes are there already.
type recorded struct {
	net.Conn
	in *bytes.Reader
}

func (c *recorded) Read(b []byte) (int, error)       { return c.in.Read(b) }
func (c *recorded) Write(b []byte) (int, error)      { return len(b), nil }
func (c *recorded) Close() error                     { return nil }
func (c *recorded) SetReadDeadline(time.Time) error  { return nil }
func (c *recorded) SetWriteDeadline(time.Time) error { return nil }
func (c *recorded) RemoteAddr() net.Addr             { return nil }

func TestRandomBytesAreAnErrorAndNothingElse(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	for range 200 {
		garbage := make([]byte, 1+random.IntN(5000))
		for i := range garbage {
			garbage[i] = byte(random.Uint32() >> random.IntN(24))
		}
		s := New(Config{Chunks: newMemory(), Allow: func(id.Node, artifact.Digest, id.Node) bool { return true }})
		s.ServeConn(t.Context(), id.Node{1}, &recorded{in: bytes.NewReader(garbage)})
		if got := s.Stats(); got.Sessions != 0 || got.ServedBytes != 0 {
			t.Errorf("%+v", got)
		}
	}
}
