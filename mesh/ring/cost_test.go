package ring

import (
	"runtime"
	"testing"
	"time"
)

// TestIdleRingCosts prints what a member sends while nothing happens. SPEC 13 asks for 230 B/s of packets
// at 100 members; what a member costs does not depend on their number once all have met.
func TestIdleRingCosts(t *testing.T) {
	const members, meet, watch = 20, 3 * time.Minute, 2 * time.Minute
	bubble(t, func(t *testing.T, w *world) {
		nodes := w.ring(members, w.start)
		await(t, time.Minute, nodes, nil)
		time.Sleep(meet) // virtual
		before := nodes[0].link.Stats()
		goroutines := runtime.NumGoroutine() / members
		time.Sleep(watch)
		after := nodes[0].link.Stats()
		seconds := int64(watch / time.Second)
		perSecond := (after.BytesOut - before.BytesOut) / seconds
		t.Logf("idle among %d: %d B/s in %.1f packets/s, %d goroutines a node", members, perSecond,
			float64(after.PacketsOut-before.PacketsOut)/float64(seconds), goroutines)
		if perSecond > 130 { // 223 with pings as memberlist writes them: see shortPing
			t.Errorf("an idle member sends %d B/s", perSecond)
		}
		if after.PacketsReplayed+after.PacketsForged+after.PacketsMalformed > 0 {
			t.Errorf("packets were refused on a sound network: %+v", after)
		}
	})
}
