package swarm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// How long a stream waits.
const (
	silenceTime = 10 * time.Second // for the next byte while an answer is due, and for a slice to be taken
	idleTime    = 90 * time.Second // with nothing to do, the one that was dialled
	dialledIdle = 60 * time.Second // with nothing to do, the one that dialled: it hangs up first
)

const (
	maxPending = 1024      // requests to one peer without an answer
	maxJobs    = 256       // requests of one peer not yet answered
	maxControl = 2048      // frames to one peer not yet written
	slice      = 128 << 10 // bytes written under one deadline; a multiple of the TLS record
	headRoom   = 2 << 10   // bytes before the chunks of an answer, for its header
)

// errViolation is wrapped by errors about a peer that broke the protocol.
var errViolation = errors.New("broke the protocol")

// maxNews is how many frames about one artifact a peer may send before they are looked at.
const maxNews = 256

// A request is a question to a peer.
type request struct {
	root   artifact.Digest
	chunks []artifact.Chunk // what is wanted; nil for a share until the peer has chosen
	force  bool
	// share, if not nil, makes the request one for a share. It is called once, by the goroutine that reads
	// the stream, with the peer's choice, and returns the chunks. It must not block.
	share       func(runs []byte) ([]artifact.Chunk, error)
	part, parts uint8
	// done is called once, by the goroutine that reads the stream or the one that ends it. It must
	// not block. The callee owns the body.
	done func(answer)
}

// An answer is what came of a request: chunks, a refusal, or the end of the stream.
type answer struct {
	body    *buffer // the chunks one after the other, not yet verified
	absent  bitset  // those that are not in body; nil: none
	refused refusal // 0: not refused
	at      id.Node // who is to be asked instead; zero if nobody
	err     error   // the stream ended
}

// A session is one stream with a peer: both ends ask and serve.
//
// One goroutine reads, one writes and serves; neither waits for the other. Requests may be made by
// any goroutine.
type session struct {
	s    *Swarm
	peer id.Node
	conn net.Conn
	idle time.Duration
	link Class // how far away the peer is

	mu      sync.Mutex
	pending map[uint32]*request // asked of the peer; a nil request was cancelled, its answer is dropped
	waiting int                 // those of them that are shares: no answer to them is due
	nextReq uint32
	line    line     // of the peer's answers
	control [][]byte // frames to write before the next job
	jobs    []job    // asked by the peer
	err     error    // why the session ended
	ended   bool

	wait     time.Duration // for the next byte, as last set,
	waitFrom time.Time     // and from when

	kick chan struct{} // capacity 1: look at control and jobs
	done chan struct{} // closed when the session has ended
	news atomic.Int32  // frames handed to pulls that have not looked at them yet

	// last is the artifact served last; owned by the goroutine that writes.
	last artifact.Digest
	// packing says that answers are compressed, as far as they can be: the link is slow. Of that goroutine too.
	packing bool
	// part is how many bytes of an answer go out at once. Of that goroutine too.
	part int
	// leash bounds what is under way; untold is how many bytes were written since it looked. Of that goroutine too.
	leash  leash
	untold int

	// coming is the answer whose parts come; nil between answers. Owned by the goroutine that reads.
	coming *coming
}

func newSession(s *Swarm, peer id.Node, c net.Conn, idle time.Duration) *session {
	x := &session{
		s: s, peer: peer, conn: c, idle: idle, link: classOf(c.RemoteAddr()), pending: map[uint32]*request{},
		kick: make(chan struct{}, 1), done: make(chan struct{}),
	}
	x.setPart(leastPart)
	return x
}

// run speaks on the stream until it ends, and says why it did.
func (x *session) run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { x.end(context.Cause(ctx)) })
	defer stop()
	var writer sync.WaitGroup
	writer.Go(func() { x.end(x.write()) })
	x.end(x.read())
	writer.Wait()
	return x.err
}

