package catalog

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"strings"

	"meshd/mesh/id"
	"meshd/mesh/trust"
	"meshd/store/artifact"
)

// set is all live records that are known: the merge, as a value without clock, disk or network.
//
// add is commutative, associative and idempotent: the same records in any order, any number of times,
// through any relays that dropped what the rule lets them drop, make the same set.
type set struct {
	logs  map[LogID]*history
	order []*history // by LogID: the order of the root

	// names holds the live entries of one scope, kind and name, of all origins, ordered by compare.
	// A key stays when its last entry goes.
	names  map[nameKey][]*entry
	listed map[kindKey]*listing

	// caps holds, for each revoked origin, the last valid seq of its logs; 0 for those not named.
	caps map[id.Node]map[LogID]uint64

	root      artifact.Digest
	rootStale bool
}

type kindKey struct {
	scope string
	kind  uint8
}

type nameKey struct {
	kindKey
	name string
}

// listing is the names of a kind: sorted ascends; fresh are those that came since the last settle.
type listing struct{ sorted, fresh []string }

// history is what is known of one log.
type history struct {
	id   LogID
	tag  [8]byte // names the log within a session
	recs []*entry
	sum  sum

	// sealed is the highest seq at which the live set matched the Live that the origin signed: what is
	// not in the set by then, and not made needless by it, the origin never wrote on this branch.
	sealed uint64
	forked *Fork
	gap    bool // an exchange with a peer left the log incomplete: ask for all of it next time
	told   bool // so did a whole one: somebody holds records back

	leaf      [32]byte
	leafStale bool
}

// Fork is two records of one log that its origin can not both have written on one branch: they have the
// same seq, or A is missing from a live set that B's signature covers. The origin's disk was cloned or
// restored from a backup, or its key is in two places.
type Fork struct{ A, B Record }

// change is what one add did.
type change struct {
	added   bool
	dropped []*entry // no longer live, to be removed from the disk
	forked  *history // this add was the proof
}

func newSet() *set {
	return &set{
		logs: map[LogID]*history{}, names: map[nameKey][]*entry{}, listed: map[kindKey]*listing{},
		caps: map[id.Node]map[LogID]uint64{}, rootStale: true,
	}
}

func (e *entry) nameKey() nameKey { return nameKey{kindKey{e.Log.Scope, e.Kind}, e.Name} }

// retain returns those of list, the entries of one kind and name of one origin, oldest first, that stay
// live. An artifact that was ever beyond the newest keep, or before a withdrawal, goes; so the rest is
// always the end of the list, and what was dropped early would be dropped late as well.
func retain(kind uint8, list []*entry, withdrawal *entry) []*entry {
	if kind != KindArtifact {
		return list[max(0, len(list)-1):]
	}
	from := 0
	for i, e := range list {
		if withdrawal != nil && e.beforeIn(withdrawal) {
			from = i + 1
		}
		from = max(from, i+1-e.keep)
	}
	return list[from:]
}

// beforeIn orders entries of one origin and scope, whatever their kinds.
func (e *entry) beforeIn(o *entry) bool { return e.compare(o) < 0 }

// known reports whether the set has e, or would not keep it; such an entry needs no verification.
func (s *set) known(e *entry) (has, useless bool) {
	if s.capped(e) {
		return false, true
	}
	_, list := s.ofLog(e.nameKey(), e.Log)
	i, has := slices.BinarySearchFunc(list, e, (*entry).compare)
	if has {
		return true, false
	}
	joined := slices.Insert(slices.Clone(list), i, e)
	return false, i < len(joined)-len(retain(e.Kind, joined, s.withdrawal(e.Log, e.Name)))
}

// add merges one verified entry.
func (s *set) add(e *entry) change {
	has, useless := s.known(e)
	if has || useless {
		return change{}
	}
	h := s.logs[e.Log]
	if h == nil {
		h = s.open(e.Log)
	}
	c := change{added: true}
	if h.forked == nil && s.caps[e.Log.Origin] == nil {
		if other := h.contradicts(e); other != nil {
			h.forked = &Fork{A: e.Record, B: other.Record}
			c.forked = h
		}
	}
	s.insert(h, e)
	c.dropped = s.trim(e.nameKey(), e.Log)
	if e.Kind == KindWithdraw {
		c.dropped = append(c.dropped, s.trim(nameKey{kindKey{e.Log.Scope, KindArtifact}, e.Name}, e.Log)...)
	}
	h.seal()
	if e.Kind == KindStatement && (e.revoke != nil || slices.ContainsFunc(c.dropped, func(d *entry) bool { return d.revoke != nil })) {
		c.dropped = append(c.dropped, s.enforce()...)
	}
	return c
}

