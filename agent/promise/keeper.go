// Package promise keeps promises: one file a promise type, and the Host through which all of them touch
// processes and watches.
package promise

import (
	"context"
	"errors"
	"io"
	"net"
	"time"
)

// A Keeper brings one promiser to its promised state.
//
// All methods are called from one goroutine at a time and may be called any number of times, in any
// order: a keeper holds no progress of its own that a crash could lose.
type Keeper interface {
	// Check reports whether the state is as promised. It changes nothing.
	Check(ctx context.Context) (Finding, error)

	// Repair makes the state as promised, or fails and leaves what it did not touch as it was. When ctx
	// ends it returns soon, with no half-written file behind it. The agent checks again afterwards.
	Repair(ctx context.Context) (Finding, error)

	// Watches names what should wake this promise when it changes on disk. What it names may change
	// after each Check and Repair.
	Watches() []Watch

	// End is called once when the promise ends (role, when, key or score changed) or with the agent;
	// then leaving says whether the agent stops rather than the promise.
	End(ctx context.Context, leaving bool) error
}

// A Restarter is a Keeper that can be told to do its work anew: process and guest when what they
// restart_on was repaired, a command when what it is promised on was. A command with inputs or outputs
// takes no notice: their content decides. What was asked for outlives a crash.
type Restarter interface {
	Restart(ctx context.Context) error
}

// A Yielder is a Keeper whose promise outlives it: the agent calls Yield in place of End when a promise
// of the same address, changed, takes over. What runs is left running; the successor adopts it, and
// restarts it only if what runs was changed.
type Yielder interface{ Yield() }

// A Finding is what a look told.
type Finding struct {
	OK     bool   // as promised
	Reason string // what is untrue, what was done; one line for people
	// Wakes is closed or sent to when the keeper knows that its state may have changed (a child died).
	Wakes <-chan struct{}
	// Again asks for another look after this long; 0 = the promise's own every. It counts beside an error
	// too: then it is when to try again, in place of the agent's own backoff (a process that crashes).
	Again time.Duration
	// Artifact is the version this promise published or placed, for the journal; zero otherwise.
	Artifact ArtifactCause
}

// ArtifactCause names an artifact that a promise placed or published.
type ArtifactCause struct {
	Name      string
	Version   string // as shown
	Hash      string // tree digest, "sha256:..."
	Publisher string // node id, hexadecimal
}

// WaitingError says that a promise can't be looked at before something else happens. It is no failure.
type WaitingError struct{ For string }

func (e *WaitingError) Error() string { return "waiting for " + e.For }

// Errors of a Host that callers decide by.
var (
	// ErrNotFound: no such process, or another one has its pid by now.
	ErrNotFound = errors.New("no such process")
	// ErrNoWatch: this machine, or what is left of its limits, watches no more folders; the periodic pass
	// must do.
	ErrNoWatch = errors.New("no folder watch to be had")
)

// A Watch is a path whose change wakes a promise. Path is absolute; a change of the path itself, and of
// anything directly in it where it is a folder, counts; Recursive takes the folders below it too.
type Watch struct {
	Path      string
	Recursive bool
	// Settle is true where people or programs edit it: the wake comes after 50 ms of quiet.
	Settle bool
}

// Cmd is a program to run. Env is the whole environment. Dir is absolute.
type Cmd struct {
	Argv, Env []string
	Dir, User string
	LogPath   string // output is appended here, bounded; "" keeps only the tail
}

// A Child is a running program that outlives the call that started it.
type Child interface {
	PID() int
	StartTime() uint64        // of /proc/PID/stat: tells a pid from its successor
	Done() <-chan struct{}    // closed when it ended
	ExitReason() string       // after Done: "exit status 3", "signal: killed"; "" where not known (adopted)
	Signal(name string) error // "TERM", "KILL", to its whole process group
}

