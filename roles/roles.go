// Package roles works out which roles a node plays: facts and tags in, roles and reasons out.
package roles

import (
	"context"
	"time"

	"github.com/zclconf/go-cty/cty"

	"meshd/policies"
)

// Held is what is known of one role on this node. The zero value is "does not hold".
type Held struct {
	Holds   bool
	Unknown bool      // reads what is not known yet; Holds is then what held before, and nothing may act on it
	Because []string  // the operands that decided, in words
	Since   time.Time // when Holds last changed; zero when the clock was unset
}

// Derive works out every role of p in topological order: roles may read other roles.
func Derive(p *policies.Program, e policies.Env, before map[string]Held) map[string]Held {
	panic("not built")
}

// Attested tells of each role whether it follows from an attested name and tags alone.
func Attested(p *policies.Program, name string, tags map[string]string) func(role string) bool {
	panic("not built")
}

// Builtin gathers the facts every node has.
func Builtin(ctx context.Context, workDir string) map[string]cty.Value { panic("not built") }

// Parse reads what a fact's command printed.
func Parse(kind string, out []byte) (cty.Value, error) { panic("not built") }

// A Member is what a live node says of itself.
type Member struct {
	ID, Name, Addr string
	Tags, Facts    map[string]string
	Roles          []string
}

// Values builds the roots of policies.Env from plain Go values.
func Values(self Member, facts map[string]cty.Value, held map[string]Held, members []Member) map[string]cty.Value {
	panic("not built")
}
