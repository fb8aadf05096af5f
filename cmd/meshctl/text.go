package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// escape makes s safe for a terminal: what does not print is shown as Go would write it. Names come from other nodes.
func escape(s string) string {
	clean := func(r rune) bool { return unicode.IsPrint(r) && r != utf8.RuneError }
	if strings.IndexFunc(s, func(r rune) bool { return !clean(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case clean(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[size:]
	}
	return b.String()
}

// dash stands for nothing in a table, so that columns can be cut by field.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func commas(list []string) string { return dash(strings.Join(list, ",")) }

// sizeText writes bytes with two or three digits and a binary unit.
func sizeText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n)/1024, 0
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	for f >= 1023.95 && unit < len(units)-1 {
		f, unit = f/1024, unit+1
	}
	if f < 9.95 {
		return fmt.Sprintf("%.1f %s", f, units[unit])
	}
	return fmt.Sprintf("%.0f %s", f, units[unit])
}

// agoText writes how long ago at was, in one unit; a clock that differs may put it ahead of now, which is shown as 0s.
func agoText(now, at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	d := max(now.Sub(at), 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// rttText writes a round trip in milliseconds.
func rttText(seconds float64) string {
	if seconds <= 0 {
		return "-"
	}
	ms := seconds * 1000
	if ms < 10 {
		return fmt.Sprintf("%.1fms", ms)
	}
	return fmt.Sprintf("%.0fms", ms)
}

// shortHash keeps the first 12 digits, enough for people.
func shortHash(h string) string {
	if _, digits, ok := strings.Cut(h, ":"); ok {
		h = digits
	}
	return dash(h[:min(len(h), 12)])
}

// clockText writes at in the zone of now.
func clockText(now, at time.Time) string {
	if at.IsZero() {
		return "-"
	}
	return at.In(now.Location()).Format("2006-01-02 15:04:05.000")
}
