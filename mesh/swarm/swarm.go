// Package swarm moves the bytes of artifacts between nodes: what to ask whom, pull and serve.
//
// Nodes speak over one framed stream a pair, on which both ask and both serve. The unit of transfer is
// an extent, a run of chunks; the unit of trust is the chunk, which is hashed once, in the buffer it
// came in, before anything else sees it.
package swarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"meshd/mesh/id"
	"meshd/store/artifact"
)

// Proto is the protocol name under which link carries swarm streams.
const Proto = "meshd/swarm/4"

const (
	dialTime        = 10 * time.Second // for a peer to take a stream
	banTime         = 10 * time.Minute // that a liar is not asked again (SPEC 8)
	maxBans         = 1024             // liars remembered; the one whose ban ends first is forgotten
	maxPeerSessions = 4                // streams with one peer; more than one when both dial at once
)

// ErrClosed is returned by Pull once Run has ended.
var ErrClosed = errors.New("the swarm is closed")

var errSilent = errors.New("nothing came on it lately, and the peer or this node may be somewhere else now")

// Chunks is what the swarm needs of a store: bytes by their digest. Its methods are called from many
// goroutines at once.
type Chunks interface {
	// Missing returns those of chunks that are not here, in order.
	Missing(chunks []artifact.Chunk) ([]artifact.Chunk, error)
	// Read returns the bytes of one chunk, in the memory of buf where its capacity allows. The swarm
	// passes a buf of length 0.
	Read(id artifact.Digest, buf []byte) ([]byte, error)
	// Write keeps chunks; durable on return. It keeps none of the slices. The swarm has verified the
	// chunks, and passes at most 8 MiB at once.
	Write(chunks [][]byte) error
}

// BatchChunks is a Chunks that takes many writes before it makes them durable, so that a transfer holds no more
// in memory than is under way. It is told the digests, which the swarm has just computed: hashing twice costs a
// third of a transfer again.
type BatchChunks interface {
	Chunks
	Begin() artifact.Batch
}

// ManifestChunks is a Chunks that is told what a pull is about to bring, once that is verified and before the first
// byte of content comes. It may keep the entries, and changes none.
type ManifestChunks interface {
	Chunks
	Known(root artifact.Digest, head artifact.Root, entries []artifact.Entry)
}

// Config is what a Swarm is made of. All fields without "optional" are required.
type Config struct {
	// Self is never asked, even if it is among the holders. Optional.
	Self id.Node
	// Open opens a stream of Proto to a peer whose key has been verified.
	Open   func(ctx context.Context, to id.Node) (net.Conn, error)
	Chunks Chunks
	// Allow says whether peer may have the artifact with that root, which was made by that node. It is asked for
	// every request, from many goroutines, and must be quick.
	Allow func(peer id.Node, root artifact.Digest, maker id.Node) bool
	Log   *slog.Logger // optional
	// Wall tells people when a ban ends; waits use package time. Optional.
	Wall func() time.Time
	Seed uint64 // of where pulls begin
}

// A Swarm pulls artifacts from peers and serves them to peers. Its methods are safe for concurrent
// use.
type Swarm struct {
	cfg       Config
	log       *slog.Logger
	stats     counters
	buffers   buffers
	packer    packer
	manifests manifests
	egress    throttle
	ingress   throttle
	desks     desks

	wg sync.WaitGroup // sessions and pulls

	mu       sync.Mutex
	sessions map[id.Node][]*session // oldest first
	dialling map[id.Node]*dial
	pulls    map[pullKey]*pull
	bans     map[id.Node]ban
	closed   bool
}

type ban struct {
	until time.Time // of package time
	shown Ban
}

// A dial is one attempt to open a stream; whoever wants the peer meanwhile waits for it.
type dial struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when x and err are set
	x      *session
	err    error
}

// New returns a Swarm. Run must be called for its goroutines to be waited for.
func New(cfg Config) *Swarm {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Wall == nil {
		cfg.Wall = time.Now
	}
	return &Swarm{
		cfg: cfg, log: cfg.Log, sessions: map[id.Node][]*session{}, dialling: map[id.Node]*dial{},
		pulls: map[pullKey]*pull{}, bans: map[id.Node]ban{},
	}
}

// Run waits for ctx to end, then closes all streams, ends all pulls, and returns when nothing of the
// swarm runs any more.
func (s *Swarm) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.closed = true
	var open []*session
	for _, of := range s.sessions {
		open = append(open, of...)
	}
	for _, p := range s.pulls {
		p.cancel(ErrClosed)
	}
	for _, d := range s.dialling {
		d.cancel()
	}
	s.mu.Unlock()
	var closing sync.WaitGroup // a TLS farewell takes up to 5 s to a peer that does not read
	for _, x := range open {
		closing.Go(func() { x.end(ErrClosed) })
	}
	closing.Wait()
	s.wg.Wait()
	return nil
}

// ServeConn speaks with peer over c, which link has verified, until the stream or ctx ends; c is
// closed on return. Pulls of this node use the stream too.
func (s *Swarm) ServeConn(ctx context.Context, peer id.Node, c net.Conn) {
	x := newSession(s, peer, c, idleTime)
	if err := s.adopt(x); err != nil {
		s.log.Debug("stream refused", "peer", peer.Short(), "why", err)
		c.Close()
		return
	}
	defer s.wg.Done()
	s.keep(ctx, x)
}

