package swarm

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"

	"meshd/mesh/id"
	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// logText fills b with lines as programs log them; zstd makes a quarter of it.
func logText(seed uint64) func(b []byte) {
	random := rand.New(rand.NewPCG(seed, 1))
	words := make([]string, 500)
	for i := range words {
		words[i] = fmt.Sprintf("%x", random.Uint64()>>(16+random.IntN(32)))
	}
	return func(b []byte) {
		out := bytes.NewBuffer(b[:0])
		for n := 0; out.Len() < len(b); n++ {
			fmt.Fprintf(out, `{"time":%d,"level":"info","node":%q,"what":%q,"took":%d}`+"\n",
				n, words[random.IntN(50)], words[random.IntN(500)], random.IntN(1000))
		}
		copy(b, out.Bytes())
	}
}

// transfer pulls an artifact of one file over a link of so many bytes a second (0: any number), and tells how long it
// took and what went over it.
func transfer(t *testing.T, rate float64, limit Limits, size int, fill func([]byte)) (took time.Duration, sent Stats) {
	t.Helper()
	bubble(t, func(t *testing.T, w *world) {
		from, me := w.node(1), w.node(9)
		if rate > 0 {
			from.link, me.link = &shaped{rate: rate}, &shaped{rate: rate}
		}
		from.swarm.SetLimits(limit)
		ref := from.store.putOf(t, 1, size, fill)
		start := time.Now()
		if err := me.pull(t, ref, time.Hour, from); err != nil {
			t.Fatal(err)
		}
		took = time.Since(start)
		synctest.Wait() // what is written is counted
		sent = from.swarm.Stats()
		me.mustHave(t, from)
		if got := me.swarm.Stats(); got.Lies+got.Violations+got.WastedBytes > 0 || got.PulledBytes != sent.ServedBytes {
			t.Errorf("%+v", got)
		}
	})
	return took, sent
}

func randomBytes() func([]byte) {
	random := rand.NewChaCha8([32]byte{7})
	return func(b []byte) { _, _ = random.Read(b) }
}

const packTestSize = 16 << 20

func TestTextOverASlowLinkTakesFewerBytesAndLessTime(t *testing.T) {
	const rate = 5e6 // 40 Mbit/s
	took, sent := transfer(t, rate, Limits{}, packTestSize, logText(1))
	ideal := time.Duration(packTestSize / rate * float64(time.Second))
	t.Logf("%v of %v, %d of %d bytes", took, ideal, sent.OutBytes, packTestSize)
	if sent.OutBytes > packTestSize*2/5 || took > ideal*2/5 {
		t.Errorf("%d bytes in %v, want at most two fifths of %d and of %v", sent.OutBytes, took, packTestSize, ideal)
	}
	if got := sent.ServedBytes - sent.SparedBytes; got > sent.OutBytes || got < sent.OutBytes*99/100 {
		t.Errorf("said to have sent %d bytes, sent %d", got, sent.OutBytes)
	}
}

func TestWhatDoesNotShrinkCostsNoMoreOverASlowLink(t *testing.T) {
	_, sent := transfer(t, 5e6, Limits{}, packTestSize, randomBytes())
	if sent.SparedBytes != 0 || sent.OutBytes > packTestSize*101/100 {
		t.Errorf("%d bytes for %d, %d of them spared", sent.OutBytes, packTestSize, sent.SparedBytes)
	}
}

// An artifact that shrinks in part is compressed in part: each extent is looked at by itself.
func TestOnlyWhatShrinksIsCompressed(t *testing.T) {
	text, noise := logText(1), randomBytes()
	_, sent := transfer(t, 5e6, Limits{}, packTestSize, func(b []byte) {
		noise(b[:len(b)/2])
		text(b[len(b)/2:])
	})
	if sent.OutBytes < packTestSize/2 || sent.OutBytes > packTestSize*3/4 {
		t.Errorf("%d bytes for %d, half of it noise", sent.OutBytes, packTestSize)
	}
}

func TestAFastLinkIsNotCompressedFor(t *testing.T) {
	for _, rate := range []float64{0, 1e9} {
		if _, sent := transfer(t, rate, Limits{}, packTestSize, logText(1)); sent.SparedBytes != 0 || sent.OutBytes < packTestSize {
			t.Errorf("%g bytes a second: %+v", rate, sent)
		}
	}
}

