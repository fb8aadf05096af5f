package agent

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"time"

	"meshd/agent/control"
	"meshd/policies"
)

const (
	clockSkew   = time.Minute         // between two nodes' clocks that is worth a word
	certNear    = 5 * 24 * time.Hour  // before its end a certificate should have been renewed long ago
	charterNear = 30 * 24 * time.Hour // before its end a new charter should be signed
	maxAils     = 50                  // promises told one by one

	reserveShare = 50        // below 1/50 of the disk free nothing new is pulled,
	reserveBytes = 256 << 20 // or below this much, if that is less
)

// oldest is before any meshd was built: a clock that says so was never set.
var oldest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// troubles says what is wrong and what to do about it, problems first.
func (v vitals) troubles() []control.Trouble {
	var out []control.Trouble
	for _, look := range []func() []control.Trouble{
		v.clock, v.port, v.peers, v.papers, v.logs, v.score, v.promises, v.machine,
	} {
		out = append(out, look()...)
	}
	slices.SortStableFunc(out, func(x, y control.Trouble) int { return cmp.Compare(x.Level, y.Level) }) // problem, warning
	return out
}

func problem(check, subject, advice, layout string, args ...any) control.Trouble {
	return control.Trouble{Level: control.LevelProblem, Check: check, Subject: subject, Text: fmt.Sprintf(layout, args...), Advice: advice}
}

func warning(check, subject, advice, layout string, args ...any) control.Trouble {
	t := problem(check, subject, advice, layout, args...)
	t.Level = control.LevelWarning
	return t
}

func (v vitals) clock() (out []control.Trouble) {
	const advice = "set this machine's clock, and keep it set (chrony, systemd-timesyncd)"
	switch {
	case v.now.Before(oldest):
		return []control.Trouble{problem("clock", v.name, advice, "this machine says it is %s: its clock was never set", day(v.now))}
	case v.now.Before(v.notBefore.Add(-clockSkew)):
		return []control.Trouble{problem("clock", v.name, advice, "it is %s here, before this node's certificate begins (%s)", stamp(v.now), stamp(v.notBefore))}
	}
	for _, n := range v.nodes {
		if ahead := v.told[n.Name].Sub(v.now); !n.Self && ahead > clockSkew {
			out = append(out, warning("clock", n.Name, "compare the clocks of both machines, and keep them set",
				"its clock is %v ahead of this one, or this one is behind", ahead.Round(time.Second)))
		}
	}
	return out
}

func (v vitals) port() []control.Trouble {
	if v.offline {
		return []control.Trouble{warning("port", v.addr, "meshctl offline --end", "an operator has taken this node off line")}
	}
	if v.foreign {
		return []control.Trouble{problem("port", v.addr, "bring the interface with that address up, or start meshd with --listen :6374 for all addresses",
			"this node listens on an address that this machine has not now")}
	}
	if v.notTaken != "" {
		return []control.Trouble{problem("attach", v.name, "let more members that can be reached run: each takes 64 leaves", "no member takes this leaf in: %s", v.notTaken)}
	}
	others, alive, far := 0, 0, false
	for _, n := range v.nodes {
		if n.Self {
			continue
		}
		others++
		if n.Alive {
			alive++
		}
		far = far || slices.ContainsFunc(n.Addrs, func(a string) bool { return !isLoopback(a) })
	}
	local := !slices.ContainsFunc(v.addrs, func(a string) bool { return !isLoopback(a) })
	switch {
	case others > 0 && far && local:
		return []control.Trouble{problem("port", v.addr, "start meshd with --listen :6374, or --advertise HOST:PORT that others can reach",
			"this node tells others to find it at a loopback address, which means themselves")}
	case others > 0 && alive == 0 && v.attached:
		return []control.Trouble{problem("port", v.addr, "open this port for TCP and UDP, from everywhere (firewall, NAT), or --advertise the address that leads here",
			"this node reaches others, but none reaches it")}
	case others > 0 && alive == 0:
		return []control.Trouble{problem("port", v.addr, "see that the network is up, and that this port is open for TCP and UDP both ways",
			"none of the %d other nodes can be reached", others)}
	}
	return nil
}

func isLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

func (v vitals) peers() (out []control.Trouble) {
	for _, n := range v.nodes {
		away, long := v.awayText(n)
		if n.Self || n.Alive || n.Status == "left" && !long {
			continue
		}
		since := "and was never seen from here"
		if !n.LastSeen.IsZero() {
			since = "last heard " + stamp(n.LastSeen)
		}
		out = append(out, warning("peers", n.Name, "start meshd there, or meshctl forget "+n.Name+" if it is gone for good (meshctl revoke, if its disk is not)",
			"%s, %s%s", n.Status, since, away))
	}
	return out
}

