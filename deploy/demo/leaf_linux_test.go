//go:build linux

package demo

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var idle = flag.Duration("idle", 25*time.Second, "how long the bytes of an idle leaf are counted (1h, say), after a minute in which it settles; up to a minute: after 3s")

// leafScore has everybody want what the leaf and the first member publish by hand.
const leafScore = `score "news" {
  version  = "1.0.0"
  language = 1
}
part "news" {
  want "of" {
    for_each = ["a", "till"]
    name     = "news/${each.key}"
    place    = "news/${each.key}"
  }
}
`

func TestALeafThatNobodyCanReachIsSeenPublishesAndChangesItsAttachPoint(t *testing.T) {
	if !thorough() {
		t.Skip("skip: uses network namespaces; MESHD_TEST_ALL=1 runs it")
	}
	t.Parallel() // it mostly waits
	s, f := newSite(t)
	a := f.found("a", leafScore)
	f.join("b")
	f.join("c")
	far := f.join("far")
	for _, n := range f.nodes {
		n.alive(4)
	}
	members := slices.Clone(f.nodes)
	till := f.invited("till")
	s.shut("till", "far")
	began := time.Now()
	till.start()
	for _, n := range members {
		n.seesLeaf("till")
	}
	t.Logf("all members see the leaf %v after its start", round(time.Since(began)))
	active, _ := till.points(members)

	till.tellNews("first")
	holds(t, far.work("news", "till"), "till first") // so that it has the score
	newsOfALeaf(t, a, till, far)
	idleLeaf(t, s, till)

	killed := time.Now()
	active.kill()
	next := till.waitForPoint(members, active)
	took := time.Since(killed)
	text := "from " + next.name + " on"
	till.tellNews(text)
	holds(t, far.work("news", "till"), "till "+text)
	t.Logf("attach point %s killed: standby %s took over in %v, news were on a node that the leaf never spoke to after %v (aim: 5s)",
		active.name, next.name, round(took), round(time.Since(killed)))
	for _, n := range f.running() {
		if n != till {
			n.alive(4) // the killed one is seen to be gone, the leaf is not
			n.seesLeaf("till")
		}
	}
}

// shut lets nobody begin to speak to the node, and the node and the other one not speak at all.
func (s *site) shut(name, other string) {
	s.t.Helper()
	addr, _, _ := strings.Cut(fmt.Sprintf(siteAddr, 1, s.ports[other]), "/")
	command(s.t, "nsenter", "--net=/run/netns/"+s.prefix+name, "nft",
		"add table inet count; add chain inet count in { type filter hook prerouting priority -300; };"+
			"add chain inet count out { type filter hook postrouting priority 300; };"+
			"add rule inet count in iif != lo meta l4proto { tcp, udp } counter; add rule inet count out oif != lo meta l4proto { tcp, udp } counter;"+
			"add table inet door; add chain inet door in { type filter hook input priority 0; policy drop; };"+
			"add chain inet door out { type filter hook output priority 0; policy accept; };"+
			"add rule inet door in iif lo accept; add rule inet door in ct state established,related accept;"+
			"add rule inet door out ip daddr "+addr+" drop")
}

// seesLeaf waits until the node lists the other one as a leaf that is alive.
func (n *node) seesLeaf(name string) {
	n.f.t.Helper()
	eventually(n.f.t, n.name+" sees the leaf "+name, func() (bool, string) {
		m := n.member(name)
		return m.Kind == "leaf" && m.Status == "alive", "it is a " + m.Kind + ", " + m.Status
	})
}

var (
	attachedLine = regexp.MustCompile(`msg=attached to=(\w+) standby=(true|false)`)
	promotedLine = regexp.MustCompile(`msg="the standby is the attach point now" node=(\w+)`)
)

// points waits until the leaf has an attach point and a standby, as it logs.
func (n *node) points(members []*node) (active, standby *node) {
	n.f.t.Helper()
	eventually(n.f.t, n.name+" has an attach point and a standby", func() (bool, string) {
		active, standby = n.logged(members)
		return active != nil && standby != nil, n.proc.Tail()
	})
	return active, standby
}

// waitForPoint waits until the leaf has another attach point than that one.
func (n *node) waitForPoint(members []*node, old *node) (active *node) {
	n.f.t.Helper()
	eventually(n.f.t, n.name+" has another attach point", func() (bool, string) {
		active, _ = n.logged(members)
		return active != nil && active != old, n.proc.Tail()
	})
	return active
}

