package roles

import (
	"cmp"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"

	"meshd/policies"
)

// A Member is what a live node says of itself.
type Member struct {
	ID, Name, Addr string            // id in hexadecimal; Addr is a host name or address, no port
	Tags, Facts    map[string]string // Facts: the public ones
	Roles          []string          // those it says it holds; not attested
}

// Values builds the roots of policies.Env from plain Go values. members are the live ones, self among
// them once its own roles are to be counted. An empty field of self, and a fact that is not in facts, is
// unknown. held nil: no role is derived yet.
func Values(self Member, facts map[string]cty.Value, held map[string]Held, members []Member) map[string]cty.Value {
	node := map[string]cty.Value{}
	for name, v := range map[string]string{"id": self.ID, "name": self.Name, "addr": self.Addr} {
		if v != "" {
			node[name] = cty.StringVal(v)
		}
	}
	fact := map[string]cty.Value{}
	for name, v := range facts {
		if v != cty.NilVal {
			fact[name] = v
		}
	}
	role := map[string]cty.Value{}
	for name, h := range held {
		role[name] = valueOf(h)
	}
	return map[string]cty.Value{
		"fact":    cty.ObjectVal(fact),
		"node":    cty.ObjectVal(node),
		"tag":     texts(self.Tags),
		"role":    cty.ObjectVal(role),
		"members": byRole(members),
	}
}

// texts is an object of strings.
func texts(m map[string]string) cty.Value {
	attrs := make(map[string]cty.Value, len(m))
	for name, v := range m {
		attrs[name] = cty.StringVal(v)
	}
	return cty.ObjectVal(attrs)
}

// table is a map of strings: members have unlike tags, and their lists must have one type.
func table(m map[string]string) cty.Value {
	if len(m) == 0 {
		return cty.MapValEmpty(cty.String)
	}
	return cty.MapVal(texts(m).AsValueMap())
}

// byRole is what members() and count() see: for each role its members, sorted by id.
func byRole(members []Member) cty.Value {
	// By name: files made of the lists are for people too, and alike in every mesh of the same names.
	sorted := slices.SortedFunc(slices.Values(members), func(a, b Member) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	lists := map[string][]cty.Value{}
	for _, m := range sorted {
		v := cty.ObjectVal(map[string]cty.Value{
			"id": cty.StringVal(m.ID), "name": cty.StringVal(m.Name), "addr": cty.StringVal(m.Addr),
			"tags": table(m.Tags), "facts": table(m.Facts),
		})
		for _, role := range slices.Compact(slices.Sorted(slices.Values(m.Roles))) {
			lists[role] = append(lists[role], v)
		}
	}
	roles := make(map[string]cty.Value, len(lists))
	for role, list := range lists {
		roles[role] = cty.ListVal(list)
	}
	return cty.ObjectVal(roles)
}

// maxPublicBytes is what a public fact may tell of itself (POLICY.md).
const maxPublicBytes = 256

// Public picks, of the facts gathered, those that peers may read, as text. One that is longer than 256
// bytes, or no plain value, is left out: cut in half it would be another fact.
func Public(defined []policies.Fact, facts map[string]cty.Value) map[string]string {
	public := map[string]string{}
	for _, d := range defined {
		v, ok := facts[d.Name]
		if !d.Public || !ok || v == cty.NilVal || !v.IsKnown() || v.IsNull() {
			continue
		}
		var text string
		switch v.Type() {
		case cty.String:
			text = v.AsString()
		case cty.Number:
			text = v.AsBigFloat().Text('f', -1)
		case cty.Bool:
			text = map[bool]string{true: "true", false: "false"}[v.True()]
		default:
			continue
		}
		if len(text) <= maxPublicBytes {
			public[d.Name] = text
		}
	}
	return public
}
