package swarm

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"meshd/mesh/id"
	"meshd/mesh/wire"
)

const (
	minPack    = 16 << 10  // bytes of an answer below which it is not worth it
	samples    = 4         // pieces of an answer, spread over it, that are compressed to see whether it pays,
	sampleSize = 4 << 10   // of so many bytes
	packWindow = 512 << 10 // bytes that the compressor looks back; its memory is about that

	// Compressing pays in time below the speed of a core, and in processor time never: a link is slow, and is compressed
	// for, when it carries less than an eighth of that, and is no longer when it carries more than a quarter.
	slowLink, fastLink = 8, 4
	firstSpeed         = 64 << 20         // bytes a second that a core is believed to compress, until it was seen
	speedTime          = 10 * time.Second // and again so long after: what slowed it down may be over

	lineLeast = 64 << 10 // bytes read of answers before they say what a link carries
	lineMost  = 1 << 20  // after so many, the older ones count half
)

// A packer compresses and unpacks answers, each as one zstd frame. Its methods are safe for concurrent use; one
// goroutine compresses and one unpacks at a time, so that a node spends a core at most on either. Both ends cost no
// memory before they are needed.
type packer struct {
	once   sync.Once
	enc    *zstd.Encoder
	dec    *zstd.Decoder
	failed error

	packing sync.Mutex // of what compresses: all that follows up to mu
	room    []byte     // a sample, and what it is compressed to
	all     allowance
	peers   map[id.Node]*allowance
	took    func(since time.Time) time.Duration // nil: time.Since; simulated time stands still while a core works

	ran   atomic.Int64 // nanoseconds that the compressor ran
	spent atomic.Int64 // answers that went as they are because there was no time left for them

	mu    sync.Mutex
	speed float64 // bytes a second that went into the compressor lately
	seen  time.Time
}

func (p *packer) begin() error {
	p.once.Do(func() {
		p.enc, p.failed = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(packWindow), zstd.WithLowerEncoderMem(true))
		if p.failed != nil {
			return
		}
		p.dec, p.failed = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(maxExtent), zstd.WithDecoderMaxWindow(maxExtent), zstd.WithDecodeAllCapLimit(true))
		p.room = make([]byte, 2*samples*sampleSize+1<<10)
		p.all, p.peers = allowance{share: allShare}, map[id.Node]*allowance{}
	})
	return p.failed
}

// pays says by a sample of b whether compressing it for a peer saves an eighth or more, and whether there is time left
// for that.
func (p *packer) pays(peer id.Node, b []byte) bool {
	if len(b) < minPack || p.begin() != nil {
		return false
	}
	p.packing.Lock()
	defer p.packing.Unlock()
	start := time.Now()
	of := p.peers[peer]
	if !p.all.has(start) || of != nil && !of.has(start) {
		p.spent.Add(1)
		return false
	}
	sample := p.room[:samples*sampleSize]
	for i := range samples {
		copy(sample[i*sampleSize:], b[i*(len(b)-sampleSize)/(samples-1):][:sampleSize])
	}
	out := p.enc.EncodeAll(sample, p.room[len(sample):len(sample)])
	p.spend(peer, start)
	return len(out) < len(sample)/8*7
}

// pack appends b to dst, compressed, for a peer.
func (p *packer) pack(peer id.Node, b, dst []byte) []byte {
	p.packing.Lock() // the wait for another answer says nothing of the core
	start := time.Now()
	out := p.enc.EncodeAll(b, dst)
	took := p.spend(peer, start)
	p.packing.Unlock()
	if took > 0 {
		p.learn(float64(len(b)) / took.Seconds())
	}
	return out
}

// spend takes off a peer's allowance, and off that of all, what the compressor took since then. A core that others use
// too is counted longer, so that less is compressed where there is no core to spare. p.packing is held.
func (p *packer) spend(peer id.Node, since time.Time) time.Duration {
	took := time.Since(since)
	if p.took != nil {
		took = p.took(since)
	}
	of := p.peers[peer]
	if of == nil {
		if len(p.peers) >= packPeers {
			maps.DeleteFunc(p.peers, func(_ id.Node, o *allowance) bool { return o.full(since) })
		}
		of = &allowance{share: peerShare}
		p.peers[peer] = of
	}
	for _, a := range []*allowance{&p.all, of} {
		a.fill(since)
		a.left -= took
	}
	p.ran.Add(int64(took))
	return took
}

func (p *packer) learn(speed float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.speed > 0 {
		speed = p.speed + (speed-p.speed)/4
	}
	p.speed, p.seen = speed, time.Now()
}

