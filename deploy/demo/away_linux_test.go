//go:build linux

package demo

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"meshd/agent/control"
)

// asleep and apart are longer than SWIM takes to give a node of three up; the tests wait for that besides.
var (
	asleep = flag.Duration("asleep", 20*time.Second, "how long a node is stopped by SIGSTOP (60s shows more)")
	apart  = flag.Duration("apart", 15*time.Second, "how long a link is cut, at least")
)

// newsScore has everybody want what everybody publishes by hand.
const newsScore = `score "news" {
  version  = "1.0.0"
  language = 1
}
part "news" {
  want "of" {
    for_each = ["a", "b", "c"]
    name     = "news/${each.key}"
    place    = "news/${each.key}"
  }
}
`

// newsroom is three nodes, each in a network of its own, who have placed one another's first news.
func newsroom(t *testing.T) (*site, *fleet) {
	t.Helper()
	if !thorough() {
		t.Skip("skip: uses network namespaces; MESHD_TEST_ALL=1 runs it")
	}
	t.Parallel() // it mostly waits
	s, f := newSite(t)
	f.found("a", newsScore)
	f.join("b")
	f.join("c")
	for _, n := range f.nodes {
		n.alive(3)
		n.tellNews("first")
	}
	f.allHave("a first", "b first", "c first")
	return s, f
}

// tellNews publishes the node's news, which say who tells them.
func (n *node) tellNews(text string) {
	n.f.t.Helper()
	path := filepath.Join(n.f.dir, "news-"+n.name)
	if err := os.WriteFile(path, []byte(n.name+" "+text), 0o644); err != nil {
		n.f.t.Fatal(err)
	}
	n.ctl("publish", "news/"+n.name, path)
}

// allHave waits until these news, and no older ones of the same nodes, are in place on all nodes.
func (f *fleet) allHave(news ...string) time.Duration {
	f.t.Helper()
	return eventually(f.t, "all have the news", func() (bool, string) {
		for _, n := range f.nodes {
			for _, text := range news {
				name, _, _ := strings.Cut(text, " ")
				if b, err := os.ReadFile(n.work("news", name)); err != nil || string(b) != text {
					return false, fmt.Sprintf("%s has %q of %s (%v)", n.name, b, name, err)
				}
			}
		}
		return true, ""
	})
}

// agree waits until all nodes list the same artifacts.
func (f *fleet) agree() time.Duration {
	f.t.Helper()
	return eventually(f.t, "all list the same", func() (bool, string) {
		want := offers(f.nodes[0])
		for _, n := range f.nodes[1:] {
			if got := offers(n); !slices.Equal(got, want) {
				return false, fmt.Sprintf("%s lists\n%v\nand %s\n%v", n.name, got, f.nodes[0].name, want)
			}
		}
		return true, ""
	})
}

// sameProcesses checks that no node was started again.
func (f *fleet) sameProcesses() {
	f.t.Helper()
	for _, n := range f.nodes {
		if v, err := n.door().Version(f.t.Context()); err != nil || v.PID != n.proc.PID() {
			f.t.Errorf("pid %d answers for %s, want %d (%v)", v.PID, n.name, n.proc.PID(), err)
		}
	}
}

// rest waits until so much time has passed since began.
func rest(t *testing.T, began time.Time, d time.Duration) {
	select {
	case <-time.After(d - time.Since(began)):
	case <-t.Context().Done():
	}
}

func TestBothSidesOfACutLinkPublishAndAgreeOnceItHeals(t *testing.T) {
	s, f := newsroom(t)
	a, b, c := f.nodes[0], f.nodes[1], f.nodes[2]
	began := time.Now()
	s.split("a")
	a.tellNews("is cut off")
	b.tellNews("misses a")
	a.alive(1)
	b.alive(2)
	c.alive(2)
	t.Logf("both sides gave the other up within %v", round(time.Since(began)))
	for i := range 10 {
		a.tellNews(fmt.Sprintf("alone %d", i))
		b.tellNews(fmt.Sprintf("with c %d", i))
	}
	holds(t, c.work("news", "b"), "b with c 9")
	rest(t, began, *apart)
	if got := readFile(t, b.work("news", "a")); got != "a first" {
		t.Fatalf("b has %q of a: the link is not cut", got)
	}

	healed := time.Now()
	s.heal()
	f.allHave("a alone 9", "b with c 9", "c first")
	placed := time.Since(healed)
	f.agree()
	agreed := time.Since(healed)
	for _, n := range f.nodes {
		n.alive(3)
	}
	t.Logf("cut for %v; after the link's return everything was placed in %v, catalogs were equal in %v, all alive in %v (aim: 10s)",
		round(healed.Sub(began)), round(placed), round(agreed), round(time.Since(healed)))
	f.sameProcesses()
}

func TestANodeWhoseAddressChangesIsBackWithoutRestart(t *testing.T) {
	s, f := newsroom(t)
	a, c := f.nodes[0], f.nodes[2]
	for street := 2; street < 4; street++ {
		began := time.Now()
		addr := s.move("c", street)
		news := fmt.Sprintf("writes to street %d", street)
		a.tellNews(news)
		c.tellNews(news)
		f.allHave("a "+news, "c "+news)
		placed := time.Since(began)
		for _, n := range []*node{a, f.nodes[1]} {
			eventually(t, n.name+" knows the address of c", func() (bool, string) {
				m := n.member("c")
				return m.Status == "alive" && strings.HasPrefix(m.Address, addr+":"), m.Status + " " + m.Address
			})
		}
		t.Logf("moved to %s: news went both ways in %v, all knew the address in %v", addr, round(placed), round(time.Since(began)))
	}
	f.agree()
	f.sameProcesses()
}

// member is how the node lists another.
func (n *node) member(name string) control.Member {
	n.f.t.Helper()
	list, err := n.door().Members(n.f.t.Context())
	if err != nil {
		n.f.t.Fatal(err)
	}
	for _, m := range list {
		if m.Name == name {
			return m
		}
	}
	return control.Member{}
}

func TestANodeThatWasStoppedIsRightInSecondsOfItsResume(t *testing.T) {
	_, f := newsroom(t)
	a, b, c := f.nodes[0], f.nodes[1], f.nodes[2]
	began := time.Now()
	if err := syscall.Kill(c.proc.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// Before the fleet's end, which would wait for a stopped process in vain.
	t.Cleanup(func() { _ = syscall.Kill(c.proc.PID(), syscall.SIGCONT) })
	a.alive(2)
	b.alive(2)
	t.Logf("given up after %v", round(time.Since(began)))
	for i := range 10 {
		a.tellNews(fmt.Sprintf("without c %d", i))
	}
	rest(t, began, *asleep)

	woken := time.Now()
	if err := syscall.Kill(c.proc.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	c.tellNews("slept")
	f.allHave("a without c 9", "b first", "c slept")
	placed := time.Since(woken)
	f.agree()
	for _, n := range f.nodes {
		n.alive(3)
	}
	t.Logf("stopped for %v; after its resume news were placed both ways in %v, all alive in %v", round(woken.Sub(began)), round(placed), round(time.Since(woken)))
	f.sameProcesses()
}
