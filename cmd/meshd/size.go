package main

import (
	"math"
	"strconv"
	"strings"
)

// sizeUnits are what a size may end with, in bytes; longer ones come before what they end with.
var sizeUnits = []struct {
	name  string
	bytes float64
}{
	{"kib", 1 << 10},
	{"mib", 1 << 20},
	{"gib", 1 << 30},
	{"tib", 1 << 40},
	{"kb", 1e3},
	{"mb", 1e6},
	{"gb", 1e9},
	{"tb", 1e12},
	{"b", 1},
}

// leastSize is the smallest quota: less holds no score and no artifact worth the name.
const leastSize = 1 << 20

// parseSize reads a number of bytes as people write it, such as 500MB or 1.5GiB; none or nothing is 0, no limit.
func parseSize(text string) (int64, error) {
	s := strings.ToLower(strings.TrimSpace(text))
	if s == "none" || s == "" {
		return 0, nil
	}
	scale := 1.0
	for _, u := range sizeUnits {
		if digits, ok := strings.CutSuffix(s, u.name); ok {
			s, scale = strings.TrimSpace(digits), u.bytes
			break
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || f < 0 || f*scale > 1e18 || strings.ContainsAny(s, "xpe_+") {
		return 0, usagef("size %q: want bytes such as 500MB or 1.5GiB, or none", text)
	}
	if f*scale < leastSize {
		return 0, usagef("size %q: the least is 1MiB; say none for no limit", text)
	}
	return int64(f * scale), nil
}
