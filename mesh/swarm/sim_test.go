package swarm

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"
)

// outcome is what a simulation came to.
type outcome struct {
	spec     simSpec
	took     time.Duration // until the last peer had all
	ideal    float64       // that over size and rate
	egress   float64       // what the origins sent over size
	finished []time.Duration
	wasted   int64
}

func (o outcome) String() string {
	return fmt.Sprintf("%d peers: %.3f x ideal, egress %.4f, first %.2f s, last %.2f s, %d KiB wasted",
		o.spec.peers, o.ideal, o.egress, o.finished[0].Seconds(), o.took.Seconds(), o.wasted>>10)
}

// play simulates until all peers that live have all; slow ones are not waited for in took.
func play(t testing.TB, spec simSpec, meddle func(s *sim)) outcome {
	t.Helper()
	s := newSim(spec)
	if meddle != nil {
		meddle(s)
	}
	if !s.run(s.done, 10*time.Minute) {
		for _, n := range s.nodes {
			if n.plan != nil {
				t.Logf("node %d: %d chunks missing, %d requests open", n.index, n.plan.missing, len(n.plan.open))
			}
		}
		t.Fatalf("not complete after %v", s.now)
	}
	out := outcome{spec: spec}
	for i, n := range s.nodes {
		if n.desk != nil {
			out.egress += float64(s.served[i]) / float64(spec.size)
			continue
		}
		out.wasted += n.wasted
		if _, slow := spec.slow[i-spec.origins]; !n.link.dead && !slow {
			out.finished = append(out.finished, n.finished-n.started)
		}
	}
	slices.Sort(out.finished)
	out.took = out.finished[len(out.finished)-1]
	out.ideal = out.took.Seconds() / (float64(spec.size) / spec.rate)
	t.Log(out)
	return out
}

// standard is 32 MiB over links of 40 Mbit/s.
func standard(peers int) simSpec {
	return simSpec{peers: peers, origins: 1, size: simSize, rate: simRate, delay: simDelay}
}

func TestSwarmReachesItsTargets(t *testing.T) {
	tests := []struct {
		name          string
		spec          func() simSpec
		meddle        func(s *sim)
		egress, ideal float64
	}{
		{"one peer", func() simSpec { return standard(1) }, nil, 1, 1.02},
		{"two peers", func() simSpec { return standard(2) }, nil, 1.02, 1.06},
		{"8 peers", func() simSpec { return standard(8) }, nil, 1.02, 1.15},
		{"16 peers", func() simSpec { return standard(16) }, nil, 1.02, 1.30},
		{"first fetcher killed half way", func() simSpec { return standard(8) }, func(s *sim) {
			s.after(3400*time.Millisecond, func() { s.nodes[4].kill() })
		}, 1 + 1.5/8, 1.30},
		{"peers come one after the other", func() simSpec {
			s := standard(8)
			s.stagger = func(i int) time.Duration { return time.Duration(i) * 300 * time.Millisecond }
			return s
		}, nil, 1.02, 1.30},
		{"a liar among 8", func() simSpec {
			s := standard(8)
			s.liars = []int{2}
			return s
		}, nil, 1.10, 1.40},
		{"three that have it", func() simSpec {
			s := standard(8)
			s.origins = 3
			return s
		}, nil, 1.40, 1.15},
		{"far apart", func() simSpec {
			s := standard(8)
			s.delay = 50 * time.Millisecond
			return s
		}, nil, 1.05, 1.40},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := play(t, tt.spec(), tt.meddle)
			if o.egress > tt.egress || o.ideal > tt.ideal {
				t.Errorf("%v; want at most %.2f x ideal, egress %.2f", o, tt.ideal, tt.egress)
			}
		})
	}
}

func TestOneSlowPeerDoesNotSlowTheRest(t *testing.T) {
	t.Parallel()
	alike := play(t, standard(8), nil)
	for slow := range 3 {
		s := standard(8)
		s.slow = map[int]float64{slow: simRate / 10}
		if o := play(t, s, nil); o.took > alike.took*110/100 || o.egress > 1.03 {
			t.Errorf("peer %d ten times slower: %v; all alike: %v", slow, o, alike)
		}
	}
}

func TestLargeSwarms(t *testing.T) {
	if os.Getenv("MESHD_TEST_ALL") == "" {
		t.Skip("minutes of simulation: run with MESHD_TEST_ALL=1")
	}
	for _, peers := range []int{32, 64, 256} {
		t.Run(fmt.Sprint(peers), func(t *testing.T) {
			s := standard(peers)
			s.degree = 24
			start := time.Now()
			o := play(t, s, nil)
			t.Logf("simulated in %v", time.Since(start))
			if o.egress > 1.05 {
				t.Errorf("egress %.3f", o.egress)
			}
		})
	}
}
