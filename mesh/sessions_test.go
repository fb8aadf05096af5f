package mesh

import (
	"testing"
	"time"

	"meshd/mesh/id"
)

// A peer that dials anew has lost its end of the session, be the end here ever so sure that it stands.
func TestASessionGivesWayToOneThatIsDialledLater(t *testing.T) {
	small, large := id.Node{1}, id.Node{2}
	tests := []struct {
		name         string
		old, dialler id.Node
		age          time.Duration
		stays        bool
	}{
		{"both dialled at once, the smaller first", small, large, 10 * time.Millisecond, true},
		{"both dialled at once, the larger first", large, small, 10 * time.Millisecond, false},
		{"the larger dials as long as a dial may take", small, large, dialTimeout, true},
		{"the larger dials anew after its address changed", small, large, time.Minute, false},
		{"the smaller dials anew", large, small, time.Minute, false},
		{"the same dials again at once", small, small, 0, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := time.Now()
			s := &session{dialler: tt.old, opened: now.Add(-tt.age)}
			if got := s.staysBeside(tt.dialler, now); got != tt.stays {
				t.Errorf("it stays: %v, want %v", got, tt.stays)
			}
		})
	}
}
