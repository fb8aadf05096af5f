package policies

import (
	"fmt"
	"slices"
	"strings"

	"github.com/zclconf/go-cty/cty"
)

// maxKeys bounds the keys of one for_each: the promises of a node.
const maxKeys = maxPromises

// An instance is one promise of a block.
type instance struct {
	b   *block
	key string
}

func (i instance) address() Address {
	if i.b.attrs["for_each"] == nil {
		return i.b.address()
	}
	return Address(fmt.Sprintf("%s[%q]", i.b.address(), i.key))
}

// A keyset is what for_each came to.
type keyset struct {
	keys   []string // sorted; one "" without for_each
	values map[string]cty.Value
	is     presence // maybe: the keys are not known
}

// keysOf evaluates for_each, once.
func (ev *evaluator) keysOf(b *block) *keyset {
	if ks := ev.keys[b]; ks != nil {
		return ks
	}
	ks := &keyset{keys: []string{""}, is: presence{is: yes}}
	if e := b.attrs["for_each"]; e != nil {
		ks = readKeys(e, ev.value(e, nil))
	}
	ev.keys[b] = ks
	return ks
}

func readKeys(e *expr, res result) *keyset {
	fail := func(format string, args ...any) *keyset {
		return &keyset{is: presence{fault: place(e.rng) + ": for_each: " + fmt.Sprintf(format, args...)}}
	}
	switch {
	case res.fault != "":
		return &keyset{is: presence{fault: res.fault}}
	case res.v.IsNull():
		return fail("null has no keys")
	case !res.v.IsKnown():
		return &keyset{is: presence{is: maybe, waits: res.waits}}
	}
	ks := &keyset{values: map[string]cty.Value{}, is: presence{is: yes}}
	t := res.v.Type()
	switch {
	case t.IsObjectType() || t.IsMapType():
		ks.values = res.v.AsValueMap()
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		for _, v := range res.v.AsValueSlice() {
			if !v.IsKnown() {
				return &keyset{is: presence{is: maybe, waits: res.waits}}
			}
			if v.IsNull() || v.Type() != cty.String {
				return fail("a list of texts is needed, or a map")
			}
			if _, double := ks.values[v.AsString()]; double {
				return fail("key %q is there twice", v.AsString())
			}
			ks.values[v.AsString()] = v
		}
	default:
		return fail("a list of texts is needed, or a map, not %s", t.FriendlyName())
	}
	if len(ks.values) > maxKeys {
		return fail("%d keys, more than the limit of %d", len(ks.values), maxKeys)
	}
	ks.keys = sortedKeys(ks.values)
	for _, k := range ks.keys {
		if k == "" || len(k) > maxName || strings.ContainsFunc(k, func(r rune) bool { return r < ' ' }) {
			return fail("key %.40q is empty, longer than %d bytes or has control characters", k, maxName)
		}
	}
	return ks
}

// each returns what each.* is for one instance.
func (ks *keyset) each(b *block, key string) map[string]cty.Value {
	if b.attrs["for_each"] == nil {
		return nil
	}
	v, ok := ks.values[key]
	if !ok { // the keys are not known: only the check asks
		return map[string]cty.Value{"each": cty.ObjectVal(map[string]cty.Value{
			"key": cty.UnknownVal(cty.String), "value": cty.DynamicVal,
		})}
	}
	return map[string]cty.Value{"each": cty.ObjectVal(map[string]cty.Value{"key": cty.StringVal(key), "value": v})}
}

// presentAt tells whether one instance is played here: the part is, its own when holds, and no promise
// that it needs is missing, unless it has its own input.
func (ev *evaluator) presentAt(i instance) presence {
	if pr, ok := ev.present[i]; ok {
		return pr
	}
	pr := ev.part(i.b.part)
	if e := i.b.attrs["when"]; e != nil && pr.is != no {
		when, _ := boolOf(e, ev.value(e, ev.keysOf(i.b).each(i.b, i.key)))
		pr = pr.and(when)
	}
	for _, needed := range i.b.needs {
		if pr.is == no && pr.fault == "" {
			break
		}
		pr = pr.and(ev.needPresent(i, needed))
	}
	ev.present[i] = pr
	return pr
}

