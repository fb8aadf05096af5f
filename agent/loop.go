package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"meshd/agent/promise"
	"meshd/mesh/id"
	"meshd/policies"
	"meshd/roles"
)

// The loop is the one goroutine that decides what to look at. Everything else tells it that something may
// have changed, and runs what it was told to run.
type loop struct {
	a    *Agent
	rand *rand.Rand
	log  journalWriter

	program *policies.Program // nil: no score in force
	world   *world
	held    map[string]roles.Held

	policyDir        string // of a local score in place of the mesh's; "": none
	inForce, refused *scoreState
	fetchingScore    bool
	scoreRetry       time.Time                 // when a score that could not be fetched is tried again
	alive            map[id.Node]bool          // who was there when the loop last looked
	heard            uint64                    // the catalog as far as the loop has seen it
	played           map[policies.Address]bool // blocks of the program that is being put in force; nil else

	instances  map[policies.Address]*instance
	counts     [policies.Drifted + 1]int               // instances by outcome
	countsTold [policies.Drifted + 1]int               // when tellStatus was last kicked
	blocks     map[policies.Address][]policies.Address // PART.TYPE.NAME -> its instances
	needs      map[policies.Address][]policies.Address // whom an instance waits for: needs, paths and names that meet
	feeds      map[policies.Address][]policies.Address // the same edges, reversed
	pathsOld   bool                                    // needs and feeds must be made anew

	made  map[string]policies.Address // absolute path -> the promise that makes it
	queue []*instance                 // to be started, in the order they were woken
	clock *clock                      // who is to be looked at when

	pauses  *pauses // until when operators want hands off
	lanes   map[string]*lane
	watches *watchTable
	done    chan look   // one for each run that ended
	calls   chan func() // closures that want the loop's state
	stir    chan stirred
	wg      sync.WaitGroup
	timer   *time.Timer
}

// stirred is a keeper's own event: a child died.
type stirred struct {
	address policies.Address
	wakes   <-chan struct{}
}

// journalWriter is the part of the journal that the loop writes.
type journalWriter interface {
	append(Entry) uint64
	appendLater(Entry) uint64
	flushBy() time.Time
	flush() error
}

const (
	maxCalls   = 64
	maxDone    = 1024
	causeTimer = "a periodic look"
	causeStart = "meshd started"
	waitAgain  = 15 * time.Second // a want that waits for a holder looks again
	endTimeout = 15 * time.Second // of a keeper's End when its promise ended
)

func newLoop(a *Agent) *loop {
	cores := max(1, runtime.GOMAXPROCS(0))
	return &loop{
		a: a, policyDir: a.cfg.PolicyDir, rand: rand.New(rand.NewPCG(a.cfg.Seed, 0x10097)), log: a.journal,
		held: map[string]roles.Held{}, instances: map[policies.Address]*instance{},
		blocks: map[policies.Address][]policies.Address{},
		needs:  map[policies.Address][]policies.Address{}, feeds: map[policies.Address][]policies.Address{},
		lanes: map[string]*lane{
			laneFile: {limit: 2 * cores}, laneCommand: {limit: 2 * cores}, laneWait: {limit: waitLimit},
		},
		clock: &clock{}, watches: newWatchTable(a.cfg.Host), done: make(chan look, maxDone), calls: make(chan func(), maxCalls),
		stir: make(chan stirred, maxDone),
	}
}

// run owns the loop's state until ctx ends; then it ends every keeper, leaving what may live on.
func (l *loop) run(ctx context.Context) error {
	l.timer = time.NewTimer(0)
	defer l.timer.Stop()
	defer l.watches.close()
	l.heardMesh(ctx)
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-l.a.mesh.Changed():
			l.heardMesh(ctx)
		case <-l.watches.kick:
			l.fileEvents()
		case k := <-l.done:
			l.finished(k)
			l.drainDone()
		case f := <-l.calls:
			f()
		case s := <-l.stir:
			l.stirred(s)
		case <-l.timer.C:
		}
		if err := l.turn(ctx); err != nil {
			l.a.cfg.Log.Error("the journal can't be written; nothing is done until it can", "error", err)
			l.timer.Reset(backoffMin)
		}
	}
	l.end()
	return nil
}

// drainDone takes what else has finished, so that one transaction tells it all.
func (l *loop) drainDone() {
	for range maxDone {
		select {
		case k := <-l.done:
			l.finished(k)
		default:
			return
		}
	}
}

// turn makes what happened durable and then starts what may be started.
func (l *loop) turn(ctx context.Context) error {
	l.world.refresh(l)
	paused := l.endPauses()
	if by := l.log.flushBy(); !by.IsZero() && !time.Now().Before(by) {
		if err := l.log.flush(); err != nil {
			return err
		}
	}
	if l.pathsOld {
		l.weave()
	}
	now := time.Now()
	for in := l.clock.due(now); in != nil; in = l.clock.due(now) {
		if !in.dirty {
			l.wake(in, Cause{Text: causeTimer})
		} else {
			l.enqueue(in) // it had settled
		}
	}
	l.startAll(ctx, now)
	next := now.Add(time.Hour)
	next = earlier(next, l.clock.next())
	next = earlier(next, paused)
	next = earlier(next, l.world.next())
	if !l.scoreRetry.IsZero() && !now.Before(l.scoreRetry) {
		l.scoreRetry = time.Time{}
		l.considerScore(ctx)
	}
	next = earlier(next, l.scoreRetry)
	next = earlier(next, l.log.flushBy()) // what start told is flushed in the next turn
	l.a.tally.stand(l.counts)
	if l.counts != l.countsTold {
		l.countsTold = l.counts
		l.a.tellStatusSoon()
	}
	l.timer.Reset(max(0, time.Until(next)))
	return nil
}

