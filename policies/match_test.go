package policies

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestMatchName(t *testing.T) {
	tests := []struct {
		pattern, name string
		want          bool
	}{
		{"feed/*", "feed/a", true},
		{"feed/*", "feed/a/b", false},
		{"feed/*", "feed", false},
		{"feed/*", "feed/", false},
		{"feed/**", "feed/a/b", true},
		{"feed/**", "feed", false},
		{"**", "a/b/c", true},
		{"*", "a", true},
		{"*", "a/b", false},
		{"kiosk-*", "kiosk-app", true},
		{"kiosk-*", "kiosk-", true},
		{"*-*-x", "a-b-c-x", true},
		{"a", "A", false},
		{"", "", true},
	}
	for _, tt := range tests {
		if got := MatchName(tt.pattern, tt.name); got != tt.want {
			t.Errorf("MatchName(%q, %q) = %t", tt.pattern, tt.name, got)
		}
	}
	if MatchName(strings.Repeat("*a", 5000), strings.Repeat("a", 10_000)+"b") {
		t.Error("does not end in a")
	}
}

// The matcher agrees with a regular expression; two patterns meet when one name fits both.
func TestMatchNameAgreesWithARegexp(t *testing.T) {
	pattern := rapid.StringMatching(`[ab*]{1,4}(/[ab*]{1,3}){0,2}(/\*\*)?`)
	name := rapid.StringMatching(`[ab]{1,4}(/[ab]{1,3}){0,3}`)
	rapid.Check(t, func(t *rapid.T) {
		p, q, n := pattern.Draw(t, "p"), pattern.Draw(t, "q"), name.Draw(t, "n")
		if got, want := MatchName(p, n), asRegexp(p).MatchString(n); got != want {
			t.Fatalf("MatchName(%q, %q) = %t", p, n, got)
		}
		if MatchName(p, n) && MatchName(q, n) && !meet(p, q) {
			t.Fatalf("%q and %q meet in %q", p, q, n)
		}
		if meet(p, q) != meet(q, p) {
			t.Fatalf("meet(%q, %q) depends on the order", p, q)
		}
		if meet(p, n) != MatchName(p, n) {
			t.Fatalf("meet(%q, %q) is not what MatchName says", p, n)
		}
	})
}

func asRegexp(pattern string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString("^")
	segments := strings.Split(pattern, "/")
	for i, seg := range segments {
		if i > 0 {
			b.WriteString("/")
		}
		switch {
		case seg == "**" && i == len(segments)-1:
			b.WriteString(".+")
		case seg == "*":
			b.WriteString("[^/]+")
		default:
			b.WriteString(strings.ReplaceAll(regexp.QuoteMeta(seg), `\*`, "[^/]*"))
		}
	}
	b.WriteString("$")
	return regexp.MustCompile(b.String())
}
