package main

import (
	"testing"
	"time"

	"meshd/agent/control"
)

func TestAPaceTellsRateNodesAndTimeLeft(t *testing.T) {
	var p pace
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	line := func(done int64) control.Line { return control.Line{DoneBytes: done, TotalBytes: 100 << 20} }
	if got := p.describe(line(50<<20), now); got != "" {
		t.Errorf("at first: %q", got)
	}
	for i := range 20 {
		now = now.Add(100 * time.Millisecond)
		got := p.describe(line(50<<20+int64(i+1)<<20), now)
		if i == 19 && got != "  10 MiB/s, 3s left" {
			t.Errorf("after 20 MiB in 2 s: %q", got)
		}
	}
	for _, tt := range []struct {
		line control.Line
		want string
	}{
		{control.Line{DoneBytes: 10, TotalBytes: 1 << 20, BytesPerSecond: 2048, Nodes: 3}, "  2.0 KiB/s, 3 nodes, 8m32s left"},
		{control.Line{DoneBytes: 5, TotalBytes: 5, Nodes: 1}, "  1 node"},
		{control.Line{DoneBytes: 5, TotalBytes: 5, Nodes: 2, BytesPerSecond: 9}, "  2 nodes"},
	} {
		if got := new(pace).describe(tt.line, now); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.line, got, tt.want)
		}
	}
	for seconds, want := range map[float64]string{0.2: "1s", 59.5: "1m00s", 3725: "1h02m", 1e7: "115d", 1e300: "11574d"} {
		if got := leftText(seconds); got != want {
			t.Errorf("%v s: %q, want %q", seconds, got, want)
		}
	}
}

func TestAListTellsWhatIsOnItsWay(t *testing.T) {
	for want, a := range map[string]control.Artifact{
		"":       {},
		"here":   {Local: true, Pull: &control.Pull{TotalBytes: 9}},
		"asking": {Pull: &control.Pull{}},
		"[=======>        ]  50 %  1.0 MiB/s, 4 nodes, 1s left": {Pull: &control.Pull{DoneBytes: 1 << 20, TotalBytes: 2 << 20, BytesPerSecond: 1 << 20, Nodes: 4}},
		"[================] 100 %  4 nodes":                     {Pull: &control.Pull{DoneBytes: 2 << 20, TotalBytes: 2 << 20, BytesPerSecond: 1 << 20, Nodes: 4}},
		"[                ]   0 %":                              {Pull: &control.Pull{TotalBytes: 2 << 20}},
	} {
		if got := pullText(a); got != want {
			t.Errorf("%+v: %q, want %q", a.Pull, got, want)
		}
	}
}
