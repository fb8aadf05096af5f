package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/agent/control"
)

func caps(t *testing.T, egress ...string) []control.Limit {
	t.Helper()
	list, err := control.ParseLimits(egress, nil)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// What was said last holds: an operator's word over restarts, other settings over that word.
func TestCapsAreRememberedUntilTheSettingsChange(t *testing.T) {
	solo(t, oneFile, func(f *fleet, m *simNode) {
		holds := func(when string, want []control.Limit) {
			t.Helper()
			got, err := door{m.agent}.Limits(f.t.Context())
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %v, %v; want %v", when, got, err, want)
			}
		}
		restart := func(settings []control.Limit) {
			f.halt(m, false)
			f.setUp = func(c *Config) { c.Limits = settings }
			f.start(m)
		}
		holds("at first", caps(t))
		rate := int64(1e6)
		if _, err := (door{m.agent}).SetLimit(f.t.Context(), control.LimitChange{Class: "wan", Egress: &rate}); err != nil {
			t.Fatal(err)
		}
		holds("said", caps(t, "wan=1MB"))
		f.until("the story tells of the cap", time.Minute, func() (bool, string) {
			story := fmt.Sprint(m.agent.story(time.Time{}, 0))
			return strings.Contains(story, "wan: egress 1MB/s"), story
		})
		restart(nil)
		holds("after a restart", caps(t, "wan=1MB"))
		restart(caps(t, "lan=2MB"))
		holds("with other settings", caps(t, "lan=2MB"))
		if err := m.agent.ReloadLimits(f.t.Context(), caps(t, "lan=3MB")); err != nil {
			t.Fatal(err)
		}
		holds("settings read again", caps(t, "lan=3MB"))
		if _, err := (door{m.agent}).SetLimit(f.t.Context(), control.LimitChange{Class: "all", Egress: &rate}); err != nil {
			t.Fatal(err)
		}
		holds("said over these", caps(t, "lan=3MB", "1MB"))
		if err := m.agent.ReloadLimits(f.t.Context(), caps(t, "lan=3MB")); err != nil {
			t.Fatal(err)
		}
		holds("the same settings read again", caps(t, "lan=3MB", "1MB"))
		if _, err := (door{m.agent}).SetLimit(f.t.Context(), control.LimitChange{Reset: true}); err != nil {
			t.Fatal(err)
		}
		holds("taken back", caps(t, "lan=3MB"))
		few := int64(1)
		if _, err := (door{m.agent}).SetLimit(f.t.Context(), control.LimitChange{Class: "all", Egress: &few}); control.CodeOf(err) != control.Usage {
			t.Errorf("a cap of one byte: %v", err)
		}
	})
}
