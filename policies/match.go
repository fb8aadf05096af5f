package policies

import (
	"fmt"
	"strings"
)

// maxName bounds names of artifacts and patterns for them, in bytes (SPEC 7).
const maxName = 200

// MatchName reports whether an artifact's name fits a pattern: * stands for any run of characters inside
// one segment, ** as the last segment for all the rest, at least one segment. Any input is legal.
func MatchName(pattern, name string) bool {
	for {
		p, prest, pmore := strings.Cut(pattern, "/")
		n, nrest, nmore := strings.Cut(name, "/")
		if p == "**" && !pmore {
			return name != ""
		}
		if !matchSegment(p, n) || pmore != nmore {
			return false
		}
		if !pmore {
			return true
		}
		pattern, name = prest, nrest
	}
}

// matchSegment matches with * in linear space and at most len(p)*len(s) steps.
func matchSegment(p, s string) bool {
	if p == "*" {
		return s != ""
	}
	i, j, star, mark := 0, 0, -1, 0
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && p[i] == s[j]:
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(p[i:], "*") == ""
}

// meet reports whether some name fits both patterns.
func meet(a, b string) bool {
	as, bs := strings.Split(a, "/"), strings.Split(b, "/")
	for i := 0; ; i++ {
		if i == len(as)-1 && as[i] == "**" {
			return i < len(bs)
		}
		if i == len(bs)-1 && bs[i] == "**" {
			return i < len(as)
		}
		if i >= len(as) || i >= len(bs) {
			return len(as) == len(bs)
		}
		if !meetSegment(as[i], bs[i]) {
			return false
		}
	}
}

// meetSegment intersects two segments, remembering what was tried: the naive walk is exponential.
func meetSegment(a, b string) bool {
	// row[j] says whether a[i:] and b[j:] meet, built from the ends.
	row := make([]bool, len(b)+1)
	for i := len(a); i >= 0; i-- {
		next := make([]bool, len(b)+1)
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a) && j == len(b):
				next[j] = true
			case i < len(a) && a[i] == '*':
				next[j] = row[j] || j < len(b) && next[j+1]
			case j < len(b) && b[j] == '*':
				next[j] = next[j+1] || i < len(a) && row[j]
			case i < len(a) && j < len(b):
				next[j] = a[i] == b[j] && row[j+1]
			}
		}
		row = next
	}
	return row[0]
}

// checkPattern says what is wrong with a name or, where they may stand, with its wildcards.
func checkPattern(name string, wild bool) error {
	if len(name) > maxName {
		return fmt.Errorf("name %.40q... has %d bytes, more than the limit of %d", name, len(name), maxName)
	}
	segments := strings.Split(name, "/")
	for i, seg := range segments {
		if seg == "" || seg == "." || seg == ".." {
			return fmt.Errorf("name %q has the segment %q: names are like feed/node-1", name, seg)
		}
		if strings.Contains(seg, "**") && (!wild || seg != "**" || i != len(segments)-1) {
			return fmt.Errorf("name %q: ** may only be the last segment of a pattern", name)
		}
		for _, c := range seg {
			legal := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
				strings.ContainsRune("._-", c) || wild && c == '*'
			if !legal {
				return fmt.Errorf("name %q has the character %q: only A-Z, a-z, 0-9, '.', '_', '-' and / may stand in names",
					name, c)
			}
		}
	}
	return nil
}

// wildcard reports whether a pattern can match more than one name.
func wildcard(pattern string) bool { return strings.Contains(pattern, "*") }
