package agent

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"meshd/store"
)

var (
	schedules    = flag.Int("schedules", 200, "how many schedules of faults the simulated mesh is put through")
	scheduleFrom = flag.Uint64("schedule-from", 0, "the first schedule's seed: a failing one is named, and reruns by -schedules 1 -schedule-from SEED")
)

// notes is a score in which every node publishes a note and wants everybody's.
const notes = `score "notes" {
  version  = "1.0.0"
  language = 1
  why      = "Every node leaves a note, and keeps everybody's"
}

part "all" {
  artifact "note" {
    name = "note/${node.name}"
    from = "note.txt"
    keep = 64
  }
  want "notes" {
    name  = "note/*"
    place = "in/${artifact.name}"
  }
  file "own" {
    path    = "own.txt"
    content = "mine\n"
  }
}
`

// Whatever happens to a mesh, in any order: nothing that was acknowledged is lost, no version goes back, all that
// can reach each other agree soon after, and no promise waits for a peer that it does not need.
func TestMeshSurvivesSchedulesOfFaults(t *testing.T) {
	for seed := *scheduleFrom; seed < *scheduleFrom+uint64(*schedules); seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { newSchedule(t, seed).play() })
		})
	}
}

// A schedule is a fleet to which things happen that a seed chose.
type schedule struct {
	*fleet
	ops   *rand.Rand // what happens; the fleet's own rand is for delays
	told  []string   // what happened, for a failing test
	hosts map[string]*faultyHost
	side  map[string]int // of a partition; empty: none
	last  int            // number of the last machine
}

// A faultyHost is what a schedule knows of a machine beside the node on it.
type faultyHost struct {
	*simNode
	skew  atomic.Int64 // of its clock
	disk  atomic.Int32 // diskFull, diskFlaky or 0
	edits int
	saved string // a backup of its data folder; "": none
	left  bool   // for ever
	leaf  bool   // nothing reaches it unasked,
	told  bool   // and it was told so; else it finds out
	moves int    // to other addresses
	bare  bool   // it is new or lost its store, and may not have the score yet

	acked  uint64            // the highest version of its own note that it knew to be published
	placed map[string]uint64 // the highest version of each note that it had in place

	restored bool            // it begins from a backup next
	old      uint64          // the epoch in which it began from one last
	ahead    map[string]bool // machines that then knew more of that epoch than the backup
}

// How a disk fails: every write; or one in five, some of them applied all the same.
const (
	diskFull  = 1
	diskFlaky = 2
)

func newSchedule(t *testing.T, seed uint64) *schedule {
	s := &schedule{fleet: newFleet(t, seed), ops: rand.New(rand.NewPCG(seed, 0x5c4ed)), hosts: map[string]*faultyHost{}, side: map[string]int{}}
	s.setUp = func(cfg *Config) {
		h := s.hosts[filepath.Base(cfg.Node.Dir)]
		if h == nil {
			return
		}
		cfg.Leaf = h.leaf && h.told
		cfg.Wall = func() time.Time { return time.Now().Add(time.Duration(h.skew.Load())) }
		var writes atomic.Uint64
		cfg.diskFault = func(string) error {
			if d := h.disk.Load(); d == diskFull || d == diskFlaky && (seed+writes.Add(1))*0x9e3779b97f4a7c15>>32%5 == 0 {
				return fmt.Errorf("simulated: %w", syscall.ENOSPC)
			}
			return nil
		}
	}
	return s
}

func (s *schedule) say(format string, args ...any) {
	s.told = append(s.told, fmt.Sprintf(format, args...))
}

func (s *schedule) fail(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("seed %d: %s\nwhat happened:\n  %s\n%s", s.seed, fmt.Sprintf(format, args...), strings.Join(s.told, "\n  "), s.report())
}

func (s *schedule) play() {
	defer s.end()
	s.last = 1
	s.adopt(s.found("n1", nil))
	s.publishScore(notes)
	s.joinAnother(false)
	s.joinAnother(s.ops.IntN(3) == 0)
	s.calm("at first")
	for range 4 + s.ops.IntN(4) {
		s.ended()
		s.happen()
		if h := s.pick(up); h != nil && s.ops.IntN(3) > 0 {
			s.write(h)
			s.say("%s edits its note (%d)", h.name, h.edits)
		}
		if s.ops.IntN(3) == 0 {
			s.pause(100 * time.Millisecond) // in the middle of what just began
		} else {
			s.pause(10 * time.Second)
			s.local()
		}
		s.look()
	}
	s.recover()
	s.calm("in the end")
	s.look()
	s.same()
	s.t.Logf("seed %d:\n  %s", s.seed, strings.Join(s.told, "\n  "))
}