func earlier(a, b time.Time) time.Time {
	if b.IsZero() || a.Before(b) {
		return a
	}
	return b
}

// startAll starts whatever may be started: first who waited for a place, then who was woken.
func (l *loop) startAll(ctx context.Context, now time.Time) {
	start := func(in *instance) {
		if in.dirty && !in.running && l.instances[in.p.Address] == in {
			l.start(ctx, in, now)
		}
	}
	for more := true; more; {
		more = false
		for _, name := range laneNames {
			// Of those who waited some have ended since, or were started by another wake: they take no place.
			for ln := l.lanes[name]; ln.running < ln.limit && len(ln.waiting) > 0; {
				start(ln.next())
			}
		}
		for len(l.queue) > 0 {
			in := l.queue[0]
			l.queue = l.queue[1:]
			in.queued, more = false, true
			start(in)
		}
	}
}

// wake marks an instance for a look and remembers the heaviest cause.
func (l *loop) wake(in *instance, c Cause) {
	in.dirty = true
	if c.weight() >= in.cause.weight() {
		in.cause = c // of equals the last: it was the one still missing
	}
	l.enqueue(in)
}

func (l *loop) enqueue(in *instance) {
	if !in.queued {
		in.queued = true
		l.queue = append(l.queue, in)
	}
}

// start looks at an instance now, unless it settles, what it needs is not kept or is about to change, or
// its lane is full. Whatever holds it back puts it in the queue again when that ends.
func (l *loop) start(ctx context.Context, in *instance, now time.Time) {
	if now.Before(in.settle) {
		l.clock.set(in, in.settle)
		return
	}
	if in.p.Problem != "" {
		l.rest(in, in.p.ProblemOutcome, in.p.Problem)
		l.clock.set(in, now.Add(l.paced(in)))
		return
	}
	for _, need := range l.needs[in.p.Address] {
		other := l.instances[need]
		if other == nil || (other.good() && other.atRest()) {
			continue
		}
		if other.atRest() && other.outcome != policies.Unknown {
			l.rest(in, policies.Waiting, fmt.Sprintf("waiting for %s (%s)", need, other.outcome))
		}
		return // queued again when the other comes to rest
	}
	if len(in.p.On) > 0 && !l.a.memory.pending(in.p.Address) {
		l.rest(in, policies.Kept, "nothing it is on was repaired")
		return
	}
	ln := l.lanes[laneOf(in.p.Type)]
	if ln.running >= ln.limit {
		ln.wait(in)
		return
	}
	l.launch(ctx, in, ln)
}

// rest tells an outcome that needed no run. Others may have waited for in to come to rest.
func (l *loop) rest(in *instance, o policies.Outcome, reason string) {
	wasGood := in.good()
	in.dirty = false
	in.checked = l.a.cfg.Wall()
	entry := l.tell(in, o, reason, 0)
	l.cameToRest(in, in.news(wasGood), entry)
	in.cause = Cause{}
}

func (l *loop) launch(ctx context.Context, in *instance, ln *lane) {
	runCtx, cancel := context.WithTimeout(ctx, timeoutOf(in.p))
	cause := in.cause
	if cause == (Cause{}) {
		cause = Cause{Text: causeTimer}
	}
	in.running, in.dirty, in.cancel, in.settle = true, false, cancel, time.Time{}
	until := l.pauses.of(in.p.Address, l.a.cfg.Wall())
	mayRepair := until.IsZero() && in.p.Audit && l.inWindow(in.p)
	restart := in.restart && mayRepair
	in.restart = in.restart && !mayRepair // it is owed until it may be done
	ln.running++
	l.a.supply.running(in.p.Address, cause, l.reach(in.p.Address))
	keeper, p := in.keeper, in.p
	l.wg.Go(func() {
		defer cancel()
		k := keep(runCtx, keeper, p, mayRepair, restart)
		if !until.IsZero() {
			k.paused, k.reason = true, pausedText(until, k.reason)
		}
		l.done <- k // room: a run is under way for each waiting send, and the loop drains while it waits
	})
}

// inWindow reports whether `during` lets anything be changed now. The score's check saw that it parses.
func (l *loop) inWindow(p policies.Promise) bool {
	if p.During == "" {
		return true
	}
	w, err := policies.ParseWindow(p.During, "")
	return err == nil && w.Contains(l.a.cfg.Wall())
}

