package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"meshd/agent/promise"
	"meshd/mesh"
	"meshd/mesh/id"
	"meshd/policies"
)

// Limits of a node that runs once (SPEC 4).
const (
	onceAttach = 30 * time.Second       // for a peer to answer
	onceQuiet  = 2 * time.Second        // without news: longer than members take to settle
	onceLook   = 100 * time.Millisecond // between two looks
	onceLimit  = 15 * time.Minute       // in all
	onceCopy   = 20 * time.Second       // without one more copy made: whoever should make it can't now
	onceNames  = 10                     // artifacts told by name that have none
)

// ErrNotKept is wrapped when a node that ran once could not keep all it promised.
var ErrNotKept = errors.New("not kept")

// ErrNoPeer is wrapped when a node that ran once, and knows others, met none.
var ErrNoPeer = errors.New("no peer answers")

// once waits until this node has converged, then ends it: a peer knows all it knows, nothing is left to do,
// nothing was news for onceQuiet, and of what it offers somebody else has the bytes too, or it is told that not.
func (a *Agent) once(ctx context.Context, end func()) error {
	alone := a.mesh.KnowsOthers() && !a.attach(ctx)
	limit := time.Now().Add(onceLimit)
	ticker := time.NewTicker(onceLook)
	defer ticker.Stop()
	var was onceState
	var since time.Time
	var agreed uint64
	for {
		is, err := a.onceState(ctx)
		if err != nil {
			return nil // the node stops for another reason
		}
		now := time.Now()
		if is.news != was.news || since.IsZero() {
			was, since, agreed = is, now, a.mesh.Stats().Catalog.Agreed
		}
		quiet := len(is.busy) == 0 && now.Sub(since) >= onceQuiet
		if quiet && a.mesh.KnowsOthers() && !alone && a.mesh.Stats().Catalog.Agreed == agreed {
			a.mesh.Compare() // what was made here has to be known elsewhere
			quiet = false
		}
		if quiet {
			if !alone && a.mesh.KnowsOthers() {
				a.tellUncopied(a.handOver(ctx, a.ownOffers(), onceLook))
			}
			if err := onceResult(is, alone); err != nil {
				return err
			}
			end()
			return nil
		}
		if now.After(limit) {
			return fmt.Errorf("%w within %v: still busy with %s", ErrNotKept, onceLimit, orNothing(is.busy))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// ownOffers is what this node offers of its own.
func (a *Agent) ownOffers() (own []offered) {
	for _, o := range a.supply.offers("") {
		if o.ref.Version.By == a.mesh.Self() {
			own = append(own, o)
		}
	}
	return own
}

// handOver waits until these of this node's own offers have a copy elsewhere, looking so often, and returns what has
// none: nobody who is there may have it, or nobody made one for onceCopy.
func (a *Agent) handOver(ctx context.Context, uncopied []offered, every time.Duration) []offered {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for last := time.Now(); len(uncopied) > 0 && time.Since(last) < onceCopy; {
		before := len(uncopied)
		could := false
		uncopied = slices.DeleteFunc(uncopied, func(o offered) bool {
			copies := a.copiesOf(o)
			could = could || len(copies) > 0
			return slices.ContainsFunc(copies, func(n id.Node) bool { return a.has(ctx, n, o) })
		})
		if len(uncopied) < before {
			last = time.Now()
		}
		if !could {
			return uncopied
		}
		select {
		case <-ctx.Done():
			return uncopied
		case <-ticker.C:
		}
	}
	return uncopied
}

// has asks a node whether it holds all bytes of o.
func (a *Agent) has(ctx context.Context, n id.Node, o offered) bool {
	answer, err := a.mesh.Ask(ctx, n, mesh.Question{Kind: mesh.AskHave, Subject: o.ref.Root.String()})
	return err == nil && answer.Has
}

// tellUncopied says what would be lost with this machine.
func (a *Agent) tellUncopied(list []offered) {
	if len(list) == 0 {
		return
	}
	names := make([]string, 0, onceNames)
	for _, o := range list[:min(len(list), onceNames)] {
		names = append(names, o.ref.Name+"@"+o.shown())
	}
	a.cfg.Log.Warn("nobody else has the bytes of what this node offers; they follow when it runs again beside a node that may have them",
		"artifacts", len(list), "among_them", strings.Join(names, ", "))
}

func orNothing(busy []string) string {
	if len(busy) == 0 {
		return "telling its peers"
	}
	return strings.Join(busy, ", ")
}

func onceResult(is onceState, alone bool) error {
	var err error
	if len(is.failed) > 0 {
		err = fmt.Errorf("%d promises %w: %s; meshctl why tells the cause of each", len(is.failed), ErrNotKept, strings.Join(is.failed, ", "))
	}
	if alone {
		err = errors.Join(err, fmt.Errorf("%w within %v: what needs none is done; look at the network and at --peer", ErrNoPeer, onceAttach))
	}
	return err
}

// attach waits until a peer has compared catalogs with this node.
func (a *Agent) attach(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, onceAttach)
	defer cancel()
	return a.mesh.WaitOwnChecked(ctx) == nil && a.mesh.OwnChecked()
}

// onceState is how a node that runs once stands. Two that have like news differ in nothing that matters.
type onceState struct {
	news   onceNews
	busy   []string // what is not at rest
	failed []string // addresses
}

type onceNews struct {
	entry    uint64 // the next journal record
	appended uint64 // own records in the catalog
	busy     int
}

func (a *Agent) onceState(ctx context.Context) (s onceState, err error) {
	err = a.loop.do(ctx, func() {
		l := a.loop
		if l.fetchingScore || !l.scoreRetry.IsZero() || (l.program == nil && l.newestScore() != nil) {
			s.busy = append(s.busy, "the score")
		}
		for _, in := range l.instances {
			if !in.atRest() || in.outcome == policies.Unknown {
				s.busy = append(s.busy, string(in.p.Address))
			}
			if in.outcome == policies.Failed {
				s.failed = append(s.failed, string(in.p.Address))
			}
		}
	})
	slices.Sort(s.busy)
	slices.Sort(s.failed)
	s.news = onceNews{entry: a.journal.last(), appended: a.mesh.Stats().Catalog.Appended, busy: len(s.busy)}
	return s, err
}

// stays reports whether a promise is about a program that goes on by itself.
func stays(p policies.Promise) bool {
	switch p.Spec.(type) {
	case policies.Process, policies.Guest:
		return true
	}
	return false
}

// A onceKeeper stands in for a process or guest while the node runs once: it touches nothing.
type onceKeeper struct{}

var errStays = &promise.WaitingError{For: "a meshd that stays: --once starts and stops no process"}

func (onceKeeper) Check(context.Context) (promise.Finding, error) { return promise.Finding{}, errStays }

func (onceKeeper) Repair(context.Context) (promise.Finding, error) {
	return promise.Finding{}, errStays
}
func (onceKeeper) Watches() []promise.Watch        { return nil }
func (onceKeeper) End(context.Context, bool) error { return nil }
