package swarm

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"meshd/store/artifact"
)

const lanRate = 5e6 // bytes a second: 40 Mbit/s

// company makes an origin that holds an artifact and so many peers, all on links of one rate.
func (w *world) company(t *testing.T, peers, sizeBytes int) (origin *node, others []*node, ref artifact.Ref) {
	origin = w.node(1)
	ref = origin.store.put(t, 1, 1, sizeBytes)
	origin.link = &shaped{rate: lanRate}
	for i := range peers {
		n := w.node(byte(10 + i))
		n.link = &shaped{rate: lanRate}
		others = append(others, n)
	}
	return origin, others, ref
}

// pullAll has all peers pull at once from whoever is there, and returns when each had it all.
func pullAll(t *testing.T, ref artifact.Ref, origin *node, peers []*node) []time.Duration {
	start := time.Now()
	took := make([]time.Duration, len(peers))
	var wg sync.WaitGroup
	for i, n := range peers {
		wg.Go(func() {
			if err := n.pull(t, ref, 10*time.Minute, append([]*node{origin}, peers...)...); err != nil {
				t.Errorf("peer %d: %v", i, err)
			}
			took[i] = time.Since(start)
		})
	}
	wg.Wait()
	return took
}

func TestOriginSendsEachByteAboutOnce(t *testing.T) {
	for _, peers := range []int{2, 8} {
		t.Run(fmt.Sprint(peers), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				const size = 16 << 20
				origin, others, ref := w.company(t, peers, size)
				took := pullAll(t, ref, origin, others)
				for _, n := range others {
					n.mustHave(t, origin)
				}
				var wasted, last int64
				for i, n := range others {
					wasted += n.swarm.Stats().WastedBytes
					last = max(last, int64(took[i]))
				}
				egress := float64(origin.swarm.Stats().ServedBytes) / size
				t.Logf("egress %.3f, %.3f x ideal, %d KiB wasted", egress, time.Duration(last).Seconds()/(size/lanRate), wasted>>10)
				if egress > 1.02 {
					t.Errorf("the origin sent %.3f times the artifact", egress)
				}
			})
		})
	}
}
