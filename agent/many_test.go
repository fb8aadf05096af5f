package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Twelve nodes are more than the eight neighbours each keeps: news is passed on by those who lacked it.
func TestNewsReachesAllOfTwelve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 12)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", wantApp))
		for n := 2; n <= 12; n++ {
			f.join(fmt.Sprintf("node_%d", n), n, nil)
		}
		f.until("all see all", 2*time.Minute, func() (bool, string) {
			for _, m := range f.nodes {
				if n := len(m.agent.mesh.Alive()); n != 12 {
					return false, fmt.Sprintf("%s sees %d", m.name, n)
				}
			}
			return true, ""
		})
		time.Sleep(30 * time.Second)
		path := filepath.Join(t.TempDir(), "news")
		var took []time.Duration
		for i := range 20 {
			if err := os.WriteFile(path, []byte(fmt.Sprint(i)), 0o644); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			of, err := host.agent.supply.offer(t.Context(), "news", "", 3, addPath(path), Cause{Text: "test"})
			if err != nil {
				t.Fatal(err)
			}
			f.until("all know it", time.Minute, func() (bool, string) {
				for _, m := range f.nodes {
					known := m.agent.supply.named("news")
					if len(known) == 0 || known[len(known)-1].body.Counter < of.body.Counter {
						return false, m.name
					}
				}
				return true, ""
			})
			took = append(took, time.Since(began))
			time.Sleep(time.Second)
		}
		slices.Sort(took)
		t.Logf("known to all of twelve after the publish began: median %v, worst %v (virtual, 1-20 ms a hop)", took[len(took)/2], took[len(took)-1])
	})
}
