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

// set is all live records that are known, as an index: the merge, as a value without clock or network.
//
// add is commutative, associative and idempotent: the same records in any order, any number of times,
// through any relays that dropped what the rule lets them drop, make the same set.
type set struct {
	logs  map[LogID]*history
	tags  map[[8]byte]*history
	order []*history // by LogID
	names run        // all live entries, by compareName
	count int        // of them

	// graves stand in the root for logs that aged out; see grave. None is of a log that has entries.
	graves map[[8]byte]grave // by tag

	// caps holds, for each revoked origin, the last valid seq of its logs; 0 for those not named.
	caps map[id.Node]map[LogID]uint64

	root  sum                   // of the members
	stale map[*history]struct{} // logs whose member is not yet what it should be

	// fetch reads a record of which only the entry is in memory; nil where it can not.
	fetch func(*entry) *Record
}

type kindKey struct {
	scope string
	kind  uint8
}

// history is what is known of one log.
type history struct {
	id   LogID
	tag  [8]byte // names the log in few bytes
	recs run     // by compareSeq
	sum  sum

	newest *entry          // the last of recs
	live   artifact.Digest // what its origin signed to be live after it

	withdrawals int
	floor       uint64 // nothing below it counts: the highest floor of a live checkpoint

	// sealed is the highest seq at which the live set matched the Live that the origin signed: what is
	// not in the set by then, and not made needless by it, the origin never wrote on this branch.
	sealed uint64
	// cursor is how far a peer has sent the log in order, while it is not complete.
	cursor uint64
	forked bool
	gap    bool // an exchange with a peer left the log incomplete: ask for all of it next time
	told   bool // so did a whole one: somebody holds records back

	leaf   [8]byte // of its live set, as of the last settle
	member sum     // in the root
}

// change is what one add did.
type change struct {
	added   bool
	dropped []*entry // no longer live, to be removed from the disk
	lifted  bool     // the grave of the log is gone
	forked  *history // this add was the proof, with other
	other   *entry
}

func newSet() *set {
	return &set{
		logs: map[LogID]*history{}, tags: map[[8]byte]*history{}, graves: map[[8]byte]grave{},
		caps: map[id.Node]map[LogID]uint64{}, stale: map[*history]struct{}{},
	}
}

// record returns all of e, nil if it can not be read.
func (s *set) record(e *entry) *Record {
	if e.rec != nil || s.fetch == nil {
		return e.rec
	}
	return s.fetch(e)
}

// compareKey orders e against the entries of a kind and name.
func (e *entry) compareKey(key kindKey, name string) int {
	if c := cmp.Compare(scopeByte(e.log.Scope), scopeByte(key.scope)); c != 0 {
		return c
	}
	if c := cmp.Compare(e.kind, key.kind); c != 0 {
		return c
	}
	return strings.Compare(e.name, name)
}

// compareName orders entries by kind, name, origin and age.
func (e *entry) compareName(o *entry) int {
	if c := e.compareKey(kindKey{o.log.Scope, o.kind}, o.name); c != 0 {
		return c
	}
	return e.compare(o)
}

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
		from = max(from, i+1-int(e.keep))
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
	if h := s.logs[*e.log]; h == nil || e.seq < h.floor {
		return false, h != nil
	}
	list := s.ofLog(kindKey{e.log.Scope, e.kind}, e.name, *e.log)
	i, has := slices.BinarySearchFunc(list, e, (*entry).compare)
	if has {
		return true, false
	}
	joined := slices.Insert(list, i, e)
	return false, i < len(joined)-len(retain(e.kind, joined, s.withdrawal(e)))
}

// add merges one verified entry.
func (s *set) add(e *entry) change {
	has, useless := s.known(e)
	if has || useless {
		return change{}
	}
	c := change{added: true}
	h := s.logs[*e.log]
	if h == nil {
		h = s.open(*e.log)
		c.lifted = s.lift(h.tag)
	}
	e.log = &h.id
	if !h.forked && s.caps[e.log.Origin] == nil {
		if other := h.contradicts(e); other != nil {
			h.forked = true
			c.forked, c.other = h, other
		}
	}
	s.insert(h, e)
	c.dropped = s.trim(e.kind, e.name, h)
	switch {
	case e.kind == KindWithdraw:
		c.dropped = append(c.dropped, s.trim(KindArtifact, e.name, h)...)
	case e.kind == KindCheckpoint:
		c.dropped = append(c.dropped, s.raise(h, e.floor())...)
	}
	h.seal()
	if e.kind == KindStatement && (e.revoke() != nil || slices.ContainsFunc(c.dropped, func(d *entry) bool { return d.revoke() != nil })) {
		c.dropped = append(c.dropped, s.enforce()...)
	}
	return c
}

