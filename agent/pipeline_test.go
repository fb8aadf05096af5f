package agent

import (
	"flag"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"meshd/policies/examples"
)

var seeds = flag.Int("seeds", 50, "how many seeds of start order, delays, split and crash the pipeline is played with")

// postcards is the article's pipeline without its guests: the test brings the children up itself.
func postcards(t *testing.T) string {
	b, err := examples.Postcards.ReadFile("postcards/score.hcl")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), `part "children" {`)
	_, after, ok2 := strings.Cut(rest, "\n}\n")
	if !ok || !ok2 {
		t.Fatal("the postcard score has no part children")
	}
	return before + after
}

func TestTwoNodesHandOverOneArtifact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 1)
		defer f.end()
		f.found("host", map[string]string{"kind": "parent"})
		f.publishScore(postcards(t))
		child := f.join("container_1", 2, nil)
		took := f.until("the child has its job", 30*time.Second, func() (bool, string) {
			return strings.Contains(child.read("job_description.txt"), "This is for container_1 from host"), child.read("job_description.txt")
		})
		t.Logf("joined, score and job in place after %v", took)
	})
}

// The end state is the same whatever the order of starts, the delays, one split and one crash.
func TestPipelineEndsAlikeOverSeeds(t *testing.T) {
	var mu sync.Mutex
	var want map[string]string
	for seed := range *seeds {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			var got map[string]string
			synctest.Test(t, func(t *testing.T) { got = playPipeline(t, uint64(seed)) })
			mu.Lock()
			defer mu.Unlock()
			if want == nil {
				want = got
			}
			if !maps.Equal(got, want) {
				for k := range want {
					if got[k] != want[k] {
						t.Errorf("seed %d: %s is %q, in another run %q", seed, k, got[k], want[k])
					}
				}
				for k := range got {
					if _, ok := want[k]; !ok {
						t.Errorf("seed %d: %s is only here", seed, k)
					}
				}
			}
		})
	}
}

func playPipeline(t *testing.T, seed uint64) map[string]string {
	f := newFleet(t, seed)
	defer f.end()
	children := []string{"container_1", "container_2", "container_3"}
	f.found("host", map[string]string{"kind": "parent"})
	scoreAfter := f.rand.IntN(len(children) + 1)
	for i, c := range f.rand.Perm(len(children)) {
		if i == scoreAfter {
			f.publishScore(postcards(t))
		}
		f.pause(3 * time.Second)
		f.join(children[c], 2+c, nil)
	}
	if scoreAfter == len(children) {
		f.publishScore(postcards(t))
	}
	f.pause(10 * time.Second)

	// One split, one crash and one edit, in any order and overlap.
	victim := f.nodes[children[f.rand.IntN(3)]]
	if f.rand.IntN(4) == 0 {
		victim = f.parent
	}
	far := f.nodes[children[f.rand.IntN(3)]]
	f.split(far, true)
	f.pause(5 * time.Second)
	f.halt(victim, true)
	f.pause(20 * time.Second)
	f.start(victim)
	f.until("the slip is there", 2*time.Minute, func() (bool, string) {
		return f.parent.read("feeds/container_2_feed.txt") != "", "no slip"
	})
	f.edit(f.parent, "feeds/container_2_feed.txt", "Do tell of the weather")
	f.pause(20 * time.Second)
	f.split(far, false)

	took := f.until("the edit is in the package, and all is kept", 10*time.Minute, func() (bool, string) {
		if !strings.Contains(f.parent.read("package.tgz"), "Do tell of the weather") {
			return false, f.parent.read("package.tgz") + "the slip: " + f.parent.read("feeds/container_2_feed.txt")
		}
		return f.allKept()
	})
	f.until("every node knows the same", 2*time.Minute, func() (bool, string) {
		for _, m := range f.nodes {
			if m.agent.mesh.Catalog().Root() != f.parent.agent.mesh.Catalog().Root() {
				return false, m.name + " has another catalog"
			}
		}
		return true, ""
	})
	t.Logf("seed %d: whole %v after the heal", seed, took)
	return f.state()
}

func (f *fleet) pause(limit time.Duration) { time.Sleep(time.Duration(f.rand.Int64N(int64(limit)))) }

// split cuts one node off from all others, or heals that.
func (f *fleet) split(m *simNode, cut bool) {
	for _, other := range f.nodes {
		if other == m {
			continue
		}
		if cut {
			f.net.Cut(m.addr, other.addr)
		} else {
			f.net.Heal(m.addr, other.addr)
		}
	}
}