// papers looks at certificate and charter.
func (v vitals) papers() (out []control.Trouble) {
	const advice = "bring a node that may sponsor within reach: it renews by itself within the hour"
	switch left := v.notAfter.Sub(v.now); {
	case left <= 0:
		out = append(out, problem("certificate", v.name, advice, "expired %s", stamp(v.notAfter)))
	case left < certNear:
		out = append(out, warning("certificate", v.name, advice, "expires %s, and no sponsor has renewed it", stamp(v.notAfter)))
	}
	if !v.charterExpires.IsZero() && v.charterExpires.Sub(v.now) < charterNear {
		out = append(out, warning("charter", v.name, "sign a new version of the charter with the root keys", "the mesh's charter expires %s", stamp(v.charterExpires)))
	}
	return out
}

func (v vitals) logs() (out []control.Trouble) {
	cloned := map[string]bool{}
	for _, n := range v.nodes {
		if !n.Cloned {
			continue
		}
		cloned[n.Name] = true
		advice := "stop one of the two machines, and give it a key of its own (meshctl invite --replace); restart meshd on the other"
		if n.Self {
			out = append(out, problem("clone", n.Name, advice, "another machine writes with this node's key: nothing is published here until an hour has passed without"))
		} else {
			out = append(out, problem("clone", n.Name, advice, "it says that another machine writes with its key: it publishes nothing, and who looks for it may find either"))
		}
	}
	for _, f := range v.forks {
		switch {
		case cloned[f.name]:
		case f.answered:
			out = append(out, warning("fork", f.name, "nothing, if a backup was restored there; if its disk was cloned, stop one of the two machines and join it anew with an invite",
				"it signed two unlike records with one number: its disk went back in time. Both are kept, and it goes on in a new log"))
		default:
			out = append(out, problem("fork", f.name, "see whether "+f.name+" runs twice: a cloned disk, or a backup restored beside the original; stop one, and join it anew with an invite",
				"it signed two unlike records with one number: its key is in two places, or its disk went back in time"))
		}
	}
	if v.restored && len(cloned) == 0 {
		out = append(out, warning("restored", v.name, "nothing, if a backup was restored here; else see that no other machine runs with a copy of this disk",
			"own records came back within the last hour that this node did not hold: its disk went back in time. It goes on in a new log"))
	}
	return out
}

func (v vitals) score() (out []control.Trouble) {
	if v.refused != "" {
		out = append(out, problem("score", "score@"+v.refused, "mend it, raise its version, meshctl policy check DIR and publish it; or meshctl policy rollback",
			"a newer score is refused: %s", v.refusal))
	}
	if !v.scored {
		out = append(out, warning("score", v.name, "meshctl policy publish DIR, on a node with a score key", "no score is in force, so this node keeps no promises"))
	}
	return out
}

func (v vitals) promises() (out []control.Trouble) {
	slices.SortFunc(v.ails, func(x, y ail) int { return cmp.Compare(x.address, y.address) })
	for i, p := range v.ails {
		if i == maxAils {
			return append(out, warning("promises", v.name, "meshctl promises lists them all", "%d more are failed, drifted or paused", len(v.ails)-i))
		}
		switch {
		case p.paused:
			out = append(out, warning("promises", p.address, "meshctl pause --end, for this promise or for all", "%s", p.reason))
		case p.outcome == policies.Failed:
			out = append(out, problem("promises", p.address, "meshctl why and meshctl logs tell more; meshctl retry looks again at once", "failed: %s", p.reason))
		default:
			out = append(out, warning("promises", p.address, "mend it by hand, or let its promise do it (audit, during)", "drifted: %s", p.reason))
		}
	}
	return out
}

// machine looks at the disk, the watches and who lied.
func (v vitals) machine() (out []control.Trouble) {
	if floor := min(v.size/reserveShare, reserveBytes); v.size > 0 && v.freeBytes < floor {
		out = append(out, problem("disk", v.dir, "make room there: below the reserve nothing new is pulled",
			"%d MiB are free, and %d are kept as a reserve", v.freeBytes>>20, floor>>20))
	} else if v.size > 0 && v.freeBytes < 2*floor {
		out = append(out, warning("disk", v.dir, "make room there", "only %d MiB are free", v.freeBytes>>20))
	}
	if v.maxSize > 0 && v.packs > v.maxSize-v.maxSize/10 {
		out = append(out, warning("quota", v.dir, "raise --max-size, or withdraw what nobody needs: what would pass it is not fetched",
			"artifacts take %d of the %d MiB of max-size", v.packs>>20, v.maxSize>>20))
	}
	if v.unwatched > 0 {
		out = append(out, warning("watches", v.name, "sysctl fs.inotify.max_user_watches=1048576 (and max_user_instances)",
			"%d promises have a folder that can't be watched: changes there are seen at the next periodic look", v.unwatched))
	}
	for _, l := range v.liars {
		out = append(out, problem("liars", l.name, "look at that machine: its disk or memory is failing, or somebody has its key (meshctl revoke "+l.name+")",
			"it is not asked until %s: %s", stamp(l.until), l.why))
	}
	return out
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
