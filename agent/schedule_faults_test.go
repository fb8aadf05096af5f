package agent

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// happen does one thing.
func (s *schedule) happen() {
	switch n := s.ops.IntN(16); n {
	case 0, 1:
		s.partition()
	case 2:
		s.heal()
	case 3, 4:
		if h := s.pick(up); h != nil {
			s.halt(h.simNode, n == 3)
			s.say("%s stops, crash %v", h.name, n == 3)
		}
	case 5:
		if h := s.pick(down); h != nil {
			s.begin(h)
			s.say("%s starts", h.name)
		}
	case 6:
		s.sleep()
	case 7:
		if h := s.pick(up); h != nil {
			years := s.ops.IntN(9) - 4
			h.skew.Store(int64(time.Duration(years) * 365 * 24 * time.Hour))
			s.say("the clock of %s is %d years off", h.name, years)
		}
	case 8:
		if h := s.pick(up); h != nil {
			h.disk.Store(1 + s.ops.Int32N(2))
			s.say("the disk of %s is full or flaky: %d", h.name, h.disk.Load())
		}
	case 9, 10:
		s.backup()
	case 11:
		s.comeOrGo()
	case 12:
		s.weather()
	case 13:
		s.wipe()
	case 14:
		s.move()
	case 15:
		s.cutDown()
	}
}

// partition puts each machine on one of two sides that do not hear each other.
func (s *schedule) partition() {
	s.heal()
	for _, name := range slices.Sorted(maps.Keys(s.hosts)) {
		s.side[name] = s.ops.IntN(2)
	}
	s.links()
	s.say("a split: %v", s.side)
}

func (s *schedule) heal() {
	if len(s.side) == 0 {
		return
	}
	clear(s.side)
	s.links()
	s.say("the split heals")
}

// links cuts and heals as the sides say.
func (s *schedule) links() {
	for _, a := range s.hosts {
		for _, b := range s.hosts {
			switch {
			case a == b:
			case s.side[a.name] != s.side[b.name]:
				s.net.Cut(a.addr, b.addr)
			default:
				s.net.Heal(a.addr, b.addr)
			}
		}
	}
}

// sleep turns some machines off for minutes, seldom for an hour, while the others go on.
func (s *schedule) sleep() {
	var off []*faultyHost
	for _, name := range slices.Sorted(maps.Keys(s.hosts)) {
		if h := s.hosts[name]; up(h) && s.ops.IntN(2) == 0 {
			off = append(off, h)
			s.halt(h.simNode, true)
		}
	}
	span := 20*time.Second + time.Duration(s.ops.Int64N(int64(2*time.Minute)))
	if s.ops.IntN(20) == 0 {
		span *= 10
	}
	time.Sleep(span)
	var names []string
	for _, h := range off {
		s.begin(h)
		names = append(names, h.name)
	}
	s.say("asleep for %v: %v", span.Round(time.Minute), names)
}

// backup saves the whole disk of a machine, or brings back what was saved.
func (s *schedule) backup() {
	h := s.pick(func(h *faultyHost) bool { return h.saved != "" })
	if h == nil || s.ops.IntN(3) == 0 {
		h = s.pick(func(h *faultyHost) bool { return h.saved == "" })
	}
	if h == nil {
		return
	}
	running := up(h)
	s.halt(h.simNode, s.ops.IntN(2) == 0)
	if h.saved == "" {
		h.saved = filepath.Join(s.dir, "backup-"+h.name)
		s.copyDisk(h.saved, h.dir)
		s.say("a backup of %s", h.name)
	} else {
		if err := os.RemoveAll(h.dir); err != nil {
			s.t.Fatal(err)
		}
		s.copyDisk(h.dir, h.saved)
		s.lost(h)
		h.restored = true
		s.say("%s is restored from its backup", h.name)
	}
	if running {
		s.begin(h)
	}
}

func (s *schedule) copyDisk(to, from string) {
	err := os.CopyFS(to, os.DirFS(from))
	for _, secret := range []string{"node.key", "node.crt", "charter"} {
		if err == nil {
			err = os.Chmod(filepath.Join(to, secret), 0o600)
		}
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// wipe takes away what a machine's disk remembers, but for its identity and its work.
func (s *schedule) wipe() {
	h := s.pick(func(h *faultyHost) bool { return true })
	running := up(h)
	s.halt(h.simNode, s.ops.IntN(2) == 0)
	// What it placed of its own may be the last copy, which nobody replaces: the operator puts it away, as told.
	for _, path := range []string{"state.db", "packs", "work/in/note/" + h.name} {
		if err := os.RemoveAll(filepath.Join(h.dir, path)); err != nil {
			s.t.Fatal(err)
		}
	}
	s.lost(h)
	s.say("%s loses state.db and packs", h.name)
	if running {
		s.begin(h)
	}
}

// lost notes that a machine begins from an older state: of what it published the others may keep what they had.
func (s *schedule) lost(h *faultyHost) {
	clear(h.placed)
	h.acked, h.bare = 0, true
	h.restored, h.ahead = false, nil
	for _, o := range s.hosts {
		delete(o.ahead, h.name)
		h.acked = max(h.acked, o.placed["note/"+h.name])
	}
}

// weather changes how long messages take, and how many packets vanish.
func (s *schedule) weather() {
	slowest := time.Duration(1+s.ops.IntN(400)) * time.Millisecond
	loss := float64(s.ops.IntN(30)) / 100
	s.net.Delay(time.Millisecond, slowest)
	s.net.Loss(loss)
	s.say("messages take up to %v, %.0f %% of the packets vanish", slowest, 100*loss)
}

// comeOrGo lets a machine join, or leave for ever once all is well: what it alone has nobody can keep.
func (s *schedule) comeOrGo() {
	if s.ops.IntN(2) == 0 && s.last < 6 {
		if f := s.hosts["n1"]; up(f) && f.disk.Load() == 0 && f.skew.Load() == 0 && len(s.side) == 0 {
			s.joinAnother(s.ops.IntN(2) == 0)
			s.say("n%d joins", s.last)
		}
		return
	}
	h := s.pick(func(h *faultyHost) bool { return up(h) && h.name != "n1" })
	if h == nil || s.running() < 3 {
		return
	}
	s.recover()
	s.calm("before " + h.name + " leaves")
	s.copied(h)
	s.look()
	s.halt(h.simNode, s.ops.IntN(2) == 0)
	h.left = true
	s.say("%s leaves for ever", h.name)
}
