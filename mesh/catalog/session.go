package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// Limits of a session's waits and queues.
const (
	keepAlive  = 60 * time.Second // roots are compared this often, so a live peer is never silent for longer
	silences   = 3                // times its pace, after which a silent peer is given up
	silenceMax = silences * keepAlive
	writeMax   = 60 * time.Second // for one frame
	maxPushes  = 4096             // new records that wait for a slow peer, then a later comparison brings them
	maxControl = 256              // frames that wait to be sent, pages not counted
	maxRounds  = 3                // comparisons in a row that leave the roots unlike, then the next kick decides
	maxAsked   = 1 << 18          // logs that a peer may ask for at once
)

// phase is where a session stands in a comparison.
type phase uint8

const (
	idle      phase = iota
	asked           // sent root: same or buckets come
	serving         // sent heads: want, pages and done come, then own done goes out
	comparing       // sent buckets: heads come
	awaiting        // sent want, pages and done: the peer's pages and done come
)

// A session keeps one peer's catalog and this one equal over one stream. The goroutine in Session reads
// and merges, one more writes; the reader never waits for the writer, so two sessions that both have much
// to say do not block each other.
type session struct {
	c    *Catalog
	peer id.Node
	conn net.Conn
	pace time.Duration // between comparisons with no other reason

	// The reader owns these.
	heads   []head // that came so far
	touched map[LogID]bool
	flow    *entry // the last record that came of what was asked for

	mu      sync.Mutex
	phase   phase
	view    view   // of the comparison that runs
	listed  []line // that this side sent; the peer asks for them by number
	wanted  int    // the last of them that it asked for; -1
	again   bool   // compare once more when idle
	unlike  bool   // and the roots are known to differ: begin with buckets
	rounds  int    // in a row that left the roots unlike
	control []frame
	tasks   []task
	pushes  []*entry
	proofs  []proof // of forks; they wait for a comparison to end, which brings the keys
	met     bool    // one did
	done    bool    // send done when nothing else waits

	waiting bool              // for the turn to compare; owned by the writer
	flushed []chan<- struct{} // closed when no push waits any more
	over    bool              // none will be sent

	kick chan struct{} // capacity 1: the writer looks again
}

// Session makes this catalog and the peer's equal and then keeps them so: each new record goes to the
// other side at once, and roots are compared every minute and on Kick. It returns when conn or ctx ends,
// with nil if that was all, and closes conn. The peer at the other end of conn was verified by the caller;
// peer only names it.
//
// What breaks a limit or a signature ends the session with an error that says so, and is counted.
func (c *Catalog) Session(ctx context.Context, conn net.Conn, peer id.Node) error {
	return c.PacedSession(ctx, conn, peer, keepAlive)
}

// PacedSession is Session with comparisons at another pace; both ends must have the same.
func (c *Catalog) PacedSession(ctx context.Context, conn net.Conn, peer id.Node, pace time.Duration) error {
	s := &session{c: c, peer: peer, conn: conn, pace: pace, touched: map[LogID]bool{}, kick: make(chan struct{}, 1)}
	outer := ctx
	ctx, cancel := context.WithCancel(outer)
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		_ = conn.Close()
		close(closed)
	})
	if err := c.lift(peer); err != nil {
		cancel()
		<-closed
		return fmt.Errorf("sync with %s: %w", peer.Short(), err)
	}
	c.mu.Lock()
	c.sessions[s] = true
	c.mu.Unlock()
	s.prove(c.proofs()...)
	if c.self.Compare(peer) < 0 {
		s.compareSoon()
	}
	written := make(chan error, 1)
	go func() {
		err := s.write(ctx)
		cancel()
		written <- err
	}()
	err := s.read()
	over := outer.Err() != nil
	cancel()
	werr := <-written
	<-closed
	s.tellFlushed(true)
	c.endTurn(s)
	c.mu.Lock()
	delete(c.sessions, s)
	if errors.Is(err, errPeer) {
		c.stats.Refused++
	}
	c.mu.Unlock()
	switch {
	case errors.Is(err, errPeer):
	case over:
		return nil
	case werr != nil && !ended(werr):
		err = werr
	case ended(err):
		return nil
	}
	return fmt.Errorf("sync with %s: %w", peer.Short(), err)
}

// ended reports whether a stream's error says no more than that an end of it was closed.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe)
}

// errPeer marks what the peer is to blame for.
var errPeer = errors.New("the peer broke the protocol")

func blame(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", errPeer, err)
}

