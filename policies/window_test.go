package policies

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWindowContains(t *testing.T) {
	tests := []struct {
		text, zone, at string
		want           bool
	}{
		{"22:00-06:00", "", "2026-03-02T23:00:00Z", true},
		{"22:00-06:00", "", "2026-03-02T06:00:00Z", false},
		{"22:00-06:00 Mon-Fri", "", "2026-03-07T05:59:59Z", true}, // Saturday morning is Friday's night
		{"22:00-06:00 Mon-Fri", "", "2026-03-07T22:00:00Z", false},
		{"22:00-06:00 Mon-Fri", "", "2026-03-02T05:00:00Z", false}, // Monday morning is Sunday's
		{"02:00-05:00 Sat,Sun", "", "2026-03-08T04:00:00Z", true},
		{"00:00-24:00 Fri-Mon", "", "2026-03-08T23:59:59Z", true},
		{"00:00-24:00 Fri-Mon", "", "2026-03-10T12:00:00Z", false},
		{"02:00-05:00", "Europe/Oslo", "2026-07-01T00:30:00Z", true},
		{"02:00-05:00", "Europe/Oslo", "2026-07-01T03:30:00Z", false},
		{"02:00-05:00 Mon-Sun America/New_York", "", "2026-07-01T06:30:00Z", true},
	}
	for _, tt := range tests {
		w, err := ParseWindow(tt.text, tt.zone)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Contains(at); got != tt.want {
			t.Errorf("%q %s contains %s: %t", tt.text, tt.zone, tt.at, got)
		}
	}
	for _, bad := range []string{
		"", "22-06", "22:00", "25:00-26:00", "22:60-23:00", "24:00-01:00", "10:00-10:00", "22:00-06:00 Mon-Foo",
		"22:00-06:00 Mon-Fri Nowhere/Land", "22:00-06:00 Local", "-1:00-06:00", "22:00-06:00 Mon UTC x",
	} {
		if _, err := ParseWindow(bad, ""); err == nil {
			t.Errorf("%q is no window", bad)
		}
	}
}

// Next is the first moment at which Contains changes, also on days when the clocks do.
func TestWindowNextIsTheNextChange(t *testing.T) {
	spans := []string{
		"22:00-06:00", "02:30-03:30", "02:00-03:00 Sun", "01:30-02:30", "00:00-24:00 Mon", "22:00-06:00 Mon-Fri", "23:59-00:00",
	}
	zones := []string{"", "Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"}
	rapid.Check(t, func(t *rapid.T) {
		w, err := ParseWindow(rapid.SampledFrom(spans).Draw(t, "span"), rapid.SampledFrom(zones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Date(2026, 3, 25, 0, 0, 0, 0, time.UTC)
		if rapid.Bool().Draw(t, "autumn") {
			start = time.Date(2026, 10, 22, 0, 0, 0, 0, time.UTC)
		}
		from := start.Add(time.Duration(rapid.IntRange(0, 15*24*60).Draw(t, "minute")) * time.Minute)
		next := w.Next(from)
		if !next.After(from) {
			t.Fatalf("next of %s is %s", from, next)
		}
		now := w.Contains(from)
		for at := from; at.Before(next); at = at.Add(time.Minute) {
			if w.Contains(at) != now {
				t.Fatalf("changes at %s, next says %s", at, next)
			}
		}
		if w.Contains(next) == now {
			t.Fatalf("nothing changes at %s", next)
		}
	})
}

func TestTheNextEdgeOfAScore(t *testing.T) {
	p := mustCompile(t, head+`role "night" { when = during("22:00-06:00") || during("12:00-13:00", "Europe/Oslo") }`)
	at := time.Date(2026, 7, 1, 8, 0, 0, 0, time.UTC)
	if got, want := p.NextEdge(at), time.Date(2026, 7, 1, 10, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("next edge is %s, want %s", got, want)
	}
	if got := mustCompile(t, head).NextEdge(at); !got.IsZero() {
		t.Errorf("a score without during has the edge %s", got)
	}
	late := world{name: "n", at: at.Add(15 * time.Hour)}
	if got, _ := p.Role("night", late.env(p)); !got.True() {
		t.Error("it is night at 23:00")
	}
}