// Host is the machine: all that touches processes and watches goes through it (SPEC 3, law 7).
type Host interface {
	// Exec runs c to its end or to the timeout, then kills its whole process group. tail is the last 4
	// KiB of output, both streams. err is for what could not start or was cut short; code is valid when nil.
	Exec(ctx context.Context, c Cmd, timeout time.Duration) (code int, tail []byte, err error)
	// Spawn starts c in a session of its own, so that it outlives this program.
	Spawn(c Cmd) (Child, error)
	// Adopt takes up a process that an earlier run of this program spawned; ErrNotFound if it is gone.
	Adopt(pid int, startTime uint64) (Child, error)
	// Find looks for a process whose environment has MESHD_PROMISE=mark; where mark ends in "*", one that
	// begins with what is before it. Of several the leader of a session is preferred, then the oldest.
	// ErrNotFound if none.
	Find(mark string) (pid int, startTime uint64, err error)
	// Watch calls changed with the base name for each change directly in dir, until stop. The name "."
	// means the folder itself: it was removed or moved (the watch is over; watch again) or changes were
	// lost (look at all of it). changed must not block. An error is ErrNoWatch or about dir itself.
	Watch(dir string, changed func(name string)) (stop func(), err error)
	// Dial opens a TCP connection, for the check of a process.
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// Memory is what keepers remember across restarts: a small durable map. Keepers begin each key with their
// promise's address, so that all of a node may share one.
type Memory interface {
	Get(key string) ([]byte, error)     // nil, nil when absent
	Put(key string, value []byte) error // durable on return; nil deletes
}

// Mesh is what the keepers of artifact, want and guest need of the mesh, in plain words.
// Implementations are safe for concurrent use.
type Mesh interface {
	// Changed reports whether what lies at from differs from this node's own newest version of name.
	Outdated(ctx context.Context, a Offer) (stale bool, latest ArtifactCause, err error)
	// Publish makes a new version, durable on return.
	Publish(ctx context.Context, a Offer) (ArtifactCause, error)
	// Choose lists the versions that w should have in place now, each with its path; a WaitingError when
	// nobody offers. An empty list says that all it had were withdrawn: then they are removed.
	Choose(ctx context.Context, w Wish) ([]Placement, error)
	// InPlace reports whether p lies as it should.
	InPlace(ctx context.Context, p Placement) (ok bool, why string, err error)
	// Fetch pulls p's bytes from whoever has them and puts them in place, verified.
	Fetch(ctx context.Context, p Placement) error
	// Withdrawn removes what the promise placed earlier and what is not among now.
	Retire(ctx context.Context, promise string, now []Placement) error
	// Invite makes a one-use token for a child of that name.
	Invite(ctx context.Context, name string, tags map[string]string) (token string, err error)
	// Expel retires the identity of a guest that was deleted.
	Expel(ctx context.Context, name string) error
}

// Offer is what an artifact promise publishes.
type Offer struct {
	Promise, Name, Version string
	From                   []string // absolute paths that matched; one file or folder, or the files of a glob
	Base                   string   // for a glob: names in the tree are relative to it; "" otherwise
	Keep                   int
	Meta                   map[string]string
	Of                     []string // addresses of the wants it is made of
}

// Wish is what a want promise asks for. Place is as written: it still holds the late names, and is
// relative to the work folder unless absolute; it has no "..".
type Wish struct {
	Promise, Name, From, Version, Place string
	Mode, Owner                         string
	Adopt                               bool
	Keep                                int
}

// A Placement is one artifact version at one path.
type Placement struct {
	Promise  string
	Artifact ArtifactCause
	Root     string // root digest
	Path     string // absolute
	Mode     string
	Owner    string
	Adopt    bool
	Keep     int // versions kept here, this one too, to go back to
}

// Site is what every keeper is given.
type Site struct {
	Host   Host
	Mesh   Mesh
	Memory Memory
	Work   string // the work folder, absolute
	Data   string // the data folder, absolute: guests/, logs/
	Exe    string // this program, for guests of kind process
	Node   string // this node's id, hexadecimal
	// Addrs are the HOST:PORT at which others reach this node.
	Addrs func() []string
	// Containers gives the engine of a kind, for guests in containers; nil where there is none.
	Containers func(kind string) (Containers, error)
	Wall       func() time.Time
	Spawned    func(pid int) // told for the journal; may be nil
	Log        io.Writer
}
