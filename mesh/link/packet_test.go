package link

import (
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"meshd/mesh/id"
)

func TestPacketIsTakenOnceAndOnlyWhereItWasMeant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b, c := w.start(1), w.start(2), w.start(3)
		for _, x := range []*node{a, b, c} {
			for _, y := range []*node{a, b, c} {
				if x != y {
					w.teach(x, y)
					must(t, echo(x, y.self, "met"))
				}
			}
		}
		ticket, ok := a.book.prepare(b.self)
		if !ok {
			t.Fatal("a has no key of b")
		}
		good := ticket.pair.seal(a.self, a.boot, ticket.counter, 't', []byte("once"))
		if len(good) != packetCost+4 {
			t.Errorf("4 bytes make a packet of %d, want %d", len(good), packetCost+4)
		}
		edit := func(at int, bytes ...byte) []byte {
			out := append([]byte(nil), good...)
			copy(out[at:], bytes)
			return out
		}
		tests := []struct {
			name   string
			to     *node
			packet []byte
			count  func(Stats) int64
		}{
			{"reflected", a, good, func(s Stats) int64 { return s.PacketsUnknown }},
			{"reflected in the name of the receiver", a, edit(1, b.self[:8]...), func(s Stats) int64 { return s.PacketsForged }},
			{"sent on to a third", c, good, func(s Stats) int64 { return s.PacketsForged }},
			{"in another's name", b, edit(1, c.self[:8]...), func(s Stats) int64 { return s.PacketsForged }},
			{"of another run", b, edit(9, 0xff), func(s Stats) int64 { return s.PacketsForged }},
			{"with another counter", b, edit(22, 0xff), func(s Stats) int64 { return s.PacketsForged }},
			{"damaged", b, edit(len(good)-1, good[len(good)-1]^1), func(s Stats) int64 { return s.PacketsForged }},
			{"cut", b, good[:packetCost-1], func(s Stats) int64 { return s.PacketsMalformed }},
			{"of another version", b, edit(0, 9), func(s Stats) int64 { return s.PacketsMalformed }},
			{"good", b, good, func(s Stats) int64 { return s.PacketsIn }},
			{"replayed", b, good, func(s Stats) int64 { return s.PacketsReplayed }},
		}
		for _, tt := range tests {
			before := tt.count(tt.to.Stats())
			tt.to.packet(tt.packet, a.bound, time.Now())
			if tt.count(tt.to.Stats()) != before+1 {
				t.Errorf("%s: not counted as it should: %+v", tt.name, tt.to.Stats())
			}
		}
		expect(t, b, a.self.Short()+" once")
		for _, n := range []*node{a, b, c} {
			none(t, n)
		}
	})
}

func TestCapturedPacketIsRefusedAfterTheReceiverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start(1), w.start(2)
		w.teach(a, b)
		must(t, echo(a, b.self, "met"))
		ticket, _ := a.book.prepare(b.self)
		captured := ticket.pair.seal(a.self, a.boot, ticket.counter, 't', []byte("old"))
		b.packet(captured, a.bound, time.Now())
		expect(t, b, a.self.Short()+" old")
		b.stop()
		b = w.start(2)
		w.teach(b, a)
		must(t, echo(a, b.self, "met again"))
		b.packet(captured, a.bound, time.Now())
		none(t, b)
		if b.Stats().PacketsReplayed != 1 {
			t.Errorf("replay over a restart: %+v", b.Stats())
		}
		must(t, a.Send(b.self, 't', []byte("new")))
		expect(t, b, a.self.Short()+" new")
	})
}

func TestPacketsOfARunWaitForItsFirstStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start(1), w.start(2)
		w.teach(a, b)
		must(t, echo(a, b.self, "met"))
		a.stop()
		a = w.start(1)
		w.teach(a, b)
		for i := range heldPackets + 2 {
			must(t, a.Send(b.self, 't', fmt.Append(nil, i)))
		}
		for i := range heldPackets {
			expect(t, b, fmt.Sprint(a.self.Short(), " ", i+2))
		}
		must(t, a.Send(b.self, 't', []byte("next")))
		expect(t, b, a.self.Short()+" next")
		if s := b.Stats(); s.PacketsUnheard != 0 {
			t.Errorf("%+v", s)
		}
		if a.book.held != 0 {
			t.Errorf("%d packets are still held", a.book.held)
		}
	})
}

func TestHeldPacketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a := w.start(1)
		send := func() {
			for n := 2; n < 2+heldInAll; n++ {
				peer := id.Node{byte(n), byte(n >> 8), 9}
				a.book.parseText([]byte(peer.String() + " 10.9.9.9:1\n"))
				for range 2 {
					must(t, a.Send(peer, 't', nil))
				}
			}
		}
		for range 3 {
			send()
			held := 0
			for _, e := range a.book.peers {
				held += len(e.held)
			}
			if held != heldInAll || a.book.held != held {
				t.Errorf("%d packets held, counted as %d, want %d", held, a.book.held, heldInAll)
			}
			time.Sleep(2 * heldFor) // virtual
		}
	})
}