// allLive reports whether all records of a log are live together, given by age and by compareName: none makes another
// needless, and no two contradict each other.
func allLive(byAge, byName []*entry) bool {
	for i, e := range byAge {
		if e.kind == KindWithdraw || e.kind == KindCheckpoint || i > 0 && byAge[i-1].seq == e.seq {
			return false
		}
	}
	for len(byName) > 0 {
		n := 1
		for n < len(byName) && byName[n].kind == byName[0].kind && byName[n].name == byName[0].name {
			n++
		}
		if len(retain(byName[0].kind, byName[:n], nil)) < n {
			return false
		}
		byName = byName[n:]
	}
	return true
}

// addLog adds a log that the set does not have, of which all are live, by age; live is what the last says. Nobody is
// revoked yet, and the names are left to index.
func (s *set) addLog(byAge []*entry, live artifact.Digest) (h *history, lifted bool) {
	h = s.open(*byAge[0].log)
	lifted = s.lift(h.tag)
	for _, e := range byAge {
		e.log = &h.id
		h.sum.add(e.hash)
	}
	h.recs = runOf(byAge)
	h.newest, h.live = h.recs.last(), live
	h.seal()
	s.count += len(byAge)
	s.stale[h] = struct{}{}
	return h, lifted
}

// index adds the names of what addLog added, all at once.
func (s *set) index(names []*entry) {
	names = append(names, s.names.list()...)
	slices.SortFunc(names, (*entry).compareName)
	s.names = runOf(names)
}

// raise removes what is below the floor of a checkpoint.
func (s *set) raise(h *history, floor uint64) []*entry {
	h.floor = max(h.floor, floor)
	var gone []*entry
	for e := h.recs.at(place{}); e != nil && e.seq < h.floor; e = h.recs.at(place{}) {
		gone = append(gone, e)
		s.remove(e)
		if s.logs[h.id] == nil {
			break // can not be: the checkpoint itself is above its floor
		}
	}
	return gone
}

// contradicts returns an entry that proves, with e, a fork of the log; nil if there is none. e is not in
// the log and nothing in it makes e needless.
func (h *history) contradicts(e *entry) *entry {
	p := h.recs.seek(func(x *entry) int { return x.compareSeq(e) })
	for _, x := range []*entry{h.recs.before(p), h.recs.at(p)} {
		if x != nil && x.seq == e.seq {
			return x
		}
	}
	if e.seq <= h.sealed {
		return h.newest
	}
	return nil
}

// seal notes whether the log is complete up to its newest entry.
func (h *history) seal() {
	if h.complete() {
		h.sealed = h.newest.seq
		h.gap, h.told = false, false
	}
}

func (h *history) complete() bool { return h.newest != nil && h.live == h.sum.digest() }

// last is the newest seq, 0 for an empty log.
func (h *history) last() uint64 {
	if h.newest == nil {
		return 0
	}
	return h.newest.seq
}

func (s *set) open(log LogID) *history {
	h := &history{id: log, tag: log.tag()}
	s.logs[log] = h
	s.tags[h.tag] = h
	i, _ := slices.BinarySearchFunc(s.order, h, func(a, b *history) int { return a.id.compare(b.id) })
	s.order = slices.Insert(s.order, i, h)
	return h
}

// tag names a log in eight bytes.
func (l LogID) tag() [8]byte {
	h := sha256.Sum256(l.key())
	return [8]byte(h[:8])
}

func (s *set) insert(h *history, e *entry) {
	h.recs.insert(h.recs.seek(func(x *entry) int { return x.compareSeq(e) }), e)
	if h.recs.last() == e {
		h.newest, h.live = e, e.rec.Live
	}
	h.sum.add(e.hash)
	if e.kind == KindWithdraw {
		h.withdrawals++
	}
	s.names.insert(s.names.seek(func(x *entry) int { return x.compareName(e) }), e)
	s.count++
	s.stale[h] = struct{}{}
}

// remove takes a live entry out, and its log when that was all of it.
func (s *set) remove(e *entry) {
	h := s.logs[*e.log]
	h.recs.remove(h.recs.seek(func(x *entry) int { return x.compareSeq(e) }))
	if h.newest == e {
		h.newest, h.live = h.recs.last(), artifact.Digest{}
		if h.newest != nil {
			if r := s.record(h.newest); r != nil {
				h.live = r.Live
			}
		}
	}
	h.sum.sub(e.hash)
	if e.kind == KindWithdraw {
		h.withdrawals--
	}
	s.names.remove(s.names.seek(func(x *entry) int { return x.compareName(e) }))
	s.count--
	s.stale[h] = struct{}{}
	if h.recs.n == 0 {
		s.close(h)
	}
}

func (s *set) close(h *history) {
	delete(s.logs, h.id)
	delete(s.tags, h.tag)
	i, _ := slices.BinarySearchFunc(s.order, h, func(a, b *history) int { return a.id.compare(b.id) })
	s.order = slices.Delete(s.order, i, i+1)
}

