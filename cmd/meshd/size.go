package main

import (
	"strings"

	"meshd/agent/control"
)

// leastSize is the smallest quota: less holds no score and no artifact worth the name.
const leastSize = 1 << 20

// parseSize reads a number of bytes as people write it, such as 500MB or 1.5GiB; none or nothing is 0, no limit.
func parseSize(text string) (int64, error) {
	if s := strings.TrimSpace(text); s == "" || strings.EqualFold(s, "none") {
		return 0, nil
	}
	n, ok := control.ParseBytes(text)
	switch {
	case !ok:
		return 0, usagef("size %q: want bytes such as 500MB or 1.5GiB, or none", text)
	case n < leastSize:
		return 0, usagef("size %q: the least is 1MiB; say none for no limit", text)
	}
	return n, nil
}