// end closes the stream and fails all that is pending. Only the first reason counts.
func (x *session) end(why error) {
	x.mu.Lock()
	if x.ended {
		x.mu.Unlock()
		return
	}
	x.ended, x.err = true, why
	pending := x.pending
	x.pending = nil
	x.mu.Unlock()
	close(x.done)
	for _, r := range pending {
		if r != nil {
			r.done(answer{err: why})
		}
	}
	x.conn.Close() // may wait for a TLS farewell: last
}

// ask sends a request and returns its number; the answer goes to r.done, unless ask fails.
func (x *session) ask(r *request) (uint32, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended {
		return 0, fmt.Errorf("stream ended: %w", x.err)
	}
	if len(x.pending) >= maxPending {
		return 0, &wire.LimitError{What: "requests under way to one peer", Limit: maxPending, Got: len(x.pending) + 1}
	}
	x.nextReq++
	req := x.nextReq
	var b []byte
	var err error
	if r.share != nil {
		b, err = frame(kindShare, &share{Req: req, Root: r.root, Part: r.part, Parts: r.parts, Rate: x.line.carries()})
	} else {
		ids := make([]byte, 0, len(r.chunks)*len(artifact.Digest{}))
		for _, c := range r.chunks {
			ids = append(ids, c.ID[:]...)
		}
		b, err = frame(kindWant, &want{Req: req, Root: r.root, IDs: ids, Force: r.force, Rate: x.line.carries()})
	}
	if err != nil {
		return 0, err
	}
	x.pending[req] = r
	if r.share != nil {
		x.waiting++
	} else if len(x.pending)-x.waiting == 1 {
		x.deadline()
	}
	x.control = append(x.control, b)
	x.wakeWriter()
	return req, nil
}

// cancel drops a request: done is not called any more, and the peer need not answer with bytes.
func (x *session) cancel(req uint32) {
	b, err := frame(kindCancel, &cancel{Req: req})
	x.mu.Lock()
	defer x.mu.Unlock()
	r := x.pending[req]
	if r == nil || err != nil {
		return
	}
	if r.share != nil && r.chunks == nil {
		x.waiting--
	}
	x.pending[req] = nil
	x.control = append(x.control, b)
	x.wakeWriter()
}

// reply queues a short answer.
func (x *session) reply(kind byte, v any) error {
	b, err := frame(kind, v)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.control) >= maxControl {
		return fmt.Errorf("%w: %w", errViolation,
			&wire.LimitError{What: "answers it does not read", Limit: maxControl, Got: len(x.control) + 1})
	}
	x.control = append(x.control, b)
	x.wakeWriter()
	return nil
}

func (x *session) wakeWriter() {
	select {
	case x.kick <- struct{}{}:
	default:
	}
}

// deadlineStep is how old a deadline may be before a read moves it on: to set it at every record costs a tenth
// of what reading does.
const deadlineStep = time.Second

// deadline sets by when the next byte must come. x.mu is held.
func (x *session) deadline() {
	d := x.idle
	if len(x.pending) > x.waiting {
		d = silenceTime
	}
	now := time.Now()
	if d == x.wait && now.Sub(x.waitFrom) < deadlineStep {
		return
	}
	x.wait, x.waitFrom = d, now
	// An error here means that the stream is broken: the next read says so.
	_ = x.conn.SetReadDeadline(now.Add(d))
}

// Read reads from the stream, no faster than the caps allow, and moves the deadline on: an io.Reader for read alone.
func (x *session) Read(b []byte) (int, error) {
	x.mu.Lock()
	x.deadline()
	x.mu.Unlock()
	n, err := x.conn.Read(b[:x.s.ingress.piece(x.link, len(b))])
	x.s.ingress.take(x.link, n, false, x.done)
	return n, err
}

func (x *session) read() error {
	defer func() {
		if x.coming != nil {
			x.coming.raw.release()
		}
	}()
	r := bufio.NewReaderSize(x, 4<<10)
	for {
		kind, body, err := wire.ReadFrame(r, maxFrame)
		if err != nil {
			return x.readError(err)
		}
		x.s.stats.bytesIn.Add(int64(len(body)) + 5)
		if err := x.handle(kind, body, r); err != nil {
			return err
		}
	}
}

