package web

import (
	"context"
	"strings"
	"testing"
	"time"

	"meshd/agent/control"
)

func contextWithCancel(t *testing.T) (context.Context, context.CancelFunc) {
	return context.WithCancel(context.WithoutCancel(t.Context()))
}

func TestCellKeepsTheWorst(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	h := newHistory()
	for _, s := range []byte{kept, repaired, failed, noWord, drifted, waiting, kept} {
		h.mark("a", at, s)
	}
	if strip := h.strip("a", 0, number(at, steps[0])); strip != strings.Repeat(" ", cells-1)+"f" {
		t.Errorf("strip %q", strip)
	}
}

func TestStripMovesWithTime(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	h := newHistory()
	h.mark("a", at, failed)
	h.mark("a", at.Add(2*steps[0]), kept)
	h.mark("a", at.Add(steps[0]), repaired) // told late
	n := number(at.Add(2*steps[0]), steps[0])
	tests := []struct {
		name string
		last int64
		want string
	}{
		{"now", n, "frk"},
		{"a step later", n + 1, "frk "},
		{"when all but one has left", n + cells - 1, "k" + strings.Repeat(" ", cells-1)},
		{"long after", n + 10*cells, strings.Repeat(" ", cells)},
		{"before", n - 2, "f"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := strings.Repeat(" ", cells-len(tt.want)) + tt.want
			if got := h.strip("a", 0, tt.last); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	h.mark("a", at.Add(-time.Hour), failed) // too old to show, and it must not land on a newer cell
	if got := h.strip("a", 0, n); !strings.HasSuffix(got, " frk") {
		t.Errorf("an old mark left %q", got)
	}
	h.mark("a", at.Add(time.Hour), kept)
	if got := h.strip("a", 0, number(at.Add(time.Hour), steps[0])); strings.TrimSpace(got) != "k" {
		t.Errorf("after a gap longer than the strip: %q", got)
	}
}

func TestStateOfAMember(t *testing.T) {
	tests := []struct {
		name   string
		status string
		counts control.Counts
		want   byte
	}{
		{"all kept", "alive", control.Counts{Kept: 3}, kept},
		{"repaired before anybody looked", "alive", control.Counts{Repaired: 3}, kept},
		{"one fails", "alive", control.Counts{Kept: 3, Failed: 1, Drifted: 1, Waiting: 1}, failed},
		{"one drifted", "alive", control.Counts{Drifted: 1, Waiting: 1}, drifted},
		{"one waits", "alive", control.Counts{Waiting: 1}, waiting},
		{"suspected is not yet gone", "suspect", control.Counts{Kept: 1}, kept},
		{"gone", "failed", control.Counts{Failed: 1}, noWord},
		{"left", "left", control.Counts{}, noWord},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := newHistory().state(control.Member{ID: "a", Status: tt.status, Promises: tt.counts}); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestRepairedIsWhatHappenedBetweenTwoLooks(t *testing.T) {
	h := newHistory()
	look := func(repaired int) byte {
		return h.state(control.Member{ID: "a", Status: "alive", Promises: control.Counts{Kept: 5 - repaired, Repaired: repaired}})
	}
	got := string([]byte{look(2), look(2), look(3), look(3), look(1), look(2)})
	if want := "kkrkkr"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWhoLeavesIsForgotten(t *testing.T) {
	h := newHistory()
	a, b := control.Member{ID: "a", Status: "alive"}, control.Member{ID: "b", Status: "alive"}
	h.look([]control.Member{a, b}, time.Unix(100, 0))
	h.look([]control.Member{b}, time.Unix(105, 0))
	if len(h) != 1 || h["b"] == nil {
		t.Errorf("there are %d histories, want that of b alone", len(h))
	}
}