func TestACapOnWhatGoesOutIsASlowLink(t *testing.T) {
	const limit = 1e6
	took, sent := transfer(t, 0, Limits{All: {Egress: limit}}, packTestSize, logText(1))
	wire := time.Duration(float64(sent.OutBytes) / limit * float64(time.Second))
	if sent.OutBytes > packTestSize*2/5 {
		t.Errorf("%d bytes for %d", sent.OutBytes, packTestSize)
	}
	if took < wire*9/10 {
		t.Errorf("%d bytes in %v: the cap is for what goes over the link", sent.OutBytes, took)
	}
}

func TestALinkIsSlowOrFastUntilItIsClearlyTheOther(t *testing.T) {
	var p packer
	speed := float64(firstSpeed)
	for _, tt := range []struct {
		carries   float64
		was, want bool
	}{
		{speed / 10, false, true}, {speed / 6, false, false}, {speed / 6, true, true}, {speed / 3, true, false},
	} {
		if got := p.slow(tt.carries, tt.was); got != tt.want {
			t.Errorf("%g of %g, slow before %v: %v", tt.carries, speed, tt.was, got)
		}
	}
	p.learn(speed / 100)
	if p.slow(speed/100, true) {
		t.Error("a link is slow although the compressor is no faster")
	}
}

// packedBy is b as one frame of the compressor at its defaults.
func packedBy(t testing.TB, b []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, append(opts, zstd.WithEncoderConcurrency(1))...)
	if err != nil {
		t.Fatal(err)
	}
	defer enc.Close()
	return enc.EncodeAll(b, nil)
}

// zeros is a frame whose header says to hold size bytes, and which unpacks to so many blocks of 128 KiB of zeros.
func zeros(size uint32, blocks int) []byte {
	b := binary.LittleEndian.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 2<<6 | 1<<5}, size)
	for i := range blocks {
		head := (128<<10)<<3 | 1<<1
		if i == blocks-1 {
			head |= 1
		}
		b = append(b, byte(head), byte(head>>8), byte(head>>16), 0)
	}
	return b
}

func TestPackedLiesAreRefusedByName(t *testing.T) {
	const size = 256 << 10
	text := make([]byte, size)
	logText(1)(text)
	good := packedBy(t, text)
	wide := append([]byte{}, zeros(size, 2)...)
	wide[4] = 2 << 6 // not a single segment: a window follows
	wide = append(wide[:5], append([]byte{20 << 3}, wide[5:]...)...)
	tests := []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "header"},
		{"noise", bytes.Repeat([]byte{1, 2, 3}, 100), "header"},
		{"a bomb that says so", zeros(1<<30, 8192), "of 1073741824 bytes, want 262144"},
		{"a bomb that does not", zeros(size, 8192), "size"},
		{"too little", zeros(size, 1), "size"},
		{"less than it said", packedBy(t, text[1:]), "262143 bytes, want 262144"},
		{"cut short", good[:len(good)/2], "ends in the middle"},
		{"something behind it", append(bytes.Clone(good), 0), "of which its frame takes"},
		{"a frame behind it", append(bytes.Clone(good), good...), "of which its frame takes"},
		{"a skipped frame before it", append([]byte{0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}, good...), "skipped"},
		{"a window of a gigabyte", wide, "window"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var p packer
			out := make([]byte, size, size+100)
			behind := out[:cap(out)][size:]
			err := p.unpack(tt.b, out)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if !bytes.Equal(behind, make([]byte, 100)) {
				t.Error("bytes were written behind the answer's")
			}
			if err := p.unpack(good, out); err != nil || !bytes.Equal(out, text) {
				t.Errorf("after the lie: %v", err)
			}
		})
	}
}

// A holder that answers with a bomb is banned, and the artifact comes from another.
func TestAPeerThatSendsABombIsBanned(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		me, honest := w.node(9), w.node(1)
		ref := honest.store.putOf(t, 1, 1<<20, logText(1))
		liar := id.Node{5}
		open := me.swarm.cfg.Open
		me.swarm.cfg.Open = func(ctx context.Context, to id.Node) (net.Conn, error) {
			if to != liar {
				return open(ctx, to)
			}
			near, far := net.Pipe()
			w.wg.Go(func() { bomb(t, far, honest.store) })
			return near, nil
		}
		err := me.swarm.Pull(t.Context(), ref, func() []id.Node {
			if _, banned := me.swarm.banned(liar); banned {
				return []id.Node{liar, honest.name}
			}
			return []id.Node{liar}
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		me.mustHave(t, honest)
		s := me.swarm.Stats()
		if s.Violations != 1 || len(s.Banned) != 1 || s.Banned[0].Node != liar || !strings.Contains(s.Banned[0].Why, "packed answer") {
			t.Errorf("%+v", s)
		}
	})
}

