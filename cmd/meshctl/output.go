package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"meshd/agent/control"
)

var formats = []string{"table", "wide", "json", "ndjson", "name"}

// A format is the value of -o. It is always one of formats.
type format string

// String returns the name of the format.
func (f *format) String() string { return string(*f) }

// Type is what help calls the value.
func (f *format) Type() string { return "format" }

// Set takes one of formats.
func (f *format) Set(s string) error {
	if !slices.Contains(formats, s) {
		return fmt.Errorf("format %q: want one of %s", s, strings.Join(formats, ", "))
	}
	*f = format(s)
	return nil
}

// A tone colours a row on a terminal. It never says what a word in the row does not say.
type tone string

const (
	plain tone = ""
	alarm tone = "\x1b[31m"
	heed  tone = "\x1b[33m"
	faint tone = "\x1b[2m"
)

// outcomeTone colours the words of promises and members alike.
func outcomeTone(word string) tone {
	switch word {
	case "failed", "refused":
		return alarm
	case "waiting", "drifted", "suspect":
		return heed
	case "left", "asleep":
		return faint
	}
	return plain
}

// A column is one fact of an item. Cells are escaped by who prints them.
type column[T any] struct {
	head string
	wide bool // only with -o wide
	cell func(T) string
}

// A listing says how items of one type are printed.
type listing[T any] struct {
	columns []column[T]
	name    func(T) string // for -o name
	tone    func(T) tone   // nil: plain
}

// render returns what -o asks for, as whole lines.
func render[T any](a *app, l listing[T], items []T) ([]byte, error) {
	var out bytes.Buffer
	switch a.format {
	case "json":
		return document(items)
	case "ndjson":
		enc := json.NewEncoder(&out)
		enc.SetEscapeHTML(false)
		for _, item := range items {
			if err := enc.Encode(item); err != nil {
				return nil, err
			}
		}
	case "name":
		last := ""
		for i, item := range items {
			if name := escape(l.name(item)); i == 0 || name != last { // versions of one name stand together
				fmt.Fprintln(&out, name)
				last = name
			}
		}
	default:
		for _, line := range table(a, l, items) {
			out.WriteString(line)
		}
	}
	return out.Bytes(), nil
}

// document is what -o json prints.
func document[T any](items []T) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if items == nil {
		items = []T{}
	}
	err := enc.Encode(struct {
		APIVersion string `json:"apiVersion"`
		Items      []T    `json:"items"`
	}{control.APIVersion, items})
	return out.Bytes(), err
}

// table returns the heading (unless unwanted) and a line an item.
func table[T any](a *app, l listing[T], items []T) []string {
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(cell func(column[T]) string) {
		cells := []string{}
		for _, c := range l.columns {
			if !c.wide || a.format == "wide" {
				cells = append(cells, cell(c))
			}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	tones := []tone{}
	if !a.noHeaders {
		row(func(c column[T]) string { return c.head })
		tones = append(tones, plain)
	}
	for _, item := range items {
		row(func(c column[T]) string { return dash(escape(c.cell(item))) })
		t := plain
		if l.tone != nil {
			t = l.tone(item)
		}
		tones = append(tones, t)
	}
	_ = w.Flush() // into memory
	lines := strings.SplitAfter(text.String(), "\n")
	lines = lines[:len(lines)-1] // what follows the last line's end
	for i, t := range tones {
		if t != plain && a.color && a.outTTY {
			lines[i] = string(t) + strings.TrimSuffix(lines[i], "\n") + "\x1b[0m\n"
		}
	}
	return lines
}