// readError says what a failed read means.
func (x *session) readError(err error) error {
	var limit *wire.LimitError
	if errors.As(err, &limit) {
		return fmt.Errorf("%w: %w", errViolation, err)
	}
	var slow net.Error
	if errors.As(err, &slow) && slow.Timeout() {
		x.mu.Lock()
		due := len(x.pending) - x.waiting
		x.mu.Unlock()
		if due > 0 {
			return fmt.Errorf("silent for %v with %d answers due", silenceTime, due)
		}
		return fmt.Errorf("idle for %v", x.idle)
	}
	return err
}

func (x *session) handle(kind byte, body []byte, r io.Reader) error {
	var err error
	switch kind {
	case kindWant:
		err = x.onWant(body)
	case kindData:
		return x.onData(body)
	case kindPart:
		return x.onPart(body, r)
	case kindRefuse:
		var f refuse
		if err = decode(body, &f); err == nil {
			err = x.onAnswer(f.Req, answer{refused: max(refusal(f.Why), 1), at: f.At})
		}
	case kindShare:
		err = x.onShare(body)
	case kindCancel:
		var f cancel
		if err = decode(body, &f); err == nil {
			err = x.onCancel(f.Req)
		}
	case kindTell:
		err = x.onTell(body)
	case kindMore:
		err = x.onMore(body)
	case kindBye:
		err = x.onBye(body)
	default:
		err = fmt.Errorf("frame of kind %d, unknown to %s", kind, Proto)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errViolation, err)
	}
	return nil
}

// onAnswer hands out an answer.
func (x *session) onAnswer(req uint32, a answer) error {
	x.mu.Lock()
	r, ok := x.pending[req]
	if r == nil {
		defer a.body.release() // nobody waits for it any more
	}
	if !ok {
		defer x.mu.Unlock()
		if x.ended {
			return nil
		}
		return fmt.Errorf("answer to request %d, which was not made", req)
	}
	delete(x.pending, req)
	if r != nil && r.share != nil && r.chunks == nil {
		x.waiting--
	}
	x.mu.Unlock()
	if r != nil {
		r.done(a)
	}
	return nil
}

// choose takes the peer's choice of what a share is.
func (x *session) choose(r *request, f *data) error {
	if r.share == nil {
		if len(f.Runs) > 0 {
			return fmt.Errorf("chunks chosen for request %d, which named them", f.Req)
		}
		return nil
	}
	chunks, err := r.share(f.Runs)
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.pending[f.Req] == r { // else the stream ended, or it was cancelled just now
		x.waiting--
	}
	r.chunks = chunks
	return nil
}

// check refuses an answer that is longer or shorter than what was asked for.
func (r *request) check(f *data) (absent bitset, err error) {
	if len(f.Absent) > 0 {
		if absent = parseBits(f.Absent, len(r.chunks)); absent == nil {
			return nil, fmt.Errorf("%d bytes of marks for %d chunks", len(f.Absent), len(r.chunks))
		}
	}
	if f.Plain > 0 && f.Bytes >= f.Plain {
		return nil, fmt.Errorf("packed answer of %d bytes for %d", f.Bytes, f.Plain)
	}
	var size int64
	for i, c := range r.chunks {
		if absent != nil && absent.has(i) {
			continue
		}
		if c.SizeBytes == 0 {
			if f.Bytes == 0 || f.Plain > 0 || f.Bytes > artifact.MaxRootBytes || len(r.chunks) != 1 {
				return nil, &wire.LimitError{What: "bytes of a root block", Limit: artifact.MaxRootBytes, Got: int(f.Bytes)}
			}
			return absent, nil
		}
		size += int64(c.SizeBytes)
	}
	if int64(f.size()) != size {
		return nil, fmt.Errorf("answer of %d bytes, want %d", f.size(), size)
	}
	return absent, nil
}
