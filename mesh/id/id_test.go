package id

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParse(t *testing.T) {
	good := FromKey([]byte("a key")).String()
	tests := []struct {
		name, in string
		want     error
	}{
		{"canonical", good, nil},
		{"upper case", strings.ToUpper(good), ErrMalformed}, // a second spelling would be a second key
		{"one digit short", good[:31], ErrMalformed},
		{"one digit more", good + "0", ErrMalformed},
		{"no digit", "g" + good[1:], ErrMalformed},
		{"empty", "", ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, err := Parse(tt.in)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Parse(%q) = %v, want %v", tt.in, err, tt.want)
			}
			if err == nil && n.String() != tt.in {
				t.Errorf("round trip: got %s, want %s", n, tt.in)
			}
			if err != nil && !n.IsZero() {
				t.Errorf("an error and node %s", n)
			}
		})
	}
}

// Golden: all nodes must rank alike, whatever version of meshd they run.
func TestRankIsForEver(t *testing.T) {
	var nodes []Node
	for _, k := range []string{"a", "b", "c", "d", "e"} {
		nodes = append(nodes, FromKey([]byte(k)))
	}
	var got []string
	for _, n := range Rank([]byte("artifact"), nodes) {
		got = append(got, n.Short())
	}
	want := strings.Fields("18ac3e73 2e7d2c03 ca978112 3e23e816 3f79bb7b")
	if !slices.Equal(got, want) {
		t.Errorf("rank %v, want %v", got, want)
	}
	if got := FromKey([]byte("a")).String(); got != "ca978112ca1bbdcafac231b39a23dc4d" { // of SHA-256("a")
		t.Errorf("id of \"a\" is %s", got)
	}
}

func TestRank(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOf(rapid.Byte()).Draw(t, "key")
		nodes := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Node {
			return FromKey(rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "node"))
		}), 1, 20, rapid.ID[Node]).Draw(t, "nodes")
		before := slices.Clone(nodes)
		ranked := Rank(key, nodes)
		if !slices.Equal(nodes, before) {
			t.Fatal("the argument was changed")
		}
		if got := Rank(key, rapid.Permutation(nodes).Draw(t, "order")); !slices.Equal(got, ranked) {
			t.Fatalf("another order of the argument gives %v, want %v", got, ranked)
		}
		gone := rapid.IntRange(0, len(ranked)-1).Draw(t, "gone")
		rest := slices.Delete(slices.Clone(ranked), gone, gone+1)
		without := slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool { return n == ranked[gone] })
		if got := Rank(key, without); !slices.Equal(got, rest) {
			t.Fatalf("without one node: %v, want the others as before: %v", got, rest)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add(FromKey([]byte("a key")).String())
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := Parse(s); err == nil && n.String() != s {
			t.Errorf("%q parses to %s", s, n)
		}
	})
}