// contradicts returns an entry that proves, with e, a fork of the log; nil if there is none. e is not in
// the log and nothing in it makes e needless.
func (h *history) contradicts(e *entry) *entry {
	i, _ := slices.BinarySearchFunc(h.recs, e, (*entry).compare)
	for _, j := range []int{i - 1, i} {
		if j >= 0 && j < len(h.recs) && h.recs[j].Seq == e.Seq {
			return h.recs[j]
		}
	}
	if e.Seq <= h.sealed && len(h.recs) > 0 {
		return h.recs[len(h.recs)-1]
	}
	return nil
}

// seal notes whether the log is complete up to its newest entry.
func (h *history) seal() {
	if h.complete() {
		h.sealed = h.recs[len(h.recs)-1].Seq
		h.gap, h.told = false, false
	}
}

func (h *history) complete() bool {
	return len(h.recs) > 0 && h.recs[len(h.recs)-1].Live == h.sum.digest()
}

// last is the newest seq, 0 for an empty log.
func (h *history) last() uint64 {
	if len(h.recs) == 0 {
		return 0
	}
	return h.recs[len(h.recs)-1].Seq
}

func (s *set) open(log LogID) *history {
	tag := sha256.Sum256(log.key())
	h := &history{id: log, tag: [8]byte(tag[:8]), leafStale: true}
	s.logs[log] = h
	i, _ := slices.BinarySearchFunc(s.order, h, func(a, b *history) int { return a.id.compare(b.id) })
	s.order = slices.Insert(s.order, i, h)
	return h
}

func (s *set) insert(h *history, e *entry) {
	i, _ := slices.BinarySearchFunc(h.recs, e, (*entry).compare)
	h.recs = slices.Insert(h.recs, i, e)
	h.sum.add(e.hash)
	h.leafStale, s.rootStale = true, true

	key := e.nameKey()
	list, ok := s.names[key]
	if !ok {
		if s.listed[key.kindKey] == nil {
			s.listed[key.kindKey] = &listing{}
		}
		s.listed[key.kindKey].fresh = append(s.listed[key.kindKey].fresh, key.name)
	}
	i, _ = slices.BinarySearchFunc(list, e, (*entry).compare)
	s.names[key] = slices.Insert(list, i, e)
}

// remove takes a live entry out, and its log when that was all of it.
func (s *set) remove(e *entry) {
	h := s.logs[e.Log]
	i, _ := slices.BinarySearchFunc(h.recs, e, (*entry).compare)
	h.recs = slices.Delete(h.recs, i, i+1)
	h.sum.sub(e.hash)
	h.leafStale, s.rootStale = true, true
	key := e.nameKey()
	i, _ = slices.BinarySearchFunc(s.names[key], e, (*entry).compare)
	s.names[key] = slices.Delete(s.names[key], i, i+1)
	if len(h.recs) == 0 {
		delete(s.logs, e.Log)
		i, _ = slices.BinarySearchFunc(s.order, h, func(a, b *history) int { return a.id.compare(b.id) })
		s.order = slices.Delete(s.order, i, i+1)
	}
}

// trim removes what is no longer live of one name in one log, and returns it.
func (s *set) trim(key nameKey, log LogID) []*entry {
	_, list := s.ofLog(key, log)
	keep := retain(key.kind, list, s.withdrawal(log, key.name))
	gone := slices.Clone(list[:len(list)-len(keep)])
	for _, e := range gone {
		s.remove(e)
	}
	return gone
}

// ofLog returns the part of a name's entries that is of one log, and where it begins.
func (s *set) ofLog(key nameKey, log LogID) (int, []*entry) {
	all := s.names[key]
	from, _ := slices.BinarySearchFunc(all, log, func(e *entry, l LogID) int {
		if c := e.Log.Origin.Compare(l.Origin); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(e.Log.Epoch, l.Epoch), 1) // the first of the epoch
	})
	to := from
	for to < len(all) && all[to].Log == log {
		to++
	}
	return from, all[from:to]
}

// withdrawal returns the newest withdrawal of a name in a log, nil if there is none.
func (s *set) withdrawal(log LogID, name string) *entry {
	if log.Scope != ScopeMain {
		return nil
	}
	if _, list := s.ofLog(nameKey{kindKey{ScopeMain, KindWithdraw}, name}, log); len(list) > 0 {
		return list[len(list)-1]
	}
	return nil
}

// capped reports whether the key of e's origin was revoked before e. Certificates stay, because they are
// what verifies the records before; statements stay, so that two revokers who revoke one another end
// alike everywhere.
func (s *set) capped(e *entry) bool {
	caps := s.caps[e.Log.Origin]
	return caps != nil && e.Kind != KindCert && e.Kind != KindStatement && e.Seq > caps[e.Log]
}

// enforce works out the revocations anew from the live statements, and removes what they forbid.
func (s *set) enforce() []*entry {
	s.caps = map[id.Node]map[LogID]uint64{}
	for key, list := range s.names {
		for _, e := range list {
			if key.kind == KindStatement && e.revoke != nil {
				s.cap(e.revoke)
			}
		}
	}
	var gone []*entry
	for _, h := range s.order {
		if s.caps[h.id.Origin] == nil {
			continue
		}
		h.sealed = 0
		for _, e := range h.recs {
			if s.capped(e) {
				gone = append(gone, e)
			}
		}
	}
	for _, e := range gone {
		s.remove(e)
	}
	return gone
}