// read handles frames until the stream ends.
func (s *session) read() error {
	for {
		if err := s.conn.SetReadDeadline(time.Now().Add(s.pace * silences)); err != nil {
			return err
		}
		kind, body, err := wire.ReadFrame(s.conn, maxFrameBytes)
		var limit *wire.LimitError
		switch {
		case errors.As(err, &limit):
			return blame(err)
		case err != nil:
			return err
		}
		if err := s.handle(kind, body); err != nil {
			return err
		}
	}
}

func (s *session) handle(kind byte, body []byte) error {
	switch kind {
	case frameRoot:
		f, err := decodeFrame[rootFrame](body)
		if err != nil {
			return blame(err)
		}
		return s.onRoot(f.Root)
	case frameSame:
		if _, err := decodeFrame[sameFrame](body); err != nil {
			return blame(err)
		}
		return s.onSame()
	case frameBuckets:
		f, err := decodeBuckets(body)
		if err != nil {
			return blame(err)
		}
		return s.onBuckets(f)
	case frameHeads:
		s.mu.Lock()
		bits := s.view.bits
		s.mu.Unlock()
		f, lines, err := decodeHeads(body, bits)
		if err != nil {
			return blame(err)
		}
		return s.onHeads(f, lines)
	case frameWant:
		f, err := decodeFrame[wantFrame](body)
		if err != nil {
			return blame(err)
		}
		return s.onWant(f.Lines)
	case framePage:
		f, err := decodeFrame[pageFrame](body)
		if err != nil {
			return blame(err)
		}
		return s.onPage(f)
	case frameDone:
		f, err := decodeFrame[doneFrame](body)
		if err != nil {
			return blame(err)
		}
		return s.onDone(f.Root)
	case frameGraves:
		graves, err := decodeGraves(body)
		if err != nil {
			return blame(err)
		}
		return s.c.inter(graves)
	case frameFork:
		f, err := decodeFrame[forkFrame](body)
		if err != nil {
			return blame(err)
		}
		return blame(s.c.heardProof(proof(f)))
	}
	return blame(fmt.Errorf("%w: frame of kind %d", ErrMalformed, kind))
}

// onRoot answers a peer that asks to compare. When both asked at once, the lower id's question stands, and
// buckets stand over a root.
func (s *session) onRoot(root artifact.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase == asked && s.c.self.Compare(s.peer) < 0 || s.phase == comparing && len(s.heads) == 0 {
		return nil
	}
	if s.phase != idle && s.phase != asked {
		return s.unexpected(frameRoot)
	}
	s.c.mu.RLock()
	same := root == s.c.set.root.digest()
	s.c.mu.RUnlock()
	if same {
		s.phase = idle
		s.rounds = 0
		s.c.endTurn(s)
		s.compared()
		s.c.agreed.Add(1)
		return s.queue(frameSame, &sameFrame{})
	}
	f, err := s.ask()
	if err != nil {
		return err
	}
	return s.queue(frameBuckets, f)
}

// ask begins a comparison of buckets. Whoever calls it holds s.mu.
func (s *session) ask() (*bucketsFrame, error) {
	s.phase = comparing
	s.heads = nil
	if _, err := io.ReadFull(s.c.cfg.Rand, s.view.salt[:]); err != nil {
		return nil, fmt.Errorf("salt a comparison: %w", err)
	}
	s.c.mu.RLock()
	defer s.c.mu.RUnlock()
	s.view.bits = bucketBits(len(s.c.set.order) + len(s.c.set.graves))
	return &bucketsFrame{s.view.salt, uint8(s.view.bits), s.c.set.buckets(s.view)}, nil
}

func (s *session) onSame() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != asked {
		return s.unexpected(frameSame)
	}
	s.phase = idle
	s.rounds = 0
	s.c.endTurn(s)
	s.compared()
	s.c.agreed.Add(1)
	s.wake()
	return nil
}

// compared notes that all that the peer has was compared, or sent, and so all it knows of the own logs.
// Whoever calls it holds s.mu.
func (s *session) compared() {
	s.met = true
	s.c.once.Do(func() { close(s.c.checked) })
}

