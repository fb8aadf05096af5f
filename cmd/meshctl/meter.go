package main

import (
	"fmt"
	"io"
	"time"

	"meshd/agent/control"
)

const meterEvery = 100 * time.Millisecond

// A meter shows progress on one line of a terminal, and nothing anywhere else. It is used from one goroutine.
type meter struct {
	out   io.Writer
	on    bool
	now   func() time.Time
	what  string
	drawn time.Time // zero: nothing is on the line
}

func (m *meter) progress(l control.Line) {
	now := m.now()
	if !m.on || now.Sub(m.drawn) < meterEvery {
		return
	}
	m.drawn = now
	text := m.what + "  " + sizeText(l.DoneBytes)
	if l.TotalBytes > 0 {
		text += fmt.Sprintf(" of %s  %d%%", sizeText(l.TotalBytes), min(100, int64(100*float64(l.DoneBytes)/float64(l.TotalBytes))))
	}
	fmt.Fprintf(m.out, "\r\x1b[K%s", text)
}

// clear takes the line away, so that what follows begins on a clean one.
func (m *meter) clear() {
	if !m.drawn.IsZero() {
		fmt.Fprint(m.out, "\r\x1b[K")
		m.drawn = time.Time{}
	}
}
