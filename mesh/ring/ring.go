// Package ring keeps the members that gossip with each other: serf on a transport of our own over link.
//
// Nothing that comes by gossip has authority (SPEC 5): the ring says who seems alive, and hints.
package ring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/serf/serf"

	"meshd/mesh/id"
	"meshd/mesh/link"
	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

// MaxHint is the most bytes of a hint: larger events soon saturate the gossip of a whole ring.
const MaxHint = 100

// Config is what a Ring is made of. All fields without "optional" are required.
type Config struct {
	Link  *link.Link
	Self  *trust.Identity
	Cert  trust.Cert
	Label string // parts this ring from others of the mesh; members of a ring have one label

	// Root returns 8 bytes of the catalog root, to ride in ping acks. Called often; must not block.
	Root func() [8]byte
	// OnRoot is told the root in each ack that peer answers with. Must not block. Optional.
	OnRoot func(peer id.Node, root [8]byte)
	// OnHint is told each hint of the ring, own ones too, in no order, some never. It owns b, and must not
	// block. Optional.
	OnHint func(b []byte)
	// Aside keeps this node out of the ring until Enter: it answers no stream and no packet of it, and knows
	// no member.
	Aside bool
	// Known says whether a node is certified, so that it may be a member. Must not block and must not
	// call the Ring. Optional: the peer book of Link is asked.
	Known func(id.Node) bool

	Log  *slog.Logger
	Wall func() time.Time
}

// A Status is what the ring thinks of a member.
type Status string

// The ring tells no Suspect yet: serf shows a member that memberlist suspects as alive.
const (
	Alive  Status = "alive"
	Left   Status = "left"   // said goodbye
	Failed Status = "failed" // answers nobody
)

// A Member is one node of the ring, as far as this one heard.
type Member struct {
	ID     id.Node
	Status Status
	RTT    time.Duration // of the last ping; zero: none yet
	Root   [8]byte       // of the last ack; zero: none yet
	Since  time.Time     // when Status began here, by the wall clock
}

// A Ring is this node's part in the ring. Its methods are safe for concurrent use.
type Ring struct {
	cfg     Config
	self    id.Node
	changed chan struct{} // capacity 1; no data
	refusal chan struct{} // capacity 1: refused has a new entry; no data
	entered chan struct{} // capacity 1: term was set; no data

	mu      sync.Mutex
	term    *term // nil: aside
	heard   map[id.Node]heard
	refused map[id.Node]bool // certified nobody knew of when they were announced
}

// A term is one stay in the ring: a serf that left can't come back.
type term struct {
	transport *transport
	ctx       context.Context // ends with the term
	leave     context.CancelFunc
	ready     chan struct{} // closed when serf is set
	joining   chan struct{} // capacity 1: held by the join that serf works on

	serf  *serf.Serf     // guarded by Ring.mu; set once
	ended bool           // guarded by Ring.mu
	joins sync.WaitGroup // none is added once ended
}

// heard is what events and acks told of one member.
type heard struct {
	rtt   time.Duration
	root  [8]byte
	since time.Time
}

// Limits of the ring's own work.
const (
	maxRefused   = 1024             // refused nodes that are looked at again
	refusedPause = time.Second      // between two looks
	eventQueue   = 1024             // serf's events; one goroutine takes them at once
	joinLimit    = 10 * time.Second // one Join
	warmLimit    = 2 * time.Second  // a dial before a join
)

// Settle is how long probes and timers of serf and memberlist may outlive Run. They wait for the clock
// alone and touch nothing of ours, but the clock of a synctest bubble stops with the test's function: let
// that sleep Settle, in virtual time, after its last ring ended.
const Settle = 40 * time.Second

// New registers the ring with its link; it comes before the link runs. The ring begins in Run.
func New(cfg Config) (*Ring, error) {
	if len(cfg.Label) > maxLabel {
		return nil, fmt.Errorf("make the ring: label %q: %w", cfg.Label,
			&wire.LimitError{What: "bytes of the label", Limit: maxLabel, Got: len(cfg.Label)})
	}
	r := &Ring{
		cfg: cfg, self: cfg.Self.ID(),
		changed: make(chan struct{}, 1), refusal: make(chan struct{}, 1), entered: make(chan struct{}, 1),
		heard: map[id.Node]heard{}, refused: map[id.Node]bool{},
	}
	cfg.Link.Handle(protoRing, r.serve)
	cfg.Link.HandlePacket(kindRing, r.receive)
	cfg.Link.HandlePacket(kindPing, r.receivePing)
	if !cfg.Aside {
		r.Enter()
	}
	return r, nil
}