// cap notes one revocation; of several of one key the strictest counts.
func (s *set) cap(r *trust.Statement) {
	subject := id.FromKey(r.Subject)
	caps := map[LogID]uint64{}
	for _, head := range r.Heads {
		log := LogID{subject, head.Epoch, head.Scope}
		if before := s.caps[subject]; before == nil {
			caps[log] = head.Seq
		} else if most, ok := before[log]; ok {
			caps[log] = min(most, head.Seq)
		}
	}
	s.caps[subject] = caps
}

// settle makes the listings ready for live, and the root: one hash over all logs, equal for equal sets
// and for those only. Writers call it after a batch.
func (s *set) settle() {
	for _, l := range s.listed {
		if len(l.fresh) > 8 {
			l.sorted = append(l.sorted, l.fresh...)
			slices.Sort(l.sorted)
		} else {
			for _, name := range l.fresh {
				i, _ := slices.BinarySearch(l.sorted, name)
				l.sorted = slices.Insert(l.sorted, i, name)
			}
		}
		l.fresh = nil
	}
	if s.rootStale {
		s.root = artifact.Sum(s.leaves(s.order))
		s.rootStale = false
	}
}

// live appends the live entries of a kind whose name begins with prefix: by name, origin, epoch and seq.
// Over the epochs of an origin the rule is the same as within one log, as if they were written one after
// another.
func (s *set) live(key kindKey, prefix string, emit func(*entry)) {
	l := s.listed[key]
	if l == nil {
		return
	}
	from, _ := slices.BinarySearch(l.sorted, prefix)
	for _, name := range l.sorted[from:] {
		if !strings.HasPrefix(name, prefix) {
			break
		}
		s.liveName(nameKey{key, name}, emit)
	}
}

func (s *set) liveName(key nameKey, emit func(*entry)) {
	all := s.names[key]
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Log.Origin == all[0].Log.Origin {
			n++
		}
		for _, e := range retain(key.kind, all[:n], s.lastWithdrawal(key, all[0].Log.Origin)) {
			emit(e)
		}
		all = all[n:]
	}
}

// lastWithdrawal is the newest withdrawal of an artifact's name by an origin, over all its epochs.
func (s *set) lastWithdrawal(key nameKey, origin id.Node) *entry {
	if key.kind != KindArtifact || s.listed[kindKey{ScopeMain, KindWithdraw}] == nil {
		return nil
	}
	var last *entry
	for _, e := range s.names[nameKey{kindKey{ScopeMain, KindWithdraw}, key.name}] {
		if e.Log.Origin == origin {
			last = e
		}
	}
	return last
}

// leaves is the hash of each log and its live set, one after another.
func (s *set) leaves(logs []*history) []byte {
	b := make([]byte, 0, 32*len(logs))
	for _, h := range logs {
		if h.leafStale {
			d := h.sum.digest()
			h.leaf = sha256.Sum256(append(h.id.key(), d[:]...))
			h.leafStale = false
		}
		b = append(b, h.leaf[:]...)
	}
	return b
}

// liveAfter is the digest of the live set of r's log once r, the next of it, is added.
func (s *set) liveAfter(r *Record, core []byte) artifact.Digest {
	e := &entry{Record: *r, hash: sha256.Sum256(core)}
	var after sum
	if h := s.logs[r.Log]; h != nil {
		after = h.sum
	}
	after.add(e.hash)
	less := func(key nameKey, list []*entry, withdrawal *entry) {
		for _, gone := range list[:len(list)-len(retain(key.kind, list, withdrawal))] {
			after.sub(gone.hash)
		}
	}
	if r.Kind == KindArtifact {
		if a, err := DecodeArtifact(r.Body); err == nil { // if not, the record is refused later
			e.keep = a.Keep
		}
	}
	_, list := s.ofLog(e.nameKey(), r.Log)
	less(e.nameKey(), append(slices.Clone(list), e), nil)
	if r.Kind == KindWithdraw {
		key := nameKey{kindKey{r.Log.Scope, KindArtifact}, r.Name}
		_, list := s.ofLog(key, r.Log)
		less(key, list, e)
	}
	return after.digest()
}

// certificate returns the newest cert entry of an origin, nil if there is none.
func (s *set) certificate(origin id.Node) *entry {
	list := s.names[nameKey{kindKey{ScopeNodes, KindCert}, ""}]
	i, _ := slices.BinarySearchFunc(list, origin, func(e *entry, n id.Node) int {
		return cmp.Or(e.Log.Origin.Compare(n), -1) // the first beyond the origin
	})
	if i == 0 || list[i-1].Log.Origin != origin || list[i-1].cert == nil {
		return nil
	}
	return list[i-1]
}
