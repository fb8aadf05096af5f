package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/catalog"
	"meshd/mesh/trust"
)

// A member that tells of leaves what they did not sign moves nobody, is counted and named.
func TestALeaseThatLiesMovesNoLeaf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, till := leafFleet(t, 36, true)
		defer f.end()
		active, standby := f.points(till)
		f.until("all see it", time.Minute, func() (bool, string) { return f.allSee("till", "alive") })
		liar := f.third(till, active, standby)
		leaf := till.agent.mesh.Self()
		known := active.agent.mesh.Catalog().LiveNamed(catalog.KindLease, leaf.String())
		if len(known) != 1 {
			t.Fatalf("%d leases of the leaf are live, want 1", len(known))
		}
		copied, err := catalog.DecodeLease(known[0].Body)
		if err != nil {
			t.Fatal(err)
		}
		forged, err := trust.SignLease(trust.Lease{At: active.agent.mesh.Self(), Count: 99, Lasts: time.Minute}, liar.node.Identity)
		if err != nil {
			t.Fatal(err)
		}
		for _, lie := range []struct {
			name  string
			lease []byte
		}{
			{"copied from another attach point", copied.Lease},
			{"signed by the liar", forged},
			{"no lease at all", []byte("no lease")},
		} {
			before := f.parent.agent.mesh.Stats().LeasesRefused
			body, err := catalog.EncodeLease(catalog.LeaseBody{Lease: lie.lease, State: catalog.LeaseHere})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := liar.agent.mesh.Publish(t.Context(), catalog.KindLease, leaf.String(), body, 0); err != nil {
				t.Fatal(err)
			}
			f.until("the lie is counted", time.Minute, func() (bool, string) { return f.parent.agent.mesh.Stats().LeasesRefused > before, lie.name })
			for name, m := range f.nodes {
				if n := m.sees("till"); n.Status != "alive" || (m != till && n.At != active.agent.mesh.Self()) {
					t.Errorf("%s: %s sees the leaf %s at %s", lie.name, name, n.Status, n.At.Short())
				}
			}
		}
	})
}