func TestReceiverThatRestartedAsksForTheSendersRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start(1), w.start(2)
		w.teach(a, b)
		must(t, echo(a, b.self, "met"))
		b.stop()
		b = w.start(2)
		w.teach(b, a)
		must(t, a.Send(b.self, 't', []byte("first")))
		synctest.Wait()
		none(t, b) // a's run is not known yet; a stream has asked for it by now
		must(t, a.Send(b.self, 't', []byte("second")))
		expect(t, b, a.self.Short()+" second")
		if s := b.Stats(); s.PacketsUnheard != 1 {
			t.Errorf("%+v", s)
		}
	})
}

func TestForgedRunsAskForFewStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start(1), w.start(2)
		w.teach(a, b)
		w.teach(b, a)
		must(t, echo(a, b.self, "met"))
		a.stop() // what b asks for, nobody answers
		dials := 0
		for range 100 {
			if b.book.mayFetch(a.self, time.Now()) {
				dials++
			}
			time.Sleep(100 * time.Millisecond) // virtual
		}
		if dials > 6 {
			t.Errorf("%d streams asked for in 10 s, want at most one in %v", dials, fetchEvery)
		}
	})
}

func TestSendWithoutKeyFetchesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start(1), w.start(2)
		must(t, a.Send(b.self, 't', []byte("nobody knows b")))
		a.book.parseText([]byte(textHead + "\n" + b.self.String() + " " + b.Addr() + "\n"))
		must(t, a.Send(b.self, 't', []byte("no key yet")))
		expect(t, b, a.self.Short()+" no key yet")
		if s := a.Stats(); s.PacketsUnsent != 2 {
			t.Errorf("%+v", s)
		}
		if err := a.Send(b.self, 't', make([]byte, MaxPayload)); err != nil {
			t.Errorf("the longest payload: %v", err)
		}
		wantError(t, a.Send(b.self, 't', make([]byte, MaxPayload+1)), "limit")
	})
}

func TestPacketsFollowARoamingPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.start(1), w.start(2)
		w.teach(a, b)
		w.teach(b, a)
		must(t, echo(a, b.self, "met"))
		ticket, _ := b.book.prepare(a.self)
		moved := net.UDPAddr{IP: net.IPv4(10, 0, 0, 77), Port: 1234}
		a.packet(ticket.pair.seal(b.self, b.boot, ticket.counter, 't', []byte("from afar")), addrPort(&moved), time.Now())
		expect(t, a, b.self.Short()+" from afar")
		p, _ := a.Peer(b.self)
		if p.Addrs[0] != "10.0.0.77:1234" {
			t.Errorf("addresses %v, want the last authenticated source first", p.Addrs)
		}
		must(t, echo(a, b.self, "the book's address is tried next"))
	})
}

// A window takes each counter once, whatever the order, as long as it is not too far behind.
func TestWindowTakesEachCounterOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w window
		floor := uint64(0)
		if rapid.Bool().Draw(t, "known run") {
			floor = rapid.Uint64Range(0, 5000).Draw(t, "sent")
			w = since(floor)
		}
		seen := map[uint64]bool{}
		newest := floor
		for _, step := range rapid.SliceOfN(rapid.IntRange(-1500, 1500), 1, 200).Draw(t, "steps") {
			c := uint64(max(0, int(newest)+step))
			ok, isNewest := w.take(c)
			want := c > floor && !seen[c] && c+windowBits > newest
			if ok != want || isNewest != (ok && c > newest) {
				t.Fatalf("take(%d) = %v, %v with newest %d, seen %v, floor %d", c, ok, isNewest, newest, seen[c], floor)
			}
			if ok {
				seen[c] = true
				newest = max(newest, c)
			}
		}
	})
}

func FuzzPacket(f *testing.F) {
	a, b := id.Node{1}, id.Node{2}
	key, priv := [32]byte{9: 1}, [32]byte{3: 7}
	p := newPair([32]byte{5}, b, a, &key, &priv)
	q := *p
	q.in, q.out = p.out, p.in
	f.Add(q.seal(a, bootID{1}, 7, 'x', []byte("payload")))
	f.Add(p.seal(a, bootID{1}, 7, 'x', nil))
	f.Fuzz(func(t *testing.T, packet []byte) {
		h, sealed, err := parseHead(packet)
		if err != nil {
			return
		}
		kind, payload, ok := p.open(h, sealed)
		if !ok {
			return
		}
		again := q.seal(a, h.boot, h.counter, kind, payload)
		if h.from == short(a) && string(again) != string(packet) {
			t.Errorf("%x opens and seals again as %x", packet, again)
		}
	})
}

func BenchmarkPacket(b *testing.B) {
	w := newWorld(b)
	cert := w.cert(2)
	_, priv := w.sponsor.BoxKey()
	p := newPair(w.charter.MeshID(), w.id(1), w.id(2), &cert.Box, priv)
	q := *p
	q.in, q.out = p.out, p.in
	payload := make([]byte, 100)
	var counter uint64
	b.ReportAllocs()
	for b.Loop() {
		counter++
		packet := p.seal(w.id(1), bootID{}, counter, 't', payload)
		h, sealed, err := parseHead(packet)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, ok := q.open(h, sealed); !ok {
			b.Fatal("sealed packet does not open")
		}
	}
}
