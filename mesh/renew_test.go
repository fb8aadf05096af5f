package mesh

import (
	"testing"
	"time"

	"meshd/mesh/trust"
)

func TestRenewalIsDue(t *testing.T) {
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	c := &trust.Cert{NotBefore: noon, NotAfter: noon.Add(30 * day)}
	for _, tt := range []struct {
		name string
		now  time.Time
		want bool
	}{
		{"just issued", noon, false},
		{"by a clock that is a little behind the sponsor's", noon.Add(-day), false},
		{"before a third of its life", noon.Add(9 * day), false},
		{"after a third of its life", noon.Add(10 * day), true},
		{"long expired", noon.Add(400 * day), true},
		{"issued by a clock that was years ahead", noon.Add(-4 * 365 * day), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := renewalDue(c, tt.now); got != tt.want {
				t.Errorf("renewalDue at %v = %v", tt.now, got)
			}
		})
	}
}