// finished takes what a run came to: tells it, wakes those who need it, and says when to look again.
func (l *loop) finished(k look) {
	in := l.instances[k.address]
	if in == nil {
		return
	}
	l.lanes[laneOf(in.p.Type)].running--
	l.a.tally.looked(in.p.Type, k.outcome)
	in.running, in.cancel = false, nil
	if in.dirty {
		l.enqueue(in)
	}
	if in.ended {
		l.bury(in)
		return
	}
	wasGood := in.good()
	in.checked = l.a.cfg.Wall()
	entry, confirmed := in.entry, in.confirming && k.outcome == policies.Kept
	in.confirming = k.outcome == policies.Repaired && (in.p.Type == "file" || in.p.Type == "want") &&
		!slices.Equal(l.watches.of[in.p.Address], k.watches)
	if !confirmed { // what was repaired is told as that until a later look
		entry = l.tell(in, k.outcome, k.reason, k.took)
	}
	if k.paused || in.paused {
		in.reason = k.reason // a kept promise tells no reason, but for a pause
	}
	in.paused = k.paused
	l.watches.set(in.p.Address, k.watches)
	l.listen(in, k.finding.Wakes)
	now := time.Now()
	due := now.Add(l.paced(in))
	if k.outcome == policies.Failed {
		in.failures++
		due = now.Add(l.jittered(backoff(in.failures)))
	} else {
		in.failures = 0
	}
	if k.outcome == policies.Waiting && in.p.Type == "want" {
		due = earlier(due, now.Add(l.jittered(waitAgain)))
	}
	if again := now.Add(k.finding.Again); k.finding.Again > 0 && (k.outcome == policies.Failed || again.Before(due)) {
		due = again
	}
	l.clock.set(in, due)
	if k.outcome == policies.Repaired {
		in.repairs++
		if in.fights(now) {
			in.settle = now.Add(fightPause)
			l.tellFight(in)
		}
	}
	if in.good() && len(in.p.On) > 0 && k.mayRepair {
		l.warn(l.a.memory.clearPending(in.p.Address))
	}
	l.cameToRest(in, !confirmed && in.news(wasGood), entry)
	if in.confirming { // who saw it made may have damaged it before it was watched
		l.wake(in, Cause{Text: causeTimer})
	}
	if !in.dirty {
		in.cause = Cause{}
	}
	if in.next != nil {
		p := *in.next
		in.next = nil
		l.replace(in, p)
	}
}

// listen waits for a keeper's own event in a goroutine, once for each channel.
func (l *loop) listen(in *instance, wakes <-chan struct{}) {
	if wakes == nil || wakes == in.wakes {
		return
	}
	in.wakes = wakes
	address := in.p.Address
	l.wg.Go(func() {
		select {
		case <-wakes:
			select {
			case l.stir <- stirred{address, wakes}:
			case <-l.a.stopping:
			}
		case <-l.a.stopping:
		}
	})
}

func (l *loop) stirred(s stirred) {
	if in := l.instances[s.address]; in != nil && in.wakes == s.wakes {
		in.wakes = nil
		l.wake(in, Cause{Text: "its process ended"})
	}
}

func (l *loop) fileEvents() {
	now := time.Now()
	for address, hit := range l.watches.take() {
		in := l.instances[address]
		if in == nil {
			continue
		}
		if hit.settle && !l.madeByNeed(in, hit.path) {
			in.settle = now.Add(settleTime)
		}
		l.wake(in, Cause{Text: hit.path + " changed on disk"})
	}
}

// end waits for all runs, then lets keepers leave: processes and guests live on unless they say otherwise.
func (l *loop) end() {
	finished := make(chan struct{})
	go func() { l.wg.Wait(); close(finished) }()
	for open := true; open; {
		select {
		case <-l.done:
		case <-finished:
			open = false
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for _, in := range l.instances {
		if in.keeper != nil {
			wg.Go(func() {
				if err := in.keeper.End(ctx, true); err != nil && !errors.Is(err, context.Canceled) {
					l.a.cfg.Log.Warn("a promise did not leave well", "promise", in.p.Address, "error", err)
				}
			})
		}
	}
	wg.Wait()
	if err := l.log.flush(); err != nil {
		l.a.cfg.Log.Error("the last journal records are lost", "error", err)
	}
}

// do runs f in the loop and waits for its end; an error, and f never runs, where ctx or the agent ends before f begins.
func (l *loop) do(ctx context.Context, f func()) error {
	var taken atomic.Bool // by the loop, which then runs f to its end, or by us, who no longer wait
	finished := make(chan struct{})
	select {
	case l.calls <- func() {
		if taken.CompareAndSwap(false, true) {
			f()
			close(finished)
		}
	}:
	case <-ctx.Done():
		return ctx.Err()
	case <-l.a.stopping:
		return errStopping
	}
	why := errStopping
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
		why = ctx.Err()
	case <-l.a.stopping:
	}
	if taken.CompareAndSwap(false, true) {
		return why
	}
	<-finished
	return nil
}

var errStopping = errors.New("this node is stopping")

func asWaiting(err error) (*promise.WaitingError, bool) {
	var w *promise.WaitingError
	ok := errors.As(err, &w)
	return w, ok
}
