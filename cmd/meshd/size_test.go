package main

import "testing"

func TestParseSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want int64
		bad  bool
	}{
		{in: "", want: 0},
		{in: "none", want: 0},
		{in: "500MB", want: 5e8},
		{in: "1.5GiB", want: 3 << 29},
		{in: "2tb", want: 2e12},
		{in: "1048576", want: 1 << 20},
		{in: " 3 MiB ", want: 3 << 20},
		{in: "10", bad: true}, // a slip of the unit would refuse everything
		{in: "-1GB", bad: true},
		{in: "0x10GB", bad: true},
		{in: "many", bad: true},
		{in: "1e9TB", bad: true},
	} {
		got, err := parseSize(tt.in)
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("parseSize(%q) = %d, %v; want %d", tt.in, got, err, tt.want)
		}
	}
}
