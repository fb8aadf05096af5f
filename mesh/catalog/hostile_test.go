package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
)

func TestSessionEndsOnBadInput(t *testing.T) {
	frames := func(list ...any) []byte {
		var b strings.Builder
		for i := 0; i < len(list); i += 2 {
			body, ok := list[i+1].([]byte)
			if !ok {
				body = must(wire.Marshal(sessionVersion, list[i+1]))(t)
			}
			if err := wire.WriteFrame(&b, byte(list[i].(int)), body); err != nil {
				t.Fatal(err)
			}
		}
		return []byte(b.String())
	}
	w := newWorld(t, 2)
	big := w.open(t, 0, newShelf())
	fill(t, big, 3)
	forged := *everything(t, big)[1].rec
	forged.Sig[0]++
	oversize := forged
	oversize.Body = make([]byte, 1100)
	var tooMany pageFrame
	for range maxPageRecords + 1 {
		tooMany.Records = append(tooMany.Records, []byte{1})
	}
	cert := everything(t, big)[0].encoded
	var main []incoming // by age
	for _, in := range everything(t, big) {
		if in.log.Scope == ScopeMain {
			main = append(main, in)
		}
	}
	tests := []struct {
		name string
		sent []byte
		want string
	}{
		{"garbage", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "bytes of a frame"},
		{"an unknown frame", frames(99, []byte{1, 0x90}), "kind 99"},
		{"an answer to no question", frames(frameSame, &sameFrame{}), "out of place"},
		{"heads that nobody asked for", frames(frameHeads, &headsFrame{Last: true, Unlike: []byte{1}}), "out of place"},
		{"wants that nobody asked for", frames(frameWant, &wantFrame{}), "out of place"},
		{"buckets that do not add up", frames(frameBuckets, &bucketsFrame{Bits: 3, Hashes: []byte{1}}), "buckets"},
		{"a cut line", frames(frameHeads, &headsFrame{Lines: []byte{1, 2, 3}}), "cut"},
		{"a bare page", frames(framePage, []byte{sessionVersion, 0x92, 0xc2, 0x91, 0xc4}), "message"},
		{"too many records", frames(framePage, &tooMany), "array"},
		{"no record", frames(framePage, &pageFrame{Records: [][]byte{{1, 2, 3}}}), "record"},
		{"an oversize record", frames(framePage, &pageFrame{Records: [][]byte{must(oversize.Encode())(t)}}), "bytes of a record"},
		{"records nobody asked for", frames(framePage, &pageFrame{Asked: true, Records: [][]byte{cert}}), "asked for"},
		{"what was asked for, out of order", frames(frameBuckets, &bucketsFrame{Hashes: make([]byte, hashBytes)},
			framePage, &pageFrame{Asked: true, Records: [][]byte{main[1].encoded, main[0].encoded}}), "comes after"},
		{"a want beyond what was listed", frames(frameBuckets, &bucketsFrame{Hashes: make([]byte, hashBytes)}, frameWant, &wantFrame{Lines: []byte{9, 0}}), "line"},
		{"a claim with a question for all", frames(frameHeads, &headsFrame{Lines: []byte{1, 2, 3, 4, 5, 6, 7, 8}}), "claims"},
		{"graves that are cut", frames(frameGraves, &gravesFrame{make([]byte, graveBytes+1)}), "graves"},
		{"a proof of nothing", frames(frameFork, &forkFrame{cert, cert}), "proof"},
		{"a frame of a megabyte", []byte{0, 0x10, 0, 0, framePage}, "bytes of a frame"},
		{"a forged record", frames(framePage, &pageFrame{Records: [][]byte{cert, must(forged.Encode())(t)}}), "signature"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := w.open(t, 1, newShelf())
				x, y := net.Pipe()
				got := make(chan error, 1)
				go func() { got <- c.Session(t.Context(), x, w.ids[0].ID()) }()
				go func() { _, _ = io.Copy(io.Discard, y) }()
				_, _ = y.Write(tt.sent)
				synctest.Wait()
				_ = y.Close()
				err := <-got
				if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), w.ids[0].ID().Short()) {
					t.Errorf("Session = %v, want one that names the peer and %q", err, tt.want)
				}
				if s := c.Stats(); s.Refused != 1 || s.Records != 0 {
					t.Errorf("counted %+v", s)
				}
			})
		})
	}
}

func TestASlowPeerNeverBlocksAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a, b := w.open(t, 0, newShelf()), w.open(t, 1, newShelf())
		x, y := net.Pipe()
		slow := &gate{Conn: y, open: make(chan struct{})}
		l := joinOver(a, b, x, slow)
		synctest.Wait()          // both sessions are open, and a's first frame is stuck
		fill(t, a, maxPushes+10) // b reads nothing meanwhile
		if a.Stats().Overflows == 0 {
			t.Error("the queue has no end")
		}
		close(slow.open)
		synctest.Wait()
		alike(t, a, b)
		if err := l.end(); err != nil {
			t.Error(err)
		}
	})
}

// gate is a stream from which nothing is read until it opens.
type gate struct {
	net.Conn
	open chan struct{}
}

func (g *gate) Read(b []byte) (int, error) {
	<-g.open
	return g.Conn.Read(b)
}

func TestASilentPeerIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		c := w.open(t, 0, newShelf())
		x, y := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, y) }()
		start := time.Now()
		err := c.Session(t.Context(), x, w.ids[1].ID())
		_ = y.Close()
		if err == nil || time.Since(start) > silenceMax {
			t.Errorf("Session = %v after %s", err, time.Since(start))
		}
	})
}

func TestSessionEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		c := w.open(t, 0, newShelf())
		x, y := net.Pipe() // y is never read: the writer is stuck in Write
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() { got <- c.Session(ctx, x, id.Node{0xff}) }()
		synctest.Wait()
		cancel()
		if err := <-got; err != nil {
			t.Errorf("Session = %v", err)
		}
		_ = y.Close()
	})
}

func TestAFullDiskHarmsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a, disk := w.open(t, 0, newShelf()), newShelf()
		b := w.open(t, 1, disk)
		fill(t, a, 10)
		disk.fault = func() (bool, error) { return false, errDisk }
		l := join(a, b)
		synctest.Wait()
		if err := l.end(); !errors.Is(err, errDisk) || b.Stats().Refused != 0 {
			t.Errorf("sessions ended with %v, %d refused", err, b.Stats().Refused)
		}
		disk.fault = nil
		l = join(a, b)
		synctest.Wait()
		alike(t, a, b)
		if err := l.end(); err != nil {
			t.Error(err)
		}
	})
}

func TestManyAppendAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		a, b := w.open(t, 0, newShelf()), w.open(t, 1, newShelf())
		l := join(a, b)
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for j := range 20 {
					if _, err := a.Append(KindPlaced, fmt.Sprint(i, j), nil, 0); err != nil {
						t.Error(err)
					}
					_ = a.Live(ScopeMain, KindPlaced, "")
					_ = b.Root()
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		alike(t, a, b)
		if n := len(b.Live(ScopeMain, KindPlaced, "")); n != 160 {
			t.Errorf("%d of 160 arrived", n)
		}
		if err := l.end(); err != nil {
			t.Error(err)
		}
	})
}

// script is a stream that says what it was given and takes everything.
type script struct {
	net.Conn
	io.Reader
}

func (s *script) Read(b []byte) (int, error)     { return s.Reader.Read(b) }
func (*script) Write(b []byte) (int, error)      { return len(b), nil }
func (*script) Close() error                     { return nil }
func (*script) SetReadDeadline(time.Time) error  { return nil }
func (*script) SetWriteDeadline(time.Time) error { return nil }

func FuzzSession(f *testing.F) {
	w := newWorld(f, 3)
	full := w.open(f, 0, newShelf())
	fill(f, full, 5)
	for _, peer := range []*Catalog{w.open(f, 2, newShelf()), full} { // what real sessions say is where it begins
		listener := w.open(f, 1, newShelf())
		x, y := net.Pipe()
		var said strings.Builder
		l := joinOver(peer, listener, x, &tap{Conn: y, said: &said})
		<-listener.Checked()
		_ = l.end()
		f.Add([]byte(said.String()))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c := w.open(t, 1, newShelf())
		_ = c.Session(t.Context(), &script{Reader: strings.NewReader(string(b))}, w.ids[2].ID())
		for _, h := range c.set.order {
			for _, e := range h.recs.list() {
				if key, ok := c.Key(e.log.Origin); !ok || c.record(e).Verify(key) != nil {
					t.Errorf("record %d of %s was stored unverified", e.seq, e.log)
				}
			}
		}
	})
}

// tap keeps what is read.
type tap struct {
	net.Conn
	said *strings.Builder
}

func (p *tap) Read(b []byte) (int, error) {
	n, err := p.Conn.Read(b)
	p.said.Write(b[:n])
	return n, err
}

// FuzzLines reads the packed lines of heads, wants and graves: what is taken has one spelling.
func FuzzLines(f *testing.F) {
	f.Add(packHeads([]line{{head: head{claim: 300}}, {head: head{all: true}}, {head: head{grave: true}}}))
	f.Add(packWants([]want{{0, 7}, {5, 0}}, -1))
	f.Add(grave{}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if heads, err := unpackHeads(b); err == nil {
			lines := make([]line, len(heads))
			for i, h := range heads {
				lines[i].head = h
			}
			if !bytes.Equal(packHeads(lines), b) && len(b) > 0 {
				for _, h := range heads { // both flags at once are not ours
					if h.all && h.grave {
						return
					}
				}
				t.Errorf("heads %x have another spelling", b)
			}
		}
		if wants, err := unpackWants(b, -1, 1000); err == nil {
			for i, w := range wants {
				if w.line < 0 || w.line >= 1000 || i > 0 && w.line <= wants[i-1].line {
					t.Errorf("want of line %d", w.line)
				}
			}
			if !bytes.Equal(packWants(wants, -1), b) {
				t.Errorf("wants %x have another spelling", b)
			}
		}
		if len(b) >= graveBytes && !bytes.Equal(readGrave(b).append(nil), b[:graveBytes]) {
			t.Error("a grave changes")
		}
	})
}

// FuzzProof takes proofs of forks from anybody.
func FuzzProof(f *testing.F) {
	w := newWorld(f, 2)
	disk := newShelf()
	one := w.open(f, 0, disk)
	publish(f, one, "app", 1, 1)
	two := w.open(f, 0, disk.clone())
	x, y := publish(f, one, "a", 2, 1), publish(f, two, "b", 2, 1)
	p := must(Fork{x, y}.encode())(f)
	f.Add(p.A, p.B)
	f.Add(p.A, p.A)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		c := w.open(t, 1, newShelf())
		if err := c.merge(everything(t, one), nil, nil); err != nil {
			t.Fatal(err)
		}
		err := c.heardProof(proof{a, b})
		for _, fork := range c.Forks() {
			key, _ := c.Key(one.self)
			if err != nil || fork.A.Verify(key) != nil || fork.B.Verify(key) != nil {
				t.Errorf("a false proof was taken, %v", err)
			}
		}
	})
}
