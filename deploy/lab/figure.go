package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// A figure is one quantity, measured once or often.
type figure struct {
	name   string
	unit   string
	values []float64
	at     float64 // the quantile that is told and judged; 0 is the median
	target float64 // at most this; 0: it is only told
	remark string  // in place of values: why there are none
	quoted bool    // name says it all: another program's words
}

// single is a figure of one value.
func single(name, unit string, v, target float64) figure {
	return figure{name: name, unit: unit, values: []float64{v}, target: target}
}

// pool joins the values of equal figures of several runs.
func pool(all, more []figure) []figure {
	for _, f := range more {
		i := slices.IndexFunc(all, func(g figure) bool { return g.name == f.name })
		if i < 0 {
			all = append(all, f)
			continue
		}
		all[i].values = append(all[i].values, f.values...)
	}
	return all
}

// quantile is the nearest rank of sorted values; q is 0..1.
func quantile(sorted []float64, q float64) float64 {
	i := int(math.Ceil(q * float64(len(sorted))))
	return sorted[max(i-1, 0)]
}

// columns are what both forms show: name, value, range, target, verdict.
func (f figure) columns() [5]string {
	if f.quoted {
		return [5]string{f.name}
	}
	if len(f.values) == 0 {
		return [5]string{f.name, "-", "", "", "skipped: " + f.remark}
	}
	v := slices.Sorted(slices.Values(f.values))
	q := f.at
	if q == 0 {
		q = 0.5
	}
	got := quantile(v, q)
	out := [5]string{f.name, f.show(got), "", "", f.remark}
	if len(v) > 1 {
		out[2] = fmt.Sprintf("%s..%s (%d)", f.show(v[0]), f.show(v[len(v)-1]), len(v))
	}
	if f.target > 0 {
		out[3] = "<= " + f.show(f.target)
		out[4] = "ok"
		if got > f.target {
			out[4] = "MISSED"
		}
	}
	return out
}

func (f figure) show(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	switch {
	case v == 0:
	case v < 0.1:
		s = fmt.Sprintf("%.4f", v)
	case v < 10 && f.unit == "x":
		s = fmt.Sprintf("%.3f", v)
	case v < 10:
		s = fmt.Sprintf("%.2f", v)
	case v < 100:
		s = fmt.Sprintf("%.1f", v)
	}
	if strings.Contains(s, ".") {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	if f.unit == "" {
		return s
	}
	return s + " " + f.unit
}

func (f figure) line() string {
	c := f.columns()
	return strings.TrimRight(fmt.Sprintf("%-72s %10s  %-26s %-12s %s", c[0], c[1], c[2], c[3], c[4]), " ")
}

func (f figure) markdown() string {
	c := f.columns()
	return "| " + strings.Join(c[:], " | ") + " |"
}
