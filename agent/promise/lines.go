package promise

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"meshd/policies"
)

// A lineEdit turns a text into the one that has the promised lines. It is a pure function of the text
// and finds nothing to do in its own result.
type lineEdit struct {
	present, absent []string
	match           *regexp.Regexp
}

func newLineEdit(l *policies.Lines) (*lineEdit, error) {
	e := &lineEdit{present: split(l.Present), absent: split(l.Absent)}
	for _, line := range e.present {
		if slices.Contains(e.absent, line) {
			return nil, fmt.Errorf("lines: %q is both present and absent", line)
		}
	}
	if l.Match != "" {
		re, err := regexp.Compile(l.Match)
		if err != nil {
			return nil, fmt.Errorf("lines: match: %w", err)
		}
		e.match = re
	}
	return e, nil
}

// split makes single lines of entries that may hold several, and drops doubles: a line is there or not.
func split(entries []string) []string {
	var lines []string
	for _, entry := range entries {
		for line := range strings.SplitSeq(strings.TrimSuffix(entry, "\n"), "\n") {
			if !slices.Contains(lines, line) {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

// apply gives back text itself, byte for byte, when nothing is to be done.
//
// Lines that match, and are not themselves promised, give way: the first of them to those present lines
// that the rest of the text has not, the others to nothing. Without such a line the missing ones go to the
// end, in their order.
func (e *lineEdit) apply(text string) string {
	var old []string
	if text != "" {
		old = strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	}
	kept := make([]string, 0, len(old)+len(e.present))
	at := -1 // where the first matched line was
	for _, line := range old {
		if slices.Contains(e.absent, line) {
			continue
		}
		if e.match != nil && e.match.MatchString(line) {
			if promised := slices.Contains(e.present, line); !promised && at < 0 {
				at = len(kept)
			} else if promised && !slices.Contains(kept, line) {
				kept = append(kept, line)
			}
			continue
		}
		kept = append(kept, line)
	}
	if at < 0 {
		at = len(kept)
	}
	var missing []string
	for _, line := range e.present {
		if !slices.Contains(kept, line) {
			missing = append(missing, line)
		}
	}
	now := slices.Insert(kept, at, missing...)
	switch {
	case slices.Equal(now, old):
		return text
	case len(now) == 0:
		return ""
	}
	return strings.Join(now, "\n") + "\n"
}