// logged is what the leaf's log tells of its attach points; nil for one that it does not name.
func (n *node) logged(members []*node) (active, standby *node) {
	n.f.t.Helper()
	named := func(short string) *node {
		for _, m := range members {
			if strings.HasPrefix(n.member(m.name).ID, short) {
				return m
			}
		}
		n.f.t.Fatalf("%s is attached to %s, which is none of the members", n.name, short)
		return nil
	}
	for line := range strings.Lines(readFile(n.f.t, n.dir+".log")) {
		if found := attachedLine.FindStringSubmatch(line); found != nil {
			if found[2] == "true" {
				standby = named(found[1])
			} else {
				active = named(found[1])
			}
		}
		if found := promotedLine.FindStringSubmatch(line); found != nil {
			active, standby = named(found[1]), nil
		}
	}
	return active, standby
}

// newsOfALeaf prints how long news take from the leaf to a node that it can't speak to, and from a member to the leaf.
func newsOfALeaf(t *testing.T, from, leaf, far *node) {
	t.Helper()
	for _, way := range []struct{ by, at *node }{{leaf, far}, {from, leaf}} {
		var took []time.Duration
		for i := range 10 {
			text := fmt.Sprintf("%s of day %d", way.by.name, i)
			began := time.Now()
			way.by.tellNews(fmt.Sprintf("of day %d", i))
			holds(t, way.at.work("news", way.by.name), text)
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		t.Logf("news of %s are in place on %s, from the start of meshctl publish on: median %v, longest of %d %v (aim: 1s)",
			way.by.name, way.at.name, round(took[len(took)/2]), len(took), round(took[len(took)-1]))
	}
}

// idleLeaf prints what an idle leaf sends and receives on its interface.
func idleLeaf(t *testing.T, s *site, leaf *node) {
	t.Helper()
	settle := 3 * time.Second // what follows the last news
	if *idle > time.Minute {
		settle = 90 * time.Second // streams that artifacts came on end after a minute
	}
	rest(t, time.Now(), settle)
	began, before, beforeIP := time.Now(), leaf.carried(), s.counted(leaf.name)
	rest(t, began, *idle)
	bytes, ip, span := leaf.carried()-before, s.counted(leaf.name)-beforeIP, time.Since(began)
	hourly := func(n int64) float64 { return float64(n) * float64(time.Hour) / float64(span) }
	t.Logf("an idle leaf sends and receives %d bytes on its interface in %v, headers, ARP and ICMP too: %.0f an hour (aim: 15000); "+
		"%d of it are TCP and UDP with IP headers: %.0f an hour", bytes, round(span), hourly(bytes), ip, hourly(ip))
	if _, err := leaf.door().Version(t.Context()); err != nil {
		t.Errorf("the leaf does not answer after an idle while: %v", err)
	}
}

var counterLine = regexp.MustCompile(`counter packets \d+ bytes (\d+)`)

// counted is how many bytes of TCP and UDP, IP headers included, went in and out of a node that is shut.
func (s *site) counted(name string) (bytes int64) {
	s.t.Helper()
	listed := command(s.t, "nsenter", "--net=/run/netns/"+s.prefix+name, "nft", "list", "table", "inet", "count")
	for _, found := range counterLine.FindAllStringSubmatch(listed, -1) {
		n, err := strconv.ParseInt(found[1], 10, 64)
		if err != nil {
			s.t.Fatal(err)
		}
		bytes += n
	}
	return bytes
}

// carried is how many bytes went in and out of the interface of the network where the node lives.
func (n *node) carried() (bytes int64) {
	n.f.t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/net/dev", n.proc.PID()))
	if err != nil {
		n.f.t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		device, counts, _ := strings.Cut(strings.TrimSpace(lines.Text()), ":")
		fields := strings.Fields(counts)
		if device != siteDevice || len(fields) < 9 {
			continue
		}
		for _, i := range []int{0, 8} { // received, sent
			count, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil {
				n.f.t.Fatal(err)
			}
			bytes += count
		}
		return bytes
	}
	n.f.t.Fatalf("%s has no counts of %s", n.name, siteDevice)
	return 0
}