// Enter takes part in the ring, alone until a Join. It does nothing where this node is in it, or about to
// leave: call it again.
func (r *Ring) Enter() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.term != nil {
		return
	}
	t := &term{
		transport: newTransport(r.cfg.Link, r.self, r.cfg.Label), ready: make(chan struct{}), joining: make(chan struct{}, 1),
	}
	t.ctx, t.leave = context.WithCancel(context.Background())
	r.term = t
	notify(r.entered)
}

// Leave says goodbye and stays aside until Enter. It does not wait for it.
func (r *Ring) Leave() {
	if t := r.current(); t != nil {
		t.leave()
	}
}

// current is the term under way; nil: aside.
func (r *Ring) current() *term {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.term
}

// Run keeps this node in the ring, alone at first, from Enter to Leave, until ctx ends. It then leaves, within
// a second, and returns when its transport is down and Joins have returned. A few goroutines of serf and
// memberlist outlive it for at most Settle; a daemon need not wait for them.
func (r *Ring) Run(ctx context.Context) error {
	for {
		t := r.current()
		if t == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-r.entered:
			}
			continue
		}
		stop := context.AfterFunc(ctx, t.leave)
		err := r.stay(t)
		stop()
		if err != nil || ctx.Err() != nil {
			return err
		}
		r.mu.Lock()
		r.term = nil
		clear(r.heard)
		clear(r.refused)
		r.mu.Unlock()
		notify(r.changed)
	}
}

// stay is one term.
func (r *Ring) stay(t *term) error {
	events := make(chan serf.Event, eventQueue)
	s, err := serf.Create(r.settings(t.transport, events))
	if err != nil {
		return errors.Join(fmt.Errorf("start the ring: %w", err), t.transport.Shutdown())
	}
	r.mu.Lock()
	t.serf = s
	r.mu.Unlock()
	close(t.ready)

	var own sync.WaitGroup
	down := make(chan struct{})
	own.Go(func() { r.drain(events, down) })
	own.Go(func() { r.reconsider(t.ctx) })

	<-t.ctx.Done()
	err = s.Leave()
	err = errors.Join(err, s.Shutdown())
	r.mu.Lock()
	t.ended = true
	r.mu.Unlock()
	t.joins.Wait()
	close(down)
	own.Wait()
	return err
}

// errAside is wrapped where this node takes no part in the ring.
var errAside = errors.New("this node is not in it")

// Join brings this ring together with those that peers are in and returns how many of them answered. All
// are dialled at once; those that do not answer within 2 s are left out. It waits for Run to begin.
func (r *Ring) Join(ctx context.Context, peers []id.Node) (joined int, err error) {
	t := r.current()
	if t == nil {
		return 0, fmt.Errorf("join the ring: %w", errAside)
	}
	select {
	case <-t.ready:
	case <-t.ctx.Done():
		return 0, fmt.Errorf("join the ring: it has ended: %w", net.ErrClosed)
	case <-ctx.Done():
		return 0, fmt.Errorf("join the ring: it does not run yet: %w", ctx.Err())
	}
	r.mu.Lock()
	if t.ended {
		r.mu.Unlock()
		return 0, fmt.Errorf("join the ring: it has ended: %w", net.ErrClosed)
	}
	t.joins.Add(1)
	r.mu.Unlock()
	type result struct {
		n   int
		err error
	}
	done := make(chan result, 1)
	go func() {
		defer t.joins.Done()
		n, err := t.join(ctx, peers)
		done <- result{n, err}
	}()
	select {
	case res := <-done:
		return res.n, res.err
	case <-ctx.Done():
		return 0, fmt.Errorf("join the ring: %w", ctx.Err())
	}
}

func (t *term) join(ctx context.Context, peers []id.Node) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, joinLimit)
	defer cancel()
	reached, err := t.transport.warm(ctx, peers)
	defer t.transport.cool(reached)
	if len(reached) == 0 {
		return 0, fmt.Errorf("join the ring: none of %d peers answers: %w", len(peers), err)
	}
	names := make([]string, len(reached))
	for i, n := range reached {
		names[i] = name(n) + "/" + address(n)
	}
	// One at a time: serf holds a mutex through a join, and whoever waits for that hears no ctx.
	select {
	case t.joining <- struct{}{}:
		defer func() { <-t.joining }()
	case <-ctx.Done():
		return 0, fmt.Errorf("join the ring: other joins took %v: %w", joinLimit, ctx.Err())
	}
	// Old events are ignored: they are hints, and whoever joins has just compared catalogs.
	n, err := t.serf.Join(names, true)
	if err != nil {
		return n, fmt.Errorf("join the ring: %w", err)
	}
	return n, nil
}

