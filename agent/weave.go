package agent

import (
	"path/filepath"
	"slices"
	"strings"

	"meshd/policies"
)

// weave makes the graph anew: whom each instance waits for, by needs and by the literal paths and names
// that one promise makes and another reads. There is no order in the score but this.
func (l *loop) weave() {
	l.pathsOld = false
	clear(l.needs)
	clear(l.feeds)
	l.made = map[string]policies.Address{}
	makers := map[string]policies.Address{}
	for address, in := range l.instances {
		for _, m := range in.p.Makes {
			makers[m] = address
			if path, isFile := strings.CutPrefix(m, "file:"); isFile {
				l.made[l.absolute(path)] = address
			}
		}
	}
	for address, in := range l.instances {
		needs := slices.Clone(in.p.Needs)
		needs = append(needs, in.p.On...)
		needs = append(needs, restarters(in.p)...)
		for _, r := range in.p.Reads {
			if maker, ok := makerOf(makers, r); ok && maker != address {
				needs = append(needs, maker)
			}
		}
		slices.Sort(needs)
		needs = slices.Compact(needs)
		l.needs[address] = needs
		for _, n := range needs {
			l.feeds[n] = append(l.feeds[n], address)
		}
	}
	for _, fed := range l.feeds {
		slices.Sort(fed)
	}
	for _, in := range l.instances {
		if in.dirty {
			l.enqueue(in)
		}
	}
}

// makerOf finds who makes what is read: that very name, or for a path a folder above it.
func makerOf(makers map[string]policies.Address, read string) (policies.Address, bool) {
	if m, ok := makers[read]; ok {
		return m, true
	}
	path, isFile := strings.CutPrefix(read, "file:")
	for isFile && path != "." && path != "/" && path != "" {
		path = filepath.Dir(path)
		if m, ok := makers["file:"+path]; ok {
			return m, true
		}
	}
	return "", false
}

func restarters(p policies.Promise) []policies.Address {
	switch s := p.Spec.(type) {
	case policies.Process:
		return s.RestartOn
	case policies.Guest:
		return s.RestartOn
	}
	return nil
}

func (l *loop) absolute(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(l.a.cfg.WorkDir, path)
}

// madeByNeed reports whether path is made by a promise that in waits for: then nobody is half way through
// an edit of it when that promise is at rest.
func (l *loop) madeByNeed(in *instance, path string) bool {
	for p := path; len(p) > 1; p = filepath.Dir(p) {
		if maker, ok := l.made[p]; ok {
			return slices.Contains(l.needs[in.p.Address], maker)
		}
	}
	return false
}

// reach lists the wants that an instance's needs lead to, nearest first: what an artifact is made of.
func (l *loop) reach(from policies.Address) []policies.Address {
	var wants []policies.Address
	seen := map[policies.Address]bool{from: true}
	for queue := []policies.Address{from}; len(queue) > 0; queue = queue[1:] {
		for _, n := range l.needs[queue[0]] {
			if seen[n] {
				continue
			}
			seen[n] = true
			queue = append(queue, n)
			if in := l.instances[n]; in != nil && in.p.Type == "want" {
				wants = append(wants, n)
			}
		}
	}
	return wants
}
