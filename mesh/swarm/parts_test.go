package swarm

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// What becomes due while an answer is sent goes out between two of its parts.
func TestFramesDoNotWaitBehindAnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		n := w.node(1)
		ref := n.store.put(t, 1, 4, 200<<10)
		m, err := load(n.store, ref.Root)
		if err != nil {
			t.Fatal(err)
		}
		var ids []byte
		for _, c := range m.chunks[:4] {
			ids = append(ids, c.ID[:]...)
		}
		c := w.speak(n, id.Node{7})
		defer c.Close()
		for req := uint32(1); req <= 2; req++ {
			if _, err := c.Write(mustFrame(t, kindWant, &want{Req: req, Root: ref.Root, IDs: ids})); err != nil {
				t.Fatal(err)
			}
		}
		var d data
		if kind, body, err := wire.ReadFrame(c, maxFrame); err != nil || kind != kindData || decode(body, &d) != nil || d.Req != 1 {
			t.Fatalf("frame of kind %d, %+v, %v; want the first answer", kind, d, err)
		}
		got := readPart(t, c)
		if _, err := c.Write(mustFrame(t, kindCancel, &cancel{Req: 2})); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // it is read, and the next part is being written
		for before := 0; ; before++ {
			kind, body, err := wire.ReadFrame(c, maxFrame)
			if err != nil {
				t.Fatal(err)
			}
			if kind == kindPart {
				got = append(got, partOf(t, c, body)...)
				continue
			}
			if why := refusedAs(t, kind, body); why != refusedGone || before > 1 {
				t.Errorf("the answer to a cancel came %d parts later: %v", before, why)
			}
			break
		}
		for len(got) < int(d.Bytes) {
			got = append(got, readPart(t, c)...)
		}
		for _, c := range m.chunks[:4] {
			if artifact.Sum(got[:c.SizeBytes]) != c.ID {
				t.Fatal("the bytes of the answer are not the chunks")
			}
			got = got[c.SizeBytes:]
		}
	})
}

// A fast stream takes answers in large parts, a slow one in small ones.
func TestPartsFollowThePaceOfTheStream(t *testing.T) {
	for _, tt := range []struct {
		name string
		wait time.Duration // for each write
		size int
		want int
	}{
		{"at once", 0, 256 << 10, mostPart},
		{"a megabyte a second", 16 * time.Millisecond, 256 << 10, leastPart},
		{"what fits into the system's buffer", 0, 48 << 10, leastPart},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				c := &paced{recorded: recorded{in: bytes.NewReader(nil)}, wait: tt.wait}
				x := newSession(w.node(1).swarm, id.Node{7}, c, idleTime)
				if err := x.sendAnswer(mustFrame(t, kindData, &data{Req: 1}), make([]byte, headRoom+tt.size), false); err != nil {
					t.Fatal(err)
				}
				if x.part != tt.want || c.unsent != tt.want {
					t.Errorf("parts of %d bytes, %d unsent; want %d", x.part, c.unsent, tt.want)
				}
			})
		})
	}
}

// A part and its header are written at once, in whole records of TLS but for the last.
func TestPartsFillRecords(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		c := &paced{recorded: recorded{in: bytes.NewReader(nil)}}
		x := newSession(w.node(1).swarm, id.Node{7}, c, idleTime)
		const size = 1 << 20
		for _, first := range []int{leastPart, mostPart} {
			x.part, c.wrote = first, nil
			if err := x.sendAnswer(mustFrame(t, kindData, &data{Req: 1, Bytes: size}), make([]byte, headRoom+size), false); err != nil {
				t.Fatal(err)
			}
			for i, n := range c.wrote {
				if n > first || n < first-partHead && i < len(c.wrote)-1 {
					t.Errorf("write %d of %d has %d bytes, parts have %d", i, len(c.wrote), n, first)
				}
			}
		}
	})
}

// paced is a stream that takes its time for each write.
type paced struct {
	recorded
	wait   time.Duration
	unsent int
	wrote  []int // bytes of each write
}

func (p *paced) Write(b []byte) (int, error) {
	time.Sleep(p.wait)
	p.wrote = append(p.wrote, len(b))
	return len(b), nil
}

func (p *paced) LimitUnsent(bytes int) error {
	p.unsent = bytes
	return nil
}

func TestPartsThatDoNotFitTheirAnswerAreViolations(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after func(t *testing.T, q want) []byte // sent behind the head of an answer of 100 bytes
		want  string
	}{
		{"an answer within an answer", func(t *testing.T, q want) []byte {
			return mustFrame(t, kindData, &data{Req: q.Req, Bytes: 100})
		}, "an answer to request 1 within the one to 1"},
		{"more than it said", func(t *testing.T, _ want) []byte {
			return mustFrame(t, kindPart, &part{Bytes: 101})
		}, "a part of 101 bytes of an answer that lacks 100"},
		{"a refusal while they come", func(t *testing.T, q want) []byte {
			return append(mustFrame(t, kindRefuse, &refuse{Req: q.Req, Why: 1}), append(mustFrame(t, kindPart, &part{Bytes: 100}), make([]byte, 100)...)...)
		}, "answer to request 1, which was not made"},
		{"nothing", func(t *testing.T, _ want) []byte { return mustFrame(t, kindPart, &part{}) }, "a part of 0 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				me := w.node(9)
				ref := w.node(1).store.put(t, 1, 1, 1000)
				me.swarm.cfg.Open = func(context.Context, id.Node) (net.Conn, error) {
					near, far := net.Pipe()
					w.wg.Go(func() {
						defer far.Close()
						if _, body, err := wire.ReadFrame(far, maxFrame); err == nil {
							var q want
							if err := decode(body, &q); err != nil {
								t.Error(err)
							}
							_, _ = far.Write(append(mustFrame(t, kindData, &data{Req: q.Req, Bytes: 100}), tt.after(t, q)...))
						}
					})
					return near, nil
				}
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				err := me.swarm.Pull(ctx, ref, func() []id.Node { return []id.Node{{5}} }, nil)
				if err == nil || !strings.Contains(err.Error(), tt.want) || me.swarm.Stats().Violations != 1 {
					t.Errorf("pull = %v, %d violations", err, me.swarm.Stats().Violations)
				}
			})
		})
	}
}

// What nobody waits for any more is dropped as it comes, and no peer may have more of it dropped than an answer is long.
func TestTheAnswerToACancelledRequestIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name  string
		bytes uint32
		want  string
	}{
		{"as long as an answer", maxExtent, "EOF"},
		{"longer", maxExtent + 1, "bytes of an answer: 1048577, limit 1048576"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := inParts(t, &data{Req: 1, Bytes: tt.bytes}, make([]byte, tt.bytes))
			s := New(Config{Chunks: newMemory()})
			x := newSession(s, id.Node{1}, &recorded{in: bytes.NewReader(in)}, idleTime)
			root := artifact.Sum([]byte("root"))
			req, err := x.ask(&request{root: root, chunks: []artifact.Chunk{{ID: root}}, done: func(answer) {
				t.Error("a cancelled request was answered")
			}})
			if err != nil {
				t.Fatal(err)
			}
			x.cancel(req)
			if err := x.read(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("read = %v, want %q", err, tt.want)
			}
			if got := s.Stats().WastedBytes; tt.bytes <= maxExtent && got != int64(tt.bytes) {
				t.Errorf("%d bytes counted as wasted, want %d", got, tt.bytes)
			}
		})
	}
}
