// Package agent is the conductor: it owns goroutines, clock, order and journal, and joins mesh, store,
// roles, score and keepers into one node.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/zclconf/go-cty/cty"

	"meshd/agent/control"
	"meshd/agent/promise"
	"meshd/mesh"
	"meshd/mesh/catalog"
	"meshd/mesh/link"
	"meshd/policies"
	"meshd/roles"
	"meshd/store"
)

// Config is what an Agent is made of. All fields without "optional" are required.
type Config struct {
	Node    *Node // who this is: see LoadNode, InitNode, JoinNode
	WorkDir string
	Tags    map[string]string // declared; attested ones can't be shadowed; optional

	Listen    string
	Advertise []string        // optional
	Seeds     []string        // HOST:PORT or ID@HOST:PORT; optional
	PolicyDir string          // a local score in place of the mesh's; optional
	Limits    []control.Limit // caps on what artifacts take of the links, every class; optional
	Leaf      bool            // only dial out, and be attached to members
	LeafPoll  time.Duration   // of a leaf that rests in between: between polls; 0: it stays attached; see MinLeafPoll

	// MaxSizeBytes is the most that artifacts may take of the disk; 0: no limit but the reserve. What would pass
	// it is not fetched; what is there stays.
	MaxSizeBytes int64

	Network   link.Network
	Host      promise.Host
	Door      net.Listener // where operators ask; optional
	DoorGroup string       // a group that may ask besides root and this user; optional
	Exe       string       // this program, for guests of kind process

	// Containers gives the engine of a kind, for guests in containers; optional.
	Containers func(kind string) (promise.Containers, error)

	// Builtin gathers the built-in facts; nil for those of this machine.
	Builtin func(ctx context.Context, workDir string) map[string]cty.Value

	// Once has Run return when the node has converged: it starts no process and no guest.
	Once bool

	Notify   func(state string) // tells the service manager, as sd_notify does; optional
	Watchdog time.Duration      // the manager wants a sign of life this often; 0: it does not

	Wall    func() time.Time
	Seed    uint64 // of the node's random choices
	Log     *slog.Logger
	Version string // of this program, as told to others

	diskFault func(step string) error // tests let the store's writes fail: see store.Options.Fault
}

// An Agent is one node. Run may be called once.
type Agent struct {
	cfg      Config
	name     string            // attested, else declared
	tags     map[string]string // declared, under attested; owned by the loop once it runs
	attested map[string]string // tags that the certificate binds; never changes
	started  time.Time

	store      *store.Store
	journal    *journal
	memory     *memory
	forgotten  *forgotten
	limits     *limits
	scoreShelf Shelf
	mesh       *mesh.Mesh
	supply     *supply
	site       promise.Site
	loop       *loop
	view       atomic.Pointer[view]
	rights     rights
	tally      *tally

	leaving    atomic.Bool                        // it is stopped, and says so
	toldStatus atomic.Pointer[catalog.StatusBody] // what this node last told of itself

	stopping chan struct{} // closed when Run begins to end
	ready    chan struct{}
	copyKick chan struct{} // capacity 1

	statusKick chan struct{} // capacity 1: what this node says of itself may have changed

	importing sync.Mutex // one bundle at a time

	offlineMu sync.Mutex
	backOn    *time.Timer // ends `offline --for`; nil when none runs
}

// New opens the store and binds the port. The node says nothing to anybody before Run.
func New(cfg Config) (*Agent, error) {
	if cfg.Builtin == nil {
		cfg.Builtin = roles.Builtin
	}
	if err := os.MkdirAll(cfg.WorkDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the work folder: %w", err)
	}
	st, err := store.Open(cfg.Node.Dir, store.Options{MaxPackBytes: cfg.MaxSizeBytes, Log: cfg.Log, Fault: cfg.diskFault})
	if err != nil {
		return nil, err
	}
	// The store is locked, so whatever wrote there was killed.
	if err := os.RemoveAll(tmpDir(cfg.Node)); err != nil {
		cfg.Log.Warn("what an earlier run left half done can't be removed", "error", err)
	}
	a := &Agent{cfg: cfg, store: st, tally: newTally(), started: time.Now(), stopping: make(chan struct{}), ready: make(chan struct{}), copyKick: make(chan struct{}, 1), statusKick: make(chan struct{}, 1)}
	if err := a.open(); err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return a, nil
}

// tmpDir is where imports, and what is taken in or handed out over the door, lie until they are done. Nothing in it
// outlives the run that made it.
func tmpDir(n *Node) string { return filepath.Join(n.Dir, "tmp") }