// needPresent tells what one needed block says of the presence of the one that needs it: of several keys,
// those that are played here count.
func (ev *evaluator) needPresent(i instance, needed *block) presence {
	pr := ev.part(needed.part)
	var missing []instance
	if pr.is != no || pr.fault != "" {
		pr = pr.and(ev.keysOf(needed).is)
	}
	if pr.is == yes {
		keys := ev.neededKeys(i, needed)
		if len(keys) == 0 {
			return pr
		}
		pr = presence{is: no}
		for _, key := range keys {
			there := ev.presentAt(instance{b: needed, key: key})
			if there.is == yes {
				return there
			}
			if there.open() {
				pr = there
			}
		}
	}
	if pr.fault != "" {
		pr.fault = fmt.Sprintf("needs %s, which cannot be told: %s", needed.address(), pr.fault)
		return pr
	}
	if pr.is == no {
		for _, key := range ev.neededKeys(i, needed) {
			missing = append(missing, instance{b: needed, key: key})
		}
		if ev.ownInput(i, missing) {
			pr.is = yes
		}
	}
	return pr
}

// neededKeys are the keys of a needed block that one instance waits for: the same one where both blocks
// have equal keys, else all.
func (ev *evaluator) neededKeys(i instance, needed *block) []string {
	theirs := ev.keysOf(needed).keys
	if i.b.attrs["for_each"] != nil && needed.attrs["for_each"] != nil {
		if own := ev.keysOf(i.b).keys; slices.Equal(own, theirs) {
			return []string{i.key}
		}
	}
	return theirs
}

// resolve returns the instances behind needs, on, restart_on or of that are played here.
func (ev *evaluator) resolve(i instance, blocks []*block) []Address {
	var out []Address
	for _, needed := range blocks {
		if ev.part(needed.part).is == no {
			continue
		}
		for _, key := range ev.neededKeys(i, needed) {
			if n := (instance{b: needed, key: key}); ev.presentAt(n).is != no {
				out = append(out, n.address())
			}
		}
	}
	return out
}

// inputAttrs and outputAttrs are the attributes by which promises read and make paths.
var (
	inputAttrs  = map[string][]string{"file": {"copy"}, "command": {"inputs"}, "artifact": {"from"}}
	outputAttrs = map[string][]string{"file": {"path"}, "command": {"outputs"}, "want": {"place"}}
)

// ownInput reports whether an instance reads something that the missing ones would not have made: then
// it can do without them.
func (ev *evaluator) ownInput(i instance, missing []instance) bool {
	reads := ev.paths(i, inputAttrs[i.b.typ])
	if len(reads) == 0 {
		return false
	}
	for _, m := range missing {
		for _, made := range ev.paths(m, outputAttrs[m.b.typ]) {
			if slices.ContainsFunc(reads, func(r string) bool { return under(r, made) || under(made, r) }) {
				return false
			}
		}
	}
	return true
}

// paths evaluates path attributes of an instance, as far as they are known.
func (ev *evaluator) paths(i instance, names []string) []string {
	var out []string
	for _, name := range names {
		e := i.b.attrs[name]
		if e == nil {
			continue
		}
		res := ev.value(e, ev.extra(i, e))
		if !res.known() || res.v.IsNull() {
			continue
		}
		list := []cty.Value{res.v}
		if res.v.CanIterateElements() {
			list = res.v.AsValueSlice()
		}
		for _, v := range list {
			if v.Type() == cty.String && !v.IsNull() {
				out = append(out, prefixOf(v.AsString()))
			}
		}
	}
	return out
}

// extra are the names that only one expression of an instance may read. Late names stand for themselves.
func (ev *evaluator) extra(i instance, e *expr) map[string]cty.Value {
	vars := ev.keysOf(i.b).each(i.b, i.key)
	if e.late {
		if vars == nil {
			vars = map[string]cty.Value{}
		}
		late := map[string]cty.Value{}
		for _, name := range fixedNames["artifact"] {
			late[name] = cty.StringVal("${artifact." + name + "}")
		}
		vars["artifact"] = cty.ObjectVal(late)
	}
	return vars
}