// trim removes what is no longer live of one name in one log, and returns it.
func (s *set) trim(kind uint8, name string, h *history) []*entry {
	list := s.ofLog(kindKey{h.id.Scope, kind}, name, h.id)
	if len(list) == 0 {
		return nil
	}
	gone := list[:len(list)-len(retain(kind, list, s.withdrawal(list[0])))]
	for _, e := range gone {
		s.remove(e)
	}
	return gone
}

// ofLog returns the entries of a kind and name that are of one log, oldest first. The list is the caller's.
func (s *set) ofLog(key kindKey, name string, log LogID) []*entry {
	var out []*entry
	s.names.each(s.names.seek(func(x *entry) int {
		return cmp.Or(x.compareKey(key, name), x.log.compare(log), 1) // its first
	}), func(e *entry) bool {
		if *e.log != log || e.kind != key.kind || e.name != name {
			return false
		}
		out = append(out, e)
		return true
	})
	return out
}

// withdrawal returns the newest withdrawal of an artifact's name in its log, nil if there is none.
func (s *set) withdrawal(e *entry) *entry {
	if e.kind != KindArtifact {
		return nil
	}
	if h := s.logs[*e.log]; h == nil || h.withdrawals == 0 {
		return nil
	}
	if list := s.ofLog(kindKey{ScopeMain, KindWithdraw}, e.name, *e.log); len(list) > 0 {
		return list[len(list)-1]
	}
	return nil
}

// capped reports whether the key of e's origin was revoked before e. Certificates stay, because they are
// what verifies the records before; statements stay, so that two revokers who revoke one another end
// alike everywhere.
func (s *set) capped(e *entry) bool {
	caps := s.caps[e.log.Origin]
	return caps != nil && e.kind != KindCert && e.kind != KindStatement && e.seq > caps[*e.log]
}

// enforce works out the revocations anew from the live statements, and removes what they forbid.
func (s *set) enforce() []*entry {
	s.caps = map[id.Node]map[LogID]uint64{}
	s.each(kindKey{ScopeNodes, KindStatement}, "", func(e *entry) {
		if e.revoke() != nil {
			s.cap(e.revoke())
		}
	})
	var gone []*entry
	for _, h := range s.order {
		if s.caps[h.id.Origin] == nil {
			continue
		}
		h.sealed = 0
		for _, e := range h.recs.list() {
			if s.capped(e) {
				gone = append(gone, e)
			}
		}
	}
	for _, e := range gone {
		if e.kind == KindCheckpoint {
			s.logs[*e.log].floor = 0
		}
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

// settle makes the root what the logs are. It costs two hashes for each log that changed. Writers call it
// after a batch.
func (s *set) settle() {
	for h := range s.stale {
		s.root.minus(h.member)
		h.member = sum{}
		if h.recs.n > 0 {
			h.leaf = h.leafNow()
			h.member = member(h.grave())
			s.root.plus(h.member)
		}
	}
	clear(s.stale)
}

// leafNow is the hash of a log and its live set. Eight bytes, because a relay can not choose what is in a
// live set: who can is the origin, which could as well hold back the record.
func (h *history) leafNow() [8]byte {
	d := h.sum.digest()
	leaf := sha256.Sum256(append(h.id.key(), d[:]...))
	return [8]byte(leaf[:8])
}

// liveAfter is the digest of the live set of r's log once r, the next of it, is added.
func (s *set) liveAfter(r *Record, core []byte) artifact.Digest {
	e := &entry{log: &r.Log, name: r.Name, seq: r.Seq, kind: r.Kind, hash: sha256.Sum256(core)}
	h := s.logs[r.Log]
	var after sum
	if h != nil {
		after = h.sum
	}
	after.add(e.hash)
	less := func(kind uint8, list []*entry, withdrawal *entry) {
		for _, gone := range list[:len(list)-len(retain(kind, list, withdrawal))] {
			after.sub(gone.hash)
		}
	}
	if r.Kind == KindArtifact {
		if a, err := DecodeArtifact(r.Body); err == nil { // if not, the record is refused later
			e.keep = uint16(a.Keep)
		}
	}
	less(r.Kind, append(s.ofLog(kindKey{r.Log.Scope, r.Kind}, r.Name, r.Log), e), nil)
	switch {
	case r.Kind == KindWithdraw:
		less(KindArtifact, s.ofLog(kindKey{r.Log.Scope, KindArtifact}, r.Name, r.Log), e)
	case r.Kind == KindCheckpoint && h != nil:
		body, err := DecodeCheckpoint(r.Body)
		if err != nil {
			break // refused later
		}
		for _, gone := range h.recs.list() {
			if gone.seq < body.Floor && gone.kind != KindCheckpoint {
				after.sub(gone.hash)
			}
		}
	}
	return after.digest()
}