// bomb serves the manifest, and a bomb for the first want of content.
func bomb(t *testing.T, c net.Conn, of *memory) {
	defer c.Close()
	for {
		kind, body, err := wire.ReadFrame(c, maxFrame)
		if err != nil {
			return
		}
		switch kind {
		case kindTell:
			var q tell
			if err := decode(body, &q); err != nil {
				t.Error(err)
			}
			_, _ = c.Write(mustFrame(t, kindTell, &tell{Root: q.Root, All: true}))
		case kindWant:
			var q want
			if err := decode(body, &q); err != nil {
				t.Error(err)
			}
			ids, err := q.digests()
			if err != nil {
				t.Error(err)
			}
			var b []byte
			for _, d := range ids {
				b, _ = of.Read(d, b)
			}
			if len(b) < 32<<10 {
				_, _ = c.Write(inParts(t, &data{Req: q.Req, Bytes: uint32(len(b))}, b))
				continue
			}
			lie := zeros(uint32(len(b)), 2000)
			_, _ = c.Write(inParts(t, &data{Req: q.Req, Bytes: uint32(len(lie)), Plain: uint32(len(b))}, lie))
		}
	}
}

// FuzzUnpack gives bytes of a peer to the decompressor: it unpacks what was packed and refuses the rest, within the
// memory of one answer.
func FuzzUnpack(f *testing.F) {
	text := make([]byte, 64<<10)
	logText(1)(text)
	for _, level := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedBetterCompression} {
		f.Add(packedBy(f, text, zstd.WithEncoderLevel(level)), uint32(len(text)))
	}
	f.Add(packedBy(f, text, zstd.WithEncoderCRC(false)), uint32(len(text)-1))
	f.Add(zeros(1<<20, 8), uint32(1<<20))
	f.Add(zeros(1<<20, 9), uint32(1<<20))
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xe0, 255, 255, 255, 255, 255, 255, 255, 255}, uint32(5))
	f.Fuzz(func(t *testing.T, in []byte, size uint32) {
		if len(in) > 64<<10 || size == 0 || size > maxExtent {
			t.Skip("a request asks for at most one extent")
		}
		var p packer
		if err := p.begin(); err != nil {
			t.Fatal(err)
		}
		out := make([]byte, size, size+100)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := p.unpack(in, out)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
			t.Errorf("%d bytes allocated for %d", got, len(in))
		}
		if !bytes.Equal(out[:cap(out)][size:], make([]byte, 100)) {
			t.Error("bytes were written behind the answer's")
		}
		if err != nil {
			return
		}
		d, err := zstd.NewReader(bytes.NewReader(in), zstd.WithDecoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		if want, err := io.ReadAll(d); err != nil || !bytes.Equal(want, out) {
			t.Errorf("unpacked to something else: %v", err)
		}
	})
}

func TestUnpackingKeepsToTheBufferWhereTheBytesEnd(t *testing.T) {
	var s Swarm
	plain := make([]byte, maxExtent)
	logText(3)(plain)
	frame := packedBy(t, plain)
	digest := artifact.Sum(plain)
	if err := s.packer.unpack(frame, plain); err != nil {
		t.Fatal(err)
	}
	per := testing.AllocsPerRun(20, func() {
		clear(plain)
		if err := s.packer.unpack(frame, plain); err != nil || artifact.Sum(plain) != digest {
			t.Error(err)
		}
	})
	if per > 20 {
		t.Errorf("%g allocations for an answer that has its buffer", per)
	}
}

// BenchmarkPack is what a core compresses and unpacks, and what a look costs that finds nothing to gain.
func BenchmarkPack(b *testing.B) {
	p := packer{took: func(since time.Time) time.Duration { return time.Since(since) / 1000 }} // not to run out of it
	text, noise := make([]byte, maxExtent), make([]byte, maxExtent)
	logText(1)(text)
	randomBytes()(noise)
	if !p.pays(id.Node{}, text) || p.pays(id.Node{}, noise) {
		b.Fatal("the sample says something else")
	}
	room := make([]byte, 0, maxExtent)
	packed := bytes.Clone(p.pack(id.Node{}, text, room))
	b.Run("pack", func(b *testing.B) {
		b.SetBytes(maxExtent)
		for b.Loop() {
			p.pack(id.Node{}, text, room)
		}
		b.ReportMetric(float64(len(text))/float64(len(packed)), "ratio")
	})
	b.Run("unpack", func(b *testing.B) {
		b.SetBytes(maxExtent)
		for b.Loop() {
			if err := p.unpack(packed, text); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sample of noise", func(b *testing.B) {
		b.SetBytes(maxExtent)
		for b.Loop() {
			p.pays(id.Node{}, noise)
		}
	})
}