// Members returns all that the ring knows of, this node too, in order of their ids; none before Run, and
// none aside.
// Members that left or failed stay for 24 hours.
func (r *Ring) Members() []Member {
	s := r.running()
	if s == nil {
		return nil
	}
	all := s.Members()
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Member, 0, len(all))
	for _, m := range all {
		n, err := parseName(m.Name)
		if err != nil {
			continue // the Alive delegate lets none in
		}
		h := r.heard[n]
		member := Member{ID: n, RTT: h.rtt, Root: h.root, Since: h.since}
		switch m.Status {
		case serf.StatusAlive:
			member.Status = Alive
		case serf.StatusLeaving, serf.StatusLeft:
			member.Status = Left
		default:
			member.Status = Failed
		}
		if n == r.self {
			member.Root = r.cfg.Root()
		}
		out = append(out, member)
	}
	slices.SortFunc(out, func(a, b Member) int { return a.ID.Compare(b.ID) })
	return out
}

// running is the serf of the term under way; nil where there is none, or it has ended.
func (r *Ring) running() *serf.Serf {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.term == nil || r.term.ended {
		return nil
	}
	return r.term.serf
}

// Hint tells all members b, at most MaxHint bytes, unless they miss it. OnHint hears it here too.
func (r *Ring) Hint(b []byte) error {
	if len(b) > MaxHint {
		return fmt.Errorf("hint to the ring: %w", &wire.LimitError{What: "bytes of a hint", Limit: MaxHint, Got: len(b)})
	}
	s := r.running()
	if s == nil {
		return fmt.Errorf("hint to the ring: it does not run: %w", net.ErrClosed)
	}
	if err := s.UserEvent(hintName, slices.Clone(b), false); err != nil {
		return fmt.Errorf("hint to the ring: %w", err)
	}
	return nil
}

// Changed is kicked when a member came, left, failed or was forgotten: look at Members.
func (r *Ring) Changed() <-chan struct{} { return r.changed }

// hintName names the one user event; others of the ring are not ours.
const hintName = "h"

// drain takes serf's events at once, for a serf whose events nobody takes stops, and records them.
func (r *Ring) drain(events <-chan serf.Event, down <-chan struct{}) {
	for {
		select {
		case <-down:
			return
		case e := <-events:
			switch e := e.(type) {
			case serf.MemberEvent:
				r.turned(e)
			case serf.UserEvent:
				if e.Name == hintName && len(e.Payload) <= MaxHint && r.cfg.OnHint != nil {
					r.cfg.OnHint(slices.Clone(e.Payload))
				}
			}
		}
	}
}

// turned records since when members are what they are.
func (r *Ring) turned(e serf.MemberEvent) {
	now := r.cfg.Wall()
	r.mu.Lock()
	for _, m := range e.Members {
		n, err := parseName(m.Name)
		if err != nil {
			continue
		}
		if e.Type == serf.EventMemberReap {
			delete(r.heard, n)
			continue
		}
		h := r.heard[n]
		h.since = now
		r.heard[n] = h
	}
	r.mu.Unlock()
	notify(r.changed)
}

// reconsider joins nodes that were refused for want of a certificate once that is known: gossip would tell
// of them again only with the next exchange of states, half a minute later.
func (r *Ring) reconsider(ctx context.Context) {
	timer := time.NewTimer(refusedPause)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.refusal:
		case <-timer.C:
		}
		var ready []id.Node
		r.mu.Lock()
		all := make([]id.Node, 0, len(r.refused))
		for n := range r.refused {
			all = append(all, n)
		}
		r.mu.Unlock()
		for _, n := range all {
			if r.known(n) {
				ready = append(ready, n)
			}
		}
		r.mu.Lock()
		for _, n := range ready {
			delete(r.refused, n)
		}
		waiting := len(r.refused) > 0
		r.mu.Unlock()
		if len(ready) > 0 {
			if _, err := r.Join(ctx, ready); err != nil && ctx.Err() == nil {
				r.cfg.Log.Debug("newly certified nodes could not be joined", "error", err)
			}
		}
		if waiting {
			timer.Reset(refusedPause)
		}
	}
}

func (r *Ring) known(n id.Node) bool {
	if r.cfg.Known != nil {
		return r.cfg.Known(n)
	}
	p, ok := r.cfg.Link.Peer(n)
	return ok && p.Cert != nil
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