func (a *Agent) open() error {
	cfg := a.cfg
	if aside := a.store.SetAside(); aside != "" {
		cfg.Log.Error("the store was damaged and set aside; this node begins anew and refills from its peers", "set_aside", aside)
	}
	cert, err := cfg.Node.Charter.VerifyChain(cfg.Node.Identity.Chain)
	if err != nil {
		return fmt.Errorf("own certificate in %s: %w", cfg.Node.Dir, err)
	}
	a.name = cert.Name
	if a.name == "" {
		a.name = cfg.Node.Name
	}
	a.attested = cert.Tags
	a.tags = a.allTags()
	if a.journal, err = openJournal(a.store.Shelf("journal")); err != nil {
		return err
	}
	if a.memory, err = openMemory(a.store.Shelf("memory")); err != nil {
		return err
	}
	a.scoreShelf = a.store.Shelf("score")
	a.mesh, err = mesh.New(mesh.Config{
		Identity: cfg.Node.Identity, Charter: cfg.Node.Charter, Network: cfg.Network,
		Catalog: a.store.Shelf("catalog"), Book: a.store.Shelf("peers"), Invites: a.store.Shelf("invites"),
		Chunks: a.store, BookFile: filepath.Join(cfg.Node.Dir, "peers"),
		Listen: cfg.Listen, Advertise: cfg.Advertise, Seeds: append(cfg.Node.Seeds, cfg.Seeds...), Leaf: cfg.Leaf, LeafPoll: cfg.LeafPoll,
		AllowPull: a.allowPull, AllowInvite: a.allowInvite, Answer: a.answer,
		Wall: cfg.Wall, Seed: cfg.Seed, Log: cfg.Log,
	})
	if err != nil {
		return err
	}
	a.supply = newSupply(a, a.store.Shelf("placed"))
	a.site = promise.Site{
		Host: cfg.Host, Mesh: a.supply, Memory: a.memory, Work: cfg.WorkDir, Data: cfg.Node.Dir, Exe: cfg.Exe,
		Node: a.mesh.Self().String(), Addrs: a.mesh.Advertised, Containers: cfg.Containers, Wall: cfg.Wall, Log: logWriter{cfg.Log},
	}
	a.loop = newLoop(a)
	if a.forgotten, err = openForgotten(a.memory); err != nil {
		return err
	}
	if a.limits, err = openLimits(a.memory, a.mesh, cfg.Limits); err != nil {
		return err
	}
	if a.loop.pauses, err = openPauses(a.memory); err != nil {
		return err
	}
	a.loop.world = newWorld()
	return nil
}

// Ready is closed when the store is open, the port bound and the loop running: an isolated node is ready.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// Addr is the bound HOST:PORT.
func (a *Agent) Addr() string { return a.mesh.Addr() }

// Name is how this node is called.
func (a *Agent) Name() string { return a.name }

// Run keeps the node until ctx ends, then leaves the ring, flushes and closes the store. Processes and
// guests live on unless the score says otherwise.
func (a *Agent) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, a.store.Close()) }()
	if err := a.loop.loadScore(); err != nil {
		return errors.Join(err, a.mesh.Close())
	}
	work, end := context.WithCancel(context.WithoutCancel(ctx)) // outlasts ctx by the goodbye
	defer end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	part := func(run func(context.Context) error) {
		wg.Go(func() {
			if err := run(work); err != nil && ctx.Err() == nil {
				errs <- err
				cancel()
			}
		})
	}
	part(a.mesh.Run)
	part(a.loop.run)
	part(a.tellStatus)
	part(a.supply.tell)
	part(a.keepCopies)
	part(a.renew)
	part(a.collect)
	part(a.tellManager)
	if a.cfg.Once {
		part(func(ctx context.Context) error { return a.once(ctx, cancel) })
	} else if a.cfg.LeafPoll > 0 {
		part(a.poll)
	}
	if a.cfg.Door != nil {
		part(func(ctx context.Context) error {
			return control.Serve(ctx, a.cfg.Door, door{a}, control.Options{Group: a.cfg.DoorGroup, Log: a.cfg.Log})
		})
	}
	close(a.ready)
	<-ctx.Done()
	a.sayGoodbye(work)
	close(a.stopping)
	end()
	wg.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

// setOffline closes all links for a while (d 0: until called with on false).
func (a *Agent) setOffline(d time.Duration, on bool) {
	a.offlineMu.Lock()
	defer a.offlineMu.Unlock()
	if a.backOn != nil {
		a.backOn.Stop()
		a.backOn = nil
	}
	a.mesh.SetOffline(on)
	if on && d > 0 {
		a.backOn = time.AfterFunc(d, func() { a.mesh.SetOffline(false) })
	}
}

// heardMesh takes what the catalog and the ring have to say since the last look.
func (l *loop) heardMesh(ctx context.Context) {
	l.world.hear(l.liveMembers())
	l.considerScore(ctx)
	l.heardWhoIsThere()
	l.a.copySoon()
	l.a.tellStatusSoon()
	changes, now, all := l.a.mesh.Catalog().Since(l.heard)
	l.heard = now
	names := map[string]bool{}
	for _, c := range changes {
		switch c.Kind {
		case catalog.KindArtifact, catalog.KindWithdraw:
			names[c.Name] = true
		case catalog.KindCert, catalog.KindStatement:
			all = true // who may publish what may be judged otherwise now
		}
	}
	if len(names) == 0 && !all {
		return
	}
	for _, in := range l.instances {
		if w, ok := in.p.Spec.(policies.Want); ok && (all || wants(w, names)) {
			l.wake(in, Cause{Text: "news from the mesh"})
		}
	}
}

// heardWhoIsThere wakes wants that wait, or failed, when somebody new is there: it may hold the bytes.
func (l *loop) heardWhoIsThere() {
	alive := l.a.mesh.Alive()
	somebodyNew := false
	for n := range alive {
		somebodyNew = somebodyNew || !l.alive[n]
	}
	l.alive = alive
	if !somebodyNew {
		return
	}
	for _, in := range l.instances {
		if in.p.Type == "want" && !in.good() {
			l.wake(in, Cause{Text: "somebody new in the mesh"})
		}
	}
}

func wants(w policies.Want, names map[string]bool) bool {
	for name := range names {
		if policies.MatchName(w.Name, name) {
			return true
		}
	}
	return false
}

// logWriter lets keepers print reports to the log, a line at a time.
type logWriter struct{ log *slog.Logger }

func (w logWriter) Write(b []byte) (int, error) {
	w.log.Info(string(trimLine(b)))
	return len(b), nil
}

func trimLine(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
		b = b[:len(b)-1]
	}
	return b
}

// SetDoor gives the listener where operators ask, before Run.
func (a *Agent) SetDoor(l net.Listener) { a.cfg.Door = l }

// Close gives up an agent that was not run.
func (a *Agent) Close() error { return errors.Join(a.mesh.Close(), a.store.Close()) }