// Has reports whether all bytes of the artifact are here, its manifest included.
func (s *Swarm) Has(root artifact.Digest) (bool, error) {
	m, err := s.manifests.get(s.cfg.Chunks, root)
	if err != nil {
		return false, nil // no manifest that can be read: it is to be fetched
	}
	for _, list := range [][]artifact.Chunk{m.others, m.chunks} {
		if lack, err := missing(s.cfg.Chunks, list); err != nil || lack.count() > 0 {
			return false, err
		}
	}
	return true, nil
}

// Kick makes all pulls call their holders functions soon: something about them may have changed.
// It never blocks.
func (s *Swarm) Kick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pulls {
		p.post(func() { p.lookAt = time.Time{} })
	}
}

// adopt makes x one of the streams with its peer, and counts it in wg.
func (s *Swarm) adopt(x *session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if n := len(s.sessions[x.peer]); n >= maxPeerSessions {
		return fmt.Errorf("%d streams with this peer are open, limit %d", n, maxPeerSessions)
	}
	s.sessions[x.peer] = append(s.sessions[x.peer], x)
	s.wg.Add(1)
	return nil
}

// keep runs an adopted session to its end.
func (s *Swarm) keep(ctx context.Context, x *session) {
	err := x.run(ctx)
	s.mu.Lock()
	left := slices.DeleteFunc(s.sessions[x.peer], func(o *session) bool { return o == x })
	if len(left) == 0 {
		delete(s.sessions, x.peer)
	} else {
		s.sessions[x.peer] = left
	}
	for _, p := range s.pulls {
		p.post(func() { p.gone(x, err) })
	}
	s.mu.Unlock()
	s.desks.gone(x)
	if errors.Is(err, errViolation) {
		s.stats.violations.Add(1)
		s.ban(x.peer, err)
		return
	}
	s.log.Debug("stream ended", "peer", x.peer.Short(), "why", err)
}

// open returns an open stream with peer, or nil.
func (s *Swarm) open(peer id.Node) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if open := s.sessions[peer]; len(open) > 0 {
		return open[len(open)-1]
	}
	return nil
}

// session returns an open stream with peer, or opens one.
func (s *Swarm) session(ctx context.Context, peer id.Node) (*session, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, ErrClosed
	}
	if open := s.sessions[peer]; len(open) > 0 {
		s.mu.Unlock()
		return open[len(open)-1], nil
	}
	d := s.dialling[peer]
	if d == nil {
		// The stream outlives the pull that asks for it.
		own := context.WithoutCancel(ctx)
		timed, cancel := context.WithTimeout(own, dialTime)
		d = &dial{cancel: cancel, done: make(chan struct{})}
		s.dialling[peer] = d
		s.wg.Go(func() { s.dial(own, timed, peer, d) }) // not closed: Run has not come to wait yet
	}
	s.mu.Unlock()
	select {
	case <-d.done:
		return d.x, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// dial opens a stream, tells those who wait for it, and speaks on it until it ends.
func (s *Swarm) dial(ctx, timed context.Context, peer id.Node, d *dial) {
	c, err := s.cfg.Open(timed, peer)
	d.cancel()
	if err == nil {
		d.x = newSession(s, peer, c, dialledIdle)
		if err = s.adopt(d.x); err != nil {
			c.Close()
		}
	}
	d.err = err
	s.mu.Lock()
	delete(s.dialling, peer)
	s.mu.Unlock()
	close(d.done)
	if err == nil {
		defer s.wg.Done()
		s.keep(ctx, d.x)
	}
}

// ban ends all streams with a peer that lied, and has it not asked again for banTime.
func (s *Swarm) ban(peer id.Node, why error) {
	b := ban{until: time.Now().Add(banTime), shown: Ban{Node: peer, Why: why.Error(), Until: s.cfg.Wall().Add(banTime)}}
	s.mu.Lock()
	before, again := s.bans[peer]
	again = again && time.Now().Before(before.until)
	if !again && len(s.bans) >= maxBans {
		first := peer
		for n, o := range s.bans {
			if first == peer || o.until.Before(s.bans[first].until) {
				first = n
			}
		}
		delete(s.bans, first)
	}
	s.bans[peer] = b
	open := slices.Clone(s.sessions[peer])
	s.mu.Unlock()
	if !again { // else it was told, and who is banned can dial us as often as it likes
		s.log.Warn("peer banned from the swarm", "peer", peer, "for", banTime, "why", why)
	}
	for _, x := range open {
		x.end(why)
	}
}

// DropSilent ends the streams with a peer on which nothing came since then; what was asked on them is asked again on
// new ones. It is for whoever learned that the peer or this node is at another address now, or was away: those streams
// may lead nowhere, and would be given up only when an answer is long due.
func (s *Swarm) DropSilent(peer id.Node, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for _, x := range s.sessions[peer] {
		if h, ok := x.conn.(interface{ LastHeard() time.Time }); !ok || h.LastHeard().Before(since) {
			s.wg.Go(func() { x.end(errSilent) })
		}
	}
}

// banned says whether a peer is not to be asked, and what it did.
func (s *Swarm) banned(peer id.Node) (why string, banned bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.bans[peer]
	if ok && !time.Now().Before(b.until) {
		delete(s.bans, peer)
		return "", false
	}
	return b.shown.Why, ok
}