func (s *session) onBuckets(f bucketsFrame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.phase == comparing && len(s.heads) == 0 && s.c.self.Compare(s.peer) < 0:
		return nil // both asked at once
	case s.phase == comparing && len(s.heads) == 0:
	case s.phase != idle && s.phase != asked:
		return s.unexpected(frameBuckets)
	}
	s.phase = serving
	s.view = view{f.Salt, int(f.Bits)}
	s.wanted = -1
	s.c.mu.RLock()
	unlike := s.c.set.unlike(s.view, f.Hashes)
	s.listed = s.c.set.lines(s.view, unlike)
	s.c.mu.RUnlock()
	lines := s.listed
	for len(lines) > linesPerFrame {
		if err := s.queue(frameHeads, &headsFrame{Lines: packHeads(lines[:linesPerFrame])}); err != nil {
			return err
		}
		lines = lines[linesPerFrame:]
	}
	return s.queue(frameHeads, &headsFrame{packHeads(lines), true, unlike})
}

func (s *session) onHeads(f headsFrame, heads []head) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != comparing {
		return s.unexpected(frameHeads)
	}
	if s.heads = append(s.heads, heads...); len(s.heads) > maxLines {
		return blame(&wire.LimitError{What: "logs in a comparison", Limit: maxLines, Got: len(s.heads)})
	}
	if !f.Last {
		return nil
	}
	s.c.mu.RLock()
	wants, tasks := diff(s.c.set.lines(s.view, f.Unlike), s.heads)
	s.c.mu.RUnlock()
	s.heads = nil
	s.phase = awaiting
	if len(wants) > 0 && !s.c.takeTurn(s) {
		wants = nil // another session is bringing much of it
		s.again, s.rounds = true, 0
	}
	last := -1
	for len(wants) > 0 {
		n := min(len(wants), linesPerFrame)
		if err := s.queue(frameWant, &wantFrame{packWants(wants[:n], last)}); err != nil {
			return err
		}
		last = wants[n-1].line
		wants = wants[n:]
	}
	s.tasks = append(s.tasks, nodesFirst(tasks)...)
	s.done = true
	s.wake()
	return nil
}

func (s *session) onWant(packed []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != serving {
		return s.unexpected(frameWant)
	}
	wants, err := unpackWants(packed, s.wanted, len(s.listed))
	if err != nil {
		return blame(err)
	}
	for _, w := range wants {
		s.wanted = w.line
		s.tasks = append(s.tasks, s.listed[w.line].task(w.from))
	}
	s.tasks = nodesFirst(s.tasks)
	s.wake()
	return nil
}

// onPage merges records. The peer has them, so they are no longer pushed to it.
func (s *session) onPage(f pageFrame) error {
	page, err := decodePage(f.Records)
	if err != nil {
		return blame(err)
	}
	had := make(map[[32]byte]bool, len(page))
	for _, in := range page {
		had[in.hash] = true
		s.touched[in.rec.Log] = true
	}
	s.c.useTurn(s)
	s.mu.Lock()
	s.pushes = deleteEntries(s.pushes, had)
	asking := s.phase == serving || s.phase == awaiting
	s.mu.Unlock()
	if !f.Asked {
		return s.c.merge(page, nil, s)
	}
	if !asking {
		return blame(fmt.Errorf("%w: records as if they had been asked for", ErrMalformed))
	}
	for _, in := range page {
		if err := s.follow(in.entry); err != nil {
			return blame(err)
		}
	}
	return s.c.merge(page, s.flow, s)
}

// follow holds what was asked for against the order that makes a cursor true.
func (s *session) follow(e *entry) error {
	if f := s.flow; f != nil && *f.log == *e.log && e.log.Scope == ScopeMain && e.seq < f.seq {
		return fmt.Errorf("%w: record %d of %s comes after %d", ErrMalformed, e.seq, e.log, f.seq)
	}
	s.flow = &entry{log: &e.rec.Log, seq: e.seq}
	return nil
}

// onDone ends a comparison: at once for who asked with want, after an own done for the other.
func (s *session) onDone(root artifact.Digest) error {
	s.c.endTurn(s)
	short := s.c.judge(s.touched, s.peer)
	clear(s.touched)
	s.flow = nil
	if short > 0 { // what this peer holds back the others may have
		for _, o := range s.c.others(s) {
			o.compareSoon()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.phase {
	case serving:
		s.done = true // the phase ends when it is sent
		s.listed = nil
		s.compared()
	case awaiting:
		s.phase = idle
		s.compared()
		switch {
		case root == s.c.Root():
			s.rounds = 0
		case s.rounds < maxRounds:
			s.rounds++
			s.again = true
		}
	default:
		return s.unexpected(frameDone)
	}
	s.wake()
	return nil
}

func (s *session) unexpected(kind byte) error {
	return blame(fmt.Errorf("%w: frame of kind %d out of place (phase %d)", ErrMalformed, kind, s.phase))
}
