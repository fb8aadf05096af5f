package policies

import (
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
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
//
// The source text is not kept, but for the data files of the bundle and what Role tells as reasons.
type Program struct {
	score     Score
	data      map[string][]byte // files of the bundle that are no score text
	templates map[string]hclsyntax.Expression

	locals    map[string]*expr
	roles     map[string]*role
	roleOrder []string // a role after all that it reads
	facts     []Fact
	parts     []*part
	blocks    []*block // in the order of the score
	rules     []rule
	hasAccess bool
	windows   []Window

	// The names that expressions read, so that what an environment lacks can be filled in.
	factNames []string
	factTypes map[string]cty.Type
	tagNames  []string

	// index maps a name two deep to the blocks whose group depends on it, by place in blocks.
	index map[string][]int
	edges []Edge // who gives what to whom, from the text

	// fixed maps "file:PATH" and "artifact:NAME" to the one block that makes it whatever the environment.
	fixed map[string]instance
}

// Score returns what the score says of itself.
func (p *Program) Score() Score { return p.score }

// RoleNames returns all roles, each after those that it reads.
func (p *Program) RoleNames() []string { return slices.Clone(p.roleOrder) }

// RoleWhy returns the why of a role, "" if it has none or is unknown.
func (p *Program) RoleWhy(name string) string {
	if r := p.roles[name]; r != nil {
		return r.why
	}
	return ""
}

// RoleHold returns how long a role is held at least once it is.
func (p *Program) RoleHold(name string) time.Duration {
	if r := p.roles[name]; r != nil {
		return r.hold
	}
	return 0
}

// Facts returns the custom facts, in the order of the score.
func (p *Program) Facts() []Fact { return slices.Clone(p.facts) }

// Role tells whether this node holds a role: a bool, or unknown while it hangs on what is unknown or cannot
// be evaluated. because names the operands that decided it, in words. e.Values["role"] must hold the roles
// that RoleNames lists before this one.
func (p *Program) Role(name string, e Env) (holds cty.Value, because []string) {
	r := p.roles[name]
	if r == nil {
		return cty.False, []string{fmt.Sprintf("the score has no role %q", name)}
	}
	ev := newEvaluator(p, e)
	pr, fault := boolOf(r.when, ev.value(r.when, nil))
	switch {
	case fault != "":
		return cty.UnknownVal(cty.Bool), []string{"cannot be told: " + fault}
	case pr.is == maybe:
		return cty.UnknownVal(cty.Bool), []string{waitingFor(pr.waits)}
	}
	return cty.BoolVal(pr.is == yes), ev.reasons(r.reason, pr.is == yes)
}

// NextEdge returns the first moment after t at which a during() of the score changes, the zero time when
// there is none. Then Role must be asked again, and Expand with the changed name NameTime.
func (p *Program) NextEdge(t time.Time) time.Time {
	var best time.Time
	for _, w := range p.windows {
		if n := w.Next(t); !n.IsZero() && (best.IsZero() || n.Before(best)) {
			best = n
		}
	}
	return best
}
