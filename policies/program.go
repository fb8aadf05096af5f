package policies

import (
	"time"

	"github.com/zclconf/go-cty/cty"
)

// A Score is what the score says of itself.
type Score struct {
	Name    string
	Version string // semver, as written
	Why     string
	Hash    string        // hex SHA-256 of the bundle: names and bytes of all its files
	Every   time.Duration // default of all promises
	Jitter  float64       // 0.1 = +-10 %
}

// A Fact is one custom fact: a command of this node whose output roles and promises may read.
type Fact struct {
	Name    string
	Command []string
	Every   time.Duration
	Timeout time.Duration
	Parse   string    // "string", "lines", "number", "bool", "json"
	Default cty.Value // cty.NilVal: none, the fact is unknown until gathered
	Public  bool      // peers may read it
}

// An Edge says, from the text alone, who leaves an artifact and who picks it up.
type Edge struct {
	FromRole string // "*": every node; "": nobody in this score
	Artifact string // name, or a pattern where the score computes it
	ToRole   string // "*": every node; "": nobody in this score
}

// A Program is a compiled score. It never changes and may be used by any number of goroutines.
type Program struct {
}