func (s *schedule) adopt(m *simNode) *faultyHost {
	h := s.hosts[m.name]
	if h == nil {
		h = &faultyHost{simNode: m, placed: map[string]uint64{}}
		s.hosts[m.name] = h
	}
	h.simNode = m
	s.write(h)
	return h
}

// joinAnother brings in a new machine, sponsored by the founder.
func (s *schedule) joinAnother(leaf bool) {
	s.last++
	name := fmt.Sprintf("n%d", s.last)
	h := &faultyHost{placed: map[string]uint64{}, bare: true, leaf: leaf, told: leaf && s.ops.IntN(2) == 0}
	s.hosts[name] = h
	if leaf {
		s.net.NAT(fmt.Sprintf("10.0.0.%d:6374", s.last), true)
		s.say("%s is a leaf, told so %v", name, h.told)
	}
	h.simNode = s.join(name, s.last, nil)
	s.write(h)
}

// write edits the note of a machine.
func (s *schedule) write(h *faultyHost) {
	h.edits++
	s.writesOn(h)
	h.put(s.t, "note.txt", fmt.Sprintf("%s writes note %d of schedule %d\n", h.name, h.edits, s.seed))
}

// begin starts a node; where its disk is so full that it can't, somebody makes room first.
func (s *schedule) begin(h *faultyHost) {
	s.t.Helper()
	err := s.tryStart(h.simNode)
	if errors.Is(err, syscall.ENOSPC) {
		s.say("%s does not start: %v", h.name, err)
		h.disk.Store(0)
		err = s.tryStart(h.simNode)
	}
	if err != nil {
		s.fail("%s does not start: %v", h.name, err)
	}
	if h.restored {
		h.restored = false
		s.compareHeads(h)
	}
}

// ended notices nodes that gave up by themselves: for want of room they may.
func (s *schedule) ended() {
	for _, name := range slices.Sorted(maps.Keys(s.hosts)) {
		h := s.hosts[name]
		if down(h) {
			continue
		}
		select {
		case err := <-h.done:
			if !errors.Is(err, syscall.ENOSPC) {
				s.fail("%s ended: %v", name, err)
			}
			s.say("%s ended: %v", name, err)
			h.stop()
			h.stop = nil
		default:
		}
	}
}

