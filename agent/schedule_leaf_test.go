package agent

import (
	"fmt"
	"maps"
	"slices"

	"meshd/mesh/catalog"
)

// move gives a machine another address; the founder keeps its own, so that somebody is where he was known to be.
func (s *schedule) move() {
	leaf := s.ops.IntN(3) > 0
	h := s.pick(func(h *faultyHost) bool { return h.name != "n1" && h.leaf == leaf })
	if h == nil {
		return
	}
	running := up(h)
	s.halt(h.simNode, s.ops.IntN(2) == 0)
	h.moves++
	h.addr = fmt.Sprintf("10.0.%d.%s", h.moves, h.addr[len("10.0.0."):])
	s.net.NAT(h.addr, h.leaf)
	s.links()
	if running {
		s.begin(h)
	}
	s.say("%s is at %s now", h.name, h.addr)
}

// cutDown kills the attach point of a leaf.
func (s *schedule) cutDown() {
	leaf := s.pick(func(h *faultyHost) bool { return up(h) && h.leaf })
	if leaf == nil {
		return
	}
	at := s.pick(func(h *faultyHost) bool { return up(h) && h.agent.mesh.AttachedHere(leaf.agent.mesh.Self()) })
	if at == nil {
		return
	}
	s.halt(at.simNode, true)
	s.say("%s, to which %s is attached, crashes", at.name, leaf.name)
}

// leavesAlive says whether all see every leaf as what it is.
func (s *schedule) leavesAlive() (bool, string) {
	for _, l := range s.hosts {
		if !l.leaf || l.left {
			continue
		}
		for _, o := range s.hosts {
			if o == l || o.left {
				continue
			}
			if n := o.sees(l.name); !n.Leaf || n.Status != "alive" {
				return false, fmt.Sprintf("%s sees %s %s, a leaf %v", o.name, l.name, n.Status, n.Leaf)
			}
		}
	}
	return true, ""
}

// compareHeads notes who knows more notes of a machine's log than the backup that it has just begun from. Of what is
// replaced by the next one of its name, as the status is, nobody may have kept the one that would tell.
func (s *schedule) compareHeads(h *faultyHost) {
	own := h.agent.mesh.Catalog()
	h.old, h.ahead = own.Epoch(), map[string]bool{}
	var head uint64
	for _, l := range own.Heads(h.agent.mesh.Self()) {
		if l.Epoch == h.old && l.Scope == catalog.ScopeMain {
			head = l.Seq
		}
	}
	for _, o := range s.hosts {
		if o == h || o.left || o.restored {
			continue
		}
		for _, r := range o.agent.mesh.Catalog().LiveNamed(catalog.KindArtifact, "note/"+h.name) {
			if r.Log.Origin == h.agent.mesh.Self() && r.Log.Epoch == h.old && r.Seq > head {
				h.ahead[o.name] = true
			}
		}
	}
	if len(h.ahead) > 0 {
		s.say("  of which %v know more than the backup", slices.Sorted(maps.Keys(h.ahead)))
	}
}

// writesOn notes that a machine's next note may pass, in its log, what those know of whom it can not hear now. What
// they have of the other branch may then be replaced before the two meet, and nothing is left that would tell of it.
func (s *schedule) writesOn(h *faultyHost) {
	maps.DeleteFunc(h.ahead, func(name string, _ bool) bool {
		o := s.hosts[name]
		return !up(h) || !up(o) || s.side[name] != s.side[h.name]
	})
}

// newLogs says that nobody goes on with a log of which others know records that he has not: two records of one number
// would be his, and those who heard the one would not take the other. All agree now, so he has been told.
func (s *schedule) newLogs(when string) {
	s.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(s.hosts)) {
		h := s.hosts[name]
		if h.left || len(h.ahead) == 0 {
			continue
		}
		if now := h.agent.mesh.Catalog().Epoch(); now <= h.old {
			s.fail("%s: %s was restored from a backup, %v knew more of its log, and it goes on with the same one, %x",
				when, name, slices.Sorted(maps.Keys(h.ahead)), now)
		}
	}
}
