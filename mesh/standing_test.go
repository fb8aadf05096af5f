package mesh

import (
	"testing"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/link"
)

func TestAGapOfEitherClockIsSleep(t *testing.T) {
	tests := []struct {
		name         string
		steady, wall time.Duration
		want         time.Duration
	}{
		{"a tick", time.Second, time.Second, 0},
		{"a slow machine", 5 * time.Second, 5 * time.Second, 0},
		{"stopped for a minute", time.Minute, time.Minute, time.Minute},
		{"suspended for an hour", time.Second, time.Hour, time.Hour},
		{"the wall clock stepped back", time.Second, -time.Hour, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := slept(tt.steady, tt.wall); got != tt.want {
				t.Errorf("slept(%v, %v) = %v, want %v", tt.steady, tt.wall, got, tt.want)
			}
		})
	}
}

// The 16 most recent of the absent are dialled at once and every few seconds; of the others each has its turn.
func TestRedialsFavourTheRecentAndForgetNobody(t *testing.T) {
	tn := &tender{rand: newRand(1), dialled: map[string]time.Time{}, dialling: map[string]bool{}}
	var absent []link.Peer
	for i := range 100 {
		absent = append(absent, link.Peer{ID: id.Node{byte(i + 1)}})
	}
	start := time.Unix(1_000_000, 0)
	last := map[id.Node]time.Duration{}
	most := 0
	for at := time.Duration(0); at < 5*time.Minute; at += time.Second {
		now := start.Add(at)
		picked := tn.redials(absent, now)
		for i, n := range picked {
			tn.dialled[n.String()] = now
			if gap := at - last[n]; i < redialRecent && n == absent[i].ID && gap > 5*time.Second {
				t.Errorf("one of the most recent waited %v", gap)
			}
			last[n] = at
		}
		if at > 0 {
			most = max(most, len(picked))
		}
		if at == 0 && len(picked) != redialRecent+slowAtOnce {
			t.Errorf("%d are dialled at once, want %d", len(picked), redialRecent+slowAtOnce)
		}
	}
	if most > redialRecent+slowAtOnce {
		t.Errorf("%d at once are the most, want %d", most, redialRecent+slowAtOnce)
	}
	for i, p := range absent {
		if at, ok := last[p.ID]; !ok || at < 3*time.Minute {
			t.Errorf("the peer of rank %d was last dialled after %v", i, at)
		}
	}
}

func TestDialsBackAreFewAndFar(t *testing.T) {
	r := newReach()
	now := time.Unix(1_000_000, 0)
	one := id.Node{1}
	if err := r.begin(one, now); err != nil {
		t.Fatal(err)
	}
	if r.begin(one, now.Add(reachEvery/2)) == nil {
		t.Error("one asker has two dials back in a row")
	}
	for i := range reachAtOnce - 1 {
		if err := r.begin(id.Node{2, byte(i)}, now); err != nil {
			t.Fatal(err)
		}
	}
	if r.begin(id.Node{3}, now) == nil {
		t.Errorf("%d dials back at once", reachAtOnce+1)
	}
	r.end()
	if err := r.begin(one, now.Add(reachEvery)); err != nil {
		t.Error(err)
	}
	for i := range 2 * reachAskers {
		r.end()
		_ = r.begin(id.Node{4, byte(i), byte(i >> 8)}, now)
	}
	if len(r.last) > reachAskers {
		t.Errorf("%d askers are remembered, limit %d", len(r.last), reachAskers)
	}
}
