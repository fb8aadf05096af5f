package promise

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"meshd/policies"
)

func TestLineEdit(t *testing.T) {
	tests := []struct {
		name     string
		lines    policies.Lines
		in, want string
	}{
		{"appended to nothing", policies.Lines{Present: []string{"a", "b"}}, "", "a\nb\n"},
		{"there already", policies.Lines{Present: []string{"a"}}, "b\na\n", "b\na\n"},
		{"there already, no line break at the end", policies.Lines{Present: []string{"a"}}, "b\na", "b\na"},
		{"missing ones in their order", policies.Lines{Present: []string{"x", "b", "y"}}, "a\nb", "a\nb\nx\ny\n"},
		{"removed", policies.Lines{Absent: []string{"b"}}, "a\nb\nc\nb\n", "a\nc\n"},
		{"removed to nothing", policies.Lines{Absent: []string{"b"}}, "b\n", ""},
		{"in place of the first match", policies.Lines{Present: []string{"Port 22"}, Match: "^#?Port"}, "a\n#Port 1\nb\nPort 2\n", "a\nPort 22\nb\n"},
		{"no match: at the end", policies.Lines{Present: []string{"Port 22"}, Match: "^Port"}, "a\n", "a\nPort 22\n"},
		{"the match is the line itself", policies.Lines{Present: []string{"Port 22"}, Match: "^Port"}, "Port 22\na\n", "Port 22\na\n"},
		{"a match that is promised stays where it is", policies.Lines{Present: []string{"b", "", "ba"}, Match: "^b"}, "b\n\nba\n", "b\n\nba\n"},
		{"a promised match twice", policies.Lines{Present: []string{"b"}, Match: "^b"}, "b\na\nb\nbb\n", "b\na\n"},
		{"an entry of two lines", policies.Lines{Present: []string{"a\nb\n"}}, "b\n", "b\na\n"},
		{"empty lines are kept", policies.Lines{Present: []string{"z"}}, "\n\na\n\n", "\n\na\n\nz\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, err := newLineEdit(&tt.lines)
			if err != nil {
				t.Fatal(err)
			}
			if got := e.apply(tt.in); got != tt.want {
				t.Errorf("apply(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestLineEditRefusesALineThatIsBothPresentAndAbsent(t *testing.T) {
	if _, err := newLineEdit(&policies.Lines{Present: []string{"a"}, Absent: []string{"a"}}); err == nil {
		t.Error("no error")
	}
}

// The promised content depends on the source alone: done twice is done once.
func TestLineEditFindsNothingToDoInItsOwnResult(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.SampledFrom([]string{"", "a", "b", "ab", "ba", "# a"})
		l := policies.Lines{
			Present: rapid.SliceOfN(line, 0, 3).Draw(t, "present"),
			Match:   rapid.SampledFrom([]string{"", "a", "^b", "^$", "#"}).Draw(t, "match"),
		}
		absent := rapid.SliceOfN(line, 0, 2).Draw(t, "absent")
		l.Absent = absent
		e, err := newLineEdit(&l)
		if err != nil {
			t.Skip("contradiction")
		}
		text := strings.Join(rapid.SliceOfN(line, 0, 6).Draw(t, "text"), "\n")
		once := e.apply(text)
		if twice := e.apply(once); twice != once {
			t.Fatalf("once %q, twice %q", once, twice)
		}
		have := strings.Split(strings.TrimSuffix(once, "\n"), "\n")
		for _, p := range e.present {
			n := 0
			for _, h := range have {
				if h == p {
					n++
				}
			}
			if n == 0 {
				t.Fatalf("%q is missing from %q", p, once)
			}
		}
	})
}
