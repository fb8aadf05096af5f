//go:build linux

package demo

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// leafPatience is how long these tests wait for a leaf; what they print is judged elsewhere.
const leafPatience = 2 * time.Minute

// A leaf that is cut off (for -apart), or that gets another address, while there is news on both sides.
func TestALeafThatWasCutOffOrMovedIsBackWithoutRestart(t *testing.T) {
	if !thorough() {
		t.Skip("skip: uses network namespaces; MESHD_TEST_ALL=1 runs it")
	}
	t.Parallel() // it mostly waits
	s, f := newSite(t)
	a := f.found("a", leafScore)
	f.join("b")
	far := f.join("far")
	for _, n := range f.nodes {
		n.alive(3)
	}
	till := f.invited("till")
	s.shut("till", "far")
	till.start()
	for _, n := range []*node{a, far} {
		n.seesLeaf("till")
	}
	tell := func(text string) {
		a.tellNews(text)
		till.tellNews(text)
	}
	tell("first")
	newsBothWays(t, a, till, far, "first")
	for street := 2; street < 4; street++ {
		text := fmt.Sprintf("in street %d", street)
		s.move("till", street)
		began := time.Now()
		tell(text)
		newsBothWays(t, a, till, far, text)
		t.Logf("moved to another address: news went both ways in %v (aim: 10s)", round(time.Since(began)))
	}

	began := time.Now()
	s.split("till")
	tell("alone")
	rest(t, began, *apart)
	if got := readFile(t, far.work("news", "till")); got == "till alone" {
		t.Fatal("the link is not cut")
	}
	healed := time.Now()
	s.heal()
	newsBothWays(t, a, till, far, "alone")
	t.Logf("cut for %v: after the link's return news went both ways in %v (aim: 10s)", round(healed.Sub(began)), round(time.Since(healed)))
	f.sameProcesses()
}

// newsBothWays waits until the news of a are in place on the leaf, and those of the leaf on a node that it can't speak to.
func newsBothWays(t *testing.T, a, leaf, far *node, text string) {
	t.Helper()
	began := time.Now()
	for _, way := range []struct{ by, at *node }{{a, leaf}, {leaf, far}} {
		path, want := way.at.work("news", way.by.name), way.by.name+" "+text
		for {
			b, err := os.ReadFile(path)
			if string(b) == want {
				break
			}
			if time.Since(began) > leafPatience {
				t.Fatalf("after %v %s has %q of %s (%v), want %q", leafPatience, way.at.name, b, way.by.name, err, want)
			}
			rest(t, time.Now(), 20*time.Millisecond)
		}
	}
}