// slow says whether a link that carries so many bytes a second is slow beside a core; was says whether it was.
func (p *packer) slow(carries float64, was bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	speed := p.speed
	if speed == 0 || time.Since(p.seen) > speedTime {
		p.speed, speed = 0, firstSpeed
	}
	if was {
		return carries < speed/fastLink
	}
	return carries < speed/slowLink
}

// unpack makes b, which came from a peer, into the len(dst) bytes of dst. It refuses all but one frame of exactly that
// content, before it is unpacked as far as its header tells, and never writes beyond dst.
func (p *packer) unpack(b, dst []byte) error {
	if err := p.begin(); err != nil {
		return err
	}
	if err := checkPacked(b, len(dst)); err != nil {
		return err
	}
	out, err := p.dec.DecodeAll(b, dst[:0:len(dst)])
	if err != nil {
		return fmt.Errorf("packed answer: %w", err)
	}
	if len(out) != len(dst) || &out[0] != &dst[0] {
		return fmt.Errorf("packed answer unpacks to %d bytes, want %d", len(out), len(dst))
	}
	return nil
}

// checkPacked refuses what is not one zstd frame that says to hold so many bytes, with nothing before or behind it.
func checkPacked(b []byte, size int) error {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return fmt.Errorf("packed answer: header: %w", err)
	}
	switch {
	case h.Skippable || h.DictionaryID != 0:
		return fmt.Errorf("packed answer: a frame that is skipped, or needs a dictionary")
	case !h.HasFCS || h.FrameContentSize != uint64(size):
		return fmt.Errorf("packed answer of %d bytes, want %d", h.FrameContentSize, size)
	case h.WindowSize > maxExtent:
		return fmt.Errorf("packed answer: %w", &wire.LimitError{What: "bytes of its window", Limit: maxExtent, Got: int(min(h.WindowSize, 1<<30))})
	}
	at, sure, last := h.HeaderSize, 0, false // sure: bytes that blocks which are not compressed unpack to
	for !last {
		if len(b)-at < 3 {
			return fmt.Errorf("packed answer ends in the middle")
		}
		head := int(b[at]) | int(b[at+1])<<8 | int(b[at+2])<<16
		last = head&1 != 0
		n := head >> 3
		switch head >> 1 & 3 {
		case 0: // as it is
			sure += n
		case 1: // one byte, repeated
			sure += n
			n = 1
		}
		if sure > size {
			return fmt.Errorf("packed answer unpacks to more than %d bytes, its size", size)
		}
		if n > len(b)-at-3 {
			return fmt.Errorf("packed answer ends in the middle")
		}
		at += 3 + n
	}
	if h.HasCheckSum {
		at += 4
	}
	if at != len(b) {
		return fmt.Errorf("packed answer: %d bytes, of which its frame takes %d", len(b), at)
	}
	return nil
}

// A line is what the answers of a peer say of the link they came over. The zero value knows nothing.
type line struct {
	bytes float64
	took  time.Duration
}

// read notes an answer whose bytes took so long from the first to the last: what the peer and the way there and back
// took before is not in it.
func (l *line) read(bytes int, took time.Duration) {
	if bytes < minPack/4 {
		return
	}
	if l.bytes > lineMost {
		l.bytes, l.took = l.bytes/2, l.took/2
	}
	l.bytes += float64(bytes)
	l.took += took
}

// carries is how many bytes a second the link carries, as far as 32 bits tell; 0: not known.
func (l *line) carries() uint32 {
	if l.bytes < lineLeast {
		return 0
	}
	rate := l.bytes / max(l.took, time.Microsecond).Seconds()
	return uint32(min(max(rate, 1), 1<<32-1))
}

// packs says whether an answer to a peer that gets so many bytes a second over its link (0: not known) is to be
// compressed. It is for the goroutine that writes.
func (x *session) packs(carries uint32) bool {
	limit := x.s.egress.limit(x.link)
	if carries == 0 && limit == 0 {
		return x.packing
	}
	rate := float64(carries)
	if limit > 0 && (carries == 0 || limit < rate) {
		rate = limit
	}
	x.packing = x.s.packer.slow(rate, x.packing)
	return x.packing
}

// packed returns the answer in buf (its chunks lie behind headRoom), compressed in another buffer, or nil if that
// does not pay. The caller releases what it gets.
func (x *session) packed(buf *buffer, carries uint32) *buffer {
	plain := buf.b[headRoom:]
	if len(plain) < minPack || !x.packs(carries) || !x.s.packer.pays(x.peer, plain) {
		return nil
	}
	out := x.s.buffers.get(len(buf.b))
	b := x.s.packer.pack(x.peer, plain, out.b[:headRoom])
	if len(b)-headRoom >= len(plain)/16*15 || &b[0] != &out.b[0] {
		out.release()
		return nil
	}
	out.b = b
	return out
}