// pick returns a machine that some say of, in an order that the seed decides; nil when there is none.
func (s *schedule) pick(ok func(*faultyHost) bool) *faultyHost {
	var fit []*faultyHost
	for _, name := range slices.Sorted(maps.Keys(s.hosts)) {
		if h := s.hosts[name]; !h.left && ok(h) {
			fit = append(fit, h)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return fit[s.ops.IntN(len(fit))]
}

func up(h *faultyHost) bool   { return h.stop != nil }
func down(h *faultyHost) bool { return h.stop == nil }

// plays reports whether h, which runs, has a score; who had one on its disk always has.
func (h *faultyHost) plays() bool {
	if h.bare {
		v := h.agent.view.Load()
		h.bare = v == nil || v.program == nil
	}
	return !h.bare
}

func (s *schedule) running() int {
	n := 0
	for _, h := range s.hosts {
		if up(h) && !h.left {
			n++
		}
	}
	return n
}

// copied waits until others hold what h published.
func (s *schedule) copied(h *faultyHost) {
	s.until("others hold the note of "+h.name, time.Minute, func() (bool, string) {
		for _, o := range s.hosts {
			if o != h && up(o) && o.read("in/note/"+h.name) != h.read("note.txt") {
				return false, o.name
			}
		}
		return true, ""
	})
}

// recover undoes every fault that lasts.
func (s *schedule) recover() {
	s.ended()
	s.heal()
	for _, name := range slices.Sorted(maps.Keys(s.hosts)) {
		h := s.hosts[name]
		h.disk.Store(0)
		h.skew.Store(0)
		if !h.left && down(h) {
			s.begin(h)
		}
	}
	s.net.Delay(time.Millisecond, 20*time.Millisecond)
	s.net.Loss(0)
	s.say("all faults end")
}

// calm waits until all running nodes know the same and keep their promises.
func (s *schedule) calm(when string) {
	s.t.Helper()
	began := time.Now()
	for {
		ok, why := s.agree()
		if ok {
			s.newLogs(when)
			return
		}
		if time.Since(began) > time.Minute {
			s.putAway()
		}
		if time.Since(began) > 10*time.Minute {
			s.fail("%s: not whole within 10 minutes: %s", when, why)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// putAway does what the reason of a failed want says: what lies in the way, was placed by a store that is lost, and is
// no version that anybody knows any more, nobody but a person removes.
func (s *schedule) putAway() {
	for _, h := range s.hosts {
		if h.left {
			continue
		}
		for _, o := range s.hosts {
			path := filepath.Join("in", "note", o.name)
			at := store.PlaceOptions{Base: h.agent.cfg.WorkDir, Path: path}
			if h.read(path) == "" || h.agent.supply.isVersion(s.t.Context(), "note/"+o.name, at) {
				continue
			}
			list, err := h.agent.ownPromises(s.t.Context(), "all.want.notes")
			if err == nil && len(list) == 1 && strings.Contains(list[0].Reason, store.ErrForeign.Error()) {
				_ = os.Remove(filepath.Join(at.Base, path))
			}
		}
	}
}

func (s *schedule) agree() (bool, string) {
	root := s.hosts["n1"].agent.mesh.Catalog().Root()
	for _, h := range s.hosts {
		if h.left {
			continue
		}
		if h.agent.mesh.Catalog().Root() != root {
			return false, h.name + " has another catalog than n1"
		}
		for _, o := range s.hosts {
			got, want := h.read("in/note/"+o.name), o.read("note.txt")
			if !o.left && got != want || got == "" {
				return false, fmt.Sprintf("%s has %q of %s, which wrote %q", h.name, got, o.name, want)
			}
			offers := h.agent.supply.named("note/" + o.name)
			if len(offers) == 0 {
				return false, fmt.Sprintf("%s knows no note of %s", h.name, o.name)
			}
			if have, err := h.agent.store.Has(offers[len(offers)-1].ref.Root); err != nil || !have {
				return false, fmt.Sprintf("%s has not the bytes of the newest note of %s (%v)", h.name, o.name, err)
			}
		}
	}
	if ok, why := s.allKept(); !ok {
		return false, why
	}
	return s.leavesAlive()
}

// look notes what is acknowledged and in place now, and that nothing went back.
func (s *schedule) look() {
	s.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(s.hosts)) {
		h := s.hosts[name]
		if down(h) {
			continue
		}
		if own, ok := h.agent.supply.ownNewest("note/" + name); ok {
			h.acked = max(h.acked, own.body.Counter)
		}
		for _, p := range h.agent.supply.placements("all.want.notes") {
			if p.Counter < h.placed[p.Name] {
				s.fail("%s went back from version %d of %s to %d", name, h.placed[p.Name], p.Name, p.Counter)
			}
			h.placed[p.Name] = p.Counter
		}
	}
}

// local damages what a node can repair by itself: no absent peer may hold that up.
func (s *schedule) local() {
	s.t.Helper()
	h := s.pick(func(h *faultyHost) bool { return up(h) && h.disk.Load() == 0 && h.plays() })
	if h == nil {
		return
	}
	path := filepath.Join(h.dir, "work", "own.txt")
	if err := os.WriteFile(path, []byte("vandals\n"), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	h.host.Touch(filepath.Dir(path), "own.txt")
	began := time.Now()
	for h.read("own.txt") != "mine\n" {
		if time.Since(began) > 5*time.Second {
			s.fail("%s has not repaired its own file within 5 s", h.name)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// same says that nothing that was acknowledged is lost, and that all have it.
func (s *schedule) same() {
	s.t.Helper()
	for _, h := range s.hosts {
		if h.left {
			continue
		}
		for _, o := range s.hosts {
			name := "note/" + o.name
			if got := h.agent.supply.highest(name); got < o.acked {
				s.fail("%s knows version %d of %s, of which %d was acknowledged", h.name, got, name, o.acked)
			}
		}
	}
}
