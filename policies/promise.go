// Package policies reads the score: guard, parse, bind against one schema table, static check, and an
// immutable program that each node evaluates with its own facts (POLICY.md).
//
// It knows no network, no store, no clock but the one passed in, and imports nothing of ours.
package policies

import (
	"time"

	"github.com/zclconf/go-cty/cty"
)

// Address is the identity of a promise: PART.TYPE.NAME, or PART.TYPE.NAME["key"] under for_each.
type Address string

// Outcome is what came of a promise the last time it was looked at. The zero value is no word yet.
type Outcome uint8

// The outcomes of POLICY.md.
const (
	Unknown  Outcome = iota // not looked at yet
	Kept                    // already true
	Repaired                // made true, and checked again
	Failed                  // could not be made true: reason, next try
	Waiting                 // needs, an unknown, an absent artifact
	Drifted                 // untrue, but audit or paused
)

// String returns the word of POLICY.md in lower case.
func (o Outcome) String() string {
	switch o {
	case Kept:
		return "kept"
	case Repaired:
		return "repaired"
	case Failed:
		return "failed"
	case Waiting:
		return "waiting"
	case Drifted:
		return "drifted"
	}
	return "unknown"
}

// A Promise is one instance, wholly evaluated for this node: what the agent keeps.
type Promise struct {
	Address Address
	Part    string
	Type    string // "file", "command", ...
	Name    string // the block's label
	Key     string // of for_each, "" without
	Role    string // of its part, "" for every node
	Why     string
	Needs   []Address // instances of this node that must be kept first
	On      []Address // verify only when one of these was repaired
	// Reads and Makes are the literal paths and names by which promises meet without needs:
	// "file:PATH" (cleaned) and "artifact:NAME".
	Reads, Makes []string
	Every        time.Duration // how often it is checked with no event, jitter not applied
	Jitter       float64       // 0.1 = +-10 %
	Timeout      time.Duration // of one check or repair; 0 = the type's default
	During       string        // outside this window nothing is changed; "" = always
	Audit        bool          // true: repair; false: tell only
	Spec         Spec

	// Problem, when not "", says why the promise cannot be played now: an expression failed (Outcome
	// Failed) or reads what is unknown (Outcome Waiting, "waiting for fact.x"). Spec is then nil.
	Problem        string
	ProblemOutcome Outcome
	// Hold is true where the role or a when is unknown: nothing of it starts, stops or is removed.
	Hold bool
	// Hash covers everything above except Why; an instance whose hash is unchanged is not disturbed.
	Hash [32]byte
}

// Spec is what a promise type promises, one struct a type. Paths are as written in the score.
type Spec interface{ spec() }

// File promises one file or folder.
type File struct {
	Path         string
	State        string            // "present", "absent", "dir"
	Content      *string           // nil: not said
	Copy         string            // local path, "" none
	Tree         map[string]string // bundle files by relative name, nil: none
	Purge        bool
	Lines        *Lines
	Mode         string // octal as written, "" unchanged
	Owner, Group string
	Validate     []string
}

// Lines are applied last, to what content, copy or the present file give.
type Lines struct {
	Present, Absent []string
	Match           string // regular expression: lines it matches give way to Present; "" appends
}

// Command promises that a result is made from inputs, by content.
type Command struct {
	Run             []string // argv, or nil with Shell
	Shell           string
	Inputs, Outputs []string
	Env             map[string]string
	Dir, User       string
	Timeout         time.Duration
	OK              []int
}

// Process promises that a program runs.
type Process struct {
	Run           []string
	Env           map[string]string
	Dir, User     string
	RestartOn     []Address
	StopSignal    string        // "TERM"
	StopGrace     time.Duration // then KILL
	StopWithAgent bool
	BackoffMin    time.Duration
	BackoffMax    time.Duration
	Check         *Check
	State         string // "running", "stopped"
}

// Check asks a process whether it is well. One of Run, HTTP, TCP is set.
type Check struct {
	Run           []string
	HTTP, TCP     string
	Every         time.Duration
	Timeout       time.Duration
	Passes, Fails int
}

// Guest promises a child node on this machine.
type Guest struct {
	Kind      string // "process", "docker", "podman"
	Name      string
	State     string // "running", "stopped", "absent"
	Tags      map[string]string
	Env       map[string]string
	RestartOn []Address

	// Of those in containers alone.
	Image    string
	Network  string // "bridge", "host"
	Mounts   []Mount
	Ports    []Port
	Memory   int64 // bytes; 0 no limit
	NanoCPUs int64 // billionths of a processor; 0 no limit
}

// Artifact promises that what lies at From is published under Name.
type Artifact struct {
	Name    string
	From    string    // file, folder or glob
	Version string    // "auto" or semver
	Of      []Address // nil: all wants that its needs reach
	Keep    int
	Meta    map[string]string
}

// Want promises that the right version of each artifact that Name matches is placed here.
type Want struct {
	Name    string // pattern: * one segment, ** the rest
	From    string // role of the publisher, "" any
	Version string // "latest", a semver constraint, an exact semver
	// Place is the path; the late names ${artifact.name|version|hash|publisher} stand in it literally.
	Place string
	Mode  string
	Owner string
	Adopt bool
	Keep  int
}

// Report promises that people are told.
type Report struct {
	Message string
	Level   string // "info", "warn", "error"
}

func (File) spec()     {}
func (Command) spec()  {}
func (Process) spec()  {}
func (Guest) spec()    {}
func (Artifact) spec() {}
func (Want) spec()     {}
func (Report) spec()   {}

// Env is all that an evaluation may see. Values holds the roots of the language:
//
//	fact     object; a fact not yet gathered is an unknown value, a missing one too
//	node     object id, name, addr
//	tag      object of strings; an absent tag reads as ""
//	role     object of bool, unknown where not derived yet
//	members  object role -> list of object{id, name, addr, tags, facts}, sorted by id: what members() and count() see
//
// An Env is not changed by those who are given it.
type Env struct {
	Wall   time.Time // zero: the clock is unset, and during() unknown
	Values map[string]cty.Value
}

// A Group is what one promise block came to: all instances of PART.TYPE.NAME.
// A group with no promises says that the block has none now: those it had before end, unless Hold.
type Group struct {
	Block    Address
	Promises []Promise
	Hold     bool // role, when or for_each is unknown: keep what there is
}
