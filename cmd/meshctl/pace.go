package main

import (
	"fmt"
	"math"
	"strings"
	"time"

	"meshd/agent/control"
)

const paceMemory = 3 * time.Second // over how long a rate is smoothed

// A pace is the rate of something whose progress lines tell none.
type pace struct {
	done int64
	at   time.Time // of the first or the last line that moved; zero before
	rate float64   // bytes a second
}

// describe words how it goes as of a line: rate, nodes, time left; each where it is known.
func (p *pace) describe(l control.Line, now time.Time) string {
	rate := l.BytesPerSecond
	if rate == 0 {
		rate = p.rateOf(l.DoneBytes, now)
	}
	return paceText(rate, l.Nodes, l.TotalBytes-l.DoneBytes)
}

func (p *pace) rateOf(done int64, now time.Time) float64 {
	switch {
	case p.at.IsZero() || done < p.done: // what was there before has no rate
		*p = pace{done: done, at: now}
	case done > p.done && now.After(p.at):
		dt := now.Sub(p.at).Seconds()
		keep := math.Exp(-dt / paceMemory.Seconds())
		if p.rate == 0 {
			keep = 0
		}
		p.rate = keep*p.rate + (1-keep)*float64(done-p.done)/dt
		p.done, p.at = done, now
	}
	return p.rate
}

// paceText is what stands behind a bar; "" when nothing is known.
func paceText(bytesPerSecond float64, nodes int, left int64) string {
	var parts []string
	if left > 0 && bytesPerSecond >= 1 {
		parts = append(parts, sizeText(int64(bytesPerSecond))+"/s")
	}
	switch {
	case nodes == 1:
		parts = append(parts, "1 node")
	case nodes > 1:
		parts = append(parts, fmt.Sprintf("%d nodes", nodes))
	}
	if left > 0 && bytesPerSecond >= 1 {
		parts = append(parts, leftText(float64(left)/bytesPerSecond)+" left")
	}
	if len(parts) == 0 {
		return ""
	}
	return "  " + strings.Join(parts, ", ")
}

// leftText writes a time to come in its two largest units.
func leftText(seconds float64) string {
	d := time.Duration(math.Ceil(min(seconds, 1e9))) * time.Second
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd", d/(24*time.Hour))
}

// barText draws a bar of so many cells.
func barText(done, total int64, cells int) string {
	if total <= 0 {
		return "[" + strings.Repeat(" ", cells) + "]"
	}
	full := int(min(done, total) * int64(cells) / total)
	bar := strings.Repeat("=", full)
	if full > 0 && full < cells {
		bar = bar[:full-1] + ">"
	}
	return fmt.Sprintf("[%-*s]", cells, bar)
}

// pullText is how far an artifact has come that is on its way here.
func pullText(x control.Artifact) string {
	switch {
	case x.Local:
		return "here"
	case x.Pull == nil:
		return ""
	case x.Pull.TotalBytes == 0:
		return "asking" + paceText(0, x.Pull.Nodes, 0)
	}
	p := x.Pull
	return fmt.Sprintf("%s %3d %%%s", barText(p.DoneBytes, p.TotalBytes, watchBar), 100*p.DoneBytes/p.TotalBytes, paceText(p.BytesPerSecond, p.Nodes, p.TotalBytes-p.DoneBytes))
}

const watchBar = 16 // cells of the bars of artifacts --watch
