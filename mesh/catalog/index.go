package catalog

import (
	"cmp"
	"strings"

	"meshd/mesh/id"
)

// each calls emit for the live entries of a kind whose name begins with prefix: by name, origin, epoch and
// seq.
func (s *set) each(key kindKey, prefix string, emit func(*entry)) {
	s.names.each(s.names.seek(func(x *entry) int { return cmp.Or(x.compareKey(key, prefix), 1) }), func(e *entry) bool {
		if e.kind != key.kind || e.log.Scope != key.scope || !strings.HasPrefix(e.name, prefix) {
			return false
		}
		emit(e)
		return true
	})
}

// live is each for readers: over the epochs of an origin the rule is the same as within one log, as if they
// were written one after another.
func (s *set) live(key kindKey, prefix string, emit func(*entry)) {
	var group []*entry // of one name and origin
	flush := func() {
		if len(group) == 0 {
			return
		}
		var w *entry
		if key.kind == KindArtifact {
			w = s.lastWithdrawal(group[0])
		}
		for _, e := range retain(key.kind, group, w) {
			emit(e)
		}
		group = group[:0]
	}
	s.each(key, prefix, func(e *entry) {
		if len(group) > 0 && (group[0].name != e.name || group[0].log.Origin != e.log.Origin) {
			flush()
		}
		group = append(group, e)
	})
	flush()
}

// eachNamed is each for one exact name.
func (s *set) eachNamed(key kindKey, name string, emit func(*entry)) {
	s.names.each(s.names.seek(func(x *entry) int { return cmp.Or(x.compareKey(key, name), 1) }), func(e *entry) bool {
		if e.compareKey(key, name) != 0 {
			return false
		}
		emit(e)
		return true
	})
}

// liveName is live for one exact name.
func (s *set) liveName(key kindKey, name string, emit func(*entry)) {
	var list []*entry
	s.eachNamed(key, name, func(e *entry) { list = append(list, e) })
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].log.Origin == list[0].log.Origin {
			n++
		}
		var w *entry
		if key.kind == KindArtifact {
			w = s.lastWithdrawal(list[0])
		}
		for _, e := range retain(key.kind, list[:n], w) {
			emit(e)
		}
		list = list[n:]
	}
}

// lastWithdrawal is the newest withdrawal of an artifact's name by its origin, over all its epochs.
func (s *set) lastWithdrawal(a *entry) *entry {
	key := kindKey{ScopeMain, KindWithdraw}
	p := s.names.seek(func(x *entry) int {
		return cmp.Or(x.compareKey(key, a.name), x.log.Origin.Compare(a.log.Origin), -1) // beyond its last
	})
	w := s.names.before(p)
	if w == nil || w.compareKey(key, a.name) != 0 || w.log.Origin != a.log.Origin {
		return nil
	}
	return w
}

// certificate returns the newest cert entry of an origin, nil if there is none.
func (s *set) certificate(origin id.Node) *entry {
	p := s.names.seek(func(x *entry) int {
		return cmp.Or(x.compareKey(kindKey{ScopeNodes, KindCert}, ""), x.log.Origin.Compare(origin), -1)
	})
	e := s.names.before(p)
	if e == nil || e.kind != KindCert || e.log.Origin != origin || e.cert() == nil {
		return nil
	}
	return e
}
