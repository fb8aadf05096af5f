//go:build linux

package demo

import (
	"testing"
	"time"
)

// A leaf told to poll is seen asleep between polls, and wakes at once for what is published on it.
func TestALeafThatPollsRestsAndWakesForItsNews(t *testing.T) {
	if !thorough() {
		t.Skip("skip: takes half a minute; MESHD_TEST_ALL=1 runs it")
	}
	f := newFleet(t)
	a := f.found("a", leafScore)
	till := f.invited("till")
	till.args = append(till.args, "--leaf-poll", "24h")
	till.start()
	asleep := func(what string) {
		t.Helper()
		eventually(t, what, func() (bool, string) {
			m := a.member("till")
			return m.Kind == "leaf" && m.Status == "asleep" && m.Promises.Waiting > 0, "it is a " + m.Kind + ", " + m.Status
		})
	}
	asleep("it rests, with its promises told")
	began := time.Now()
	till.tellNews("first")
	holds(t, a.work("news", "till"), "till first")
	t.Logf("what is published on a leaf that rests is in place elsewhere after %v", round(time.Since(began)))
	asleep("it rests again")
}
