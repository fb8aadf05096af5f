// Package roles works out which roles a node plays: facts and tags in, roles and reasons out.
package roles

import (
	"fmt"
	"maps"
	"time"

	"github.com/zclconf/go-cty/cty"

	"meshd/policies"
)

// Held is what is known of one role on this node. The zero value is "does not hold".
type Held struct {
	Holds   bool
	Unknown bool      // it reads what is not known yet: Holds is what it was before, and nothing may act on it
	Because []string  // the operands that decided, in words
	Since   time.Time // when Holds last changed; zero when the clock was unset then
	Until   time.Time // not zero: it follows no longer and is kept until then by its hold; derive again at that time
}

// Derive works out every role of p, each after those that it reads. before is the last result, nil at
// first: a role that holds stays for its hold, and Since is carried on. The clock is e.Wall; while it is
// unset a role is given up at once when it no longer follows, for its time can't be known.
//
// e.Values["role"] is not read; e is not changed.
func Derive(p *policies.Program, e policies.Env, before map[string]Held) map[string]Held {
	values := maps.Clone(e.Values)
	if values == nil {
		values = map[string]cty.Value{}
	}
	e.Values = values
	now := map[string]Held{}
	known := map[string]cty.Value{}
	for _, name := range p.RoleNames() {
		values["role"] = cty.ObjectVal(known)
		v, because := p.Role(name, e)
		old, seen := before[name]
		h := next(v, because, old, seen, p.RoleHold(name), e.Wall)
		now[name], known[name] = h, valueOf(h)
	}
	return now
}

// next is what becomes of one role.
func next(v cty.Value, because []string, old Held, seen bool, hold time.Duration, wall time.Time) Held {
	if !v.IsKnown() {
		return Held{Holds: old.Holds, Unknown: true, Because: because, Since: old.Since}
	}
	h := Held{Holds: !v.IsNull() && v.Type() == cty.Bool && v.True(), Because: because, Since: wall}
	if seen && old.Holds == h.Holds {
		h.Since = old.Since
		return h
	}
	if !old.Holds || wall.IsZero() || old.Since.IsZero() {
		return h
	}
	since := old.Since
	if wall.Before(since) {
		since = wall // the clock stepped back: the stay begins anew, it does not last for years
	}
	if until := since.Add(hold); wall.Before(until) {
		kept := fmt.Sprintf("held until %s: its shortest stay is %s", until.UTC().Format(time.RFC3339), hold)
		return Held{Holds: true, Because: append([]string{kept}, because...), Since: since, Until: until}
	}
	return h
}

// valueOf is a role as other expressions read it.
func valueOf(h Held) cty.Value {
	if h.Unknown {
		return cty.UnknownVal(cty.Bool)
	}
	return cty.BoolVal(h.Holds)
}

// Attested tells of each role whether it follows from a node's attested name and tags alone, whatever its
// facts, its address, the members and the time may be. name is "" where the certificate binds none. The
// result may be called from several goroutines.
func Attested(p *policies.Program, name string, tags map[string]string) func(role string) bool {
	values := map[string]cty.Value{"tag": texts(tags)}
	if name != "" {
		values["node"] = cty.ObjectVal(map[string]cty.Value{"name": cty.StringVal(name)})
	}
	held := Derive(p, policies.Env{Values: values}, nil)
	return func(role string) bool { return held[role].Holds && !held[role].Unknown }
}
