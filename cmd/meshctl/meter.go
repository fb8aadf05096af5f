package main

import (
	"encoding/json"
	"io"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"meshd/agent/control"
)

const barWidth = 30

// A meter shows how far something has come: as a bar on a terminal, as lines of JSON on stdout with -o ndjson, and
// not at all elsewhere. Its methods are called from one goroutine.
type meter struct {
	what string
	bars io.Writer     // a terminal, or nil
	json *json.Encoder // or nil

	all *mpb.Progress // nil before the first line
	bar *mpb.Bar
}

func newMeter(a *app, what string) *meter {
	m := &meter{what: escape(what)}
	switch {
	case a.format == "ndjson":
		m.json = json.NewEncoder(a.stdout)
	case a.errTTY:
		m.bars = a.stderr
	}
	return m
}

// progress shows one line of progress. What can't be shown is not worth an error: the result follows.
func (m *meter) progress(l control.Line) {
	if m.json != nil {
		_ = m.json.Encode(l)
	}
	if m.bars == nil {
		return
	}
	if m.all == nil {
		m.all = mpb.New(mpb.WithOutput(m.bars), mpb.WithWidth(barWidth), mpb.WithAutoRefresh())
		m.bar = m.all.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Name(m.what+"  "), decor.CountersKibiByte("% .1f of % .1f  ")),
			mpb.AppendDecorators(decor.Percentage()))
	}
	m.bar.SetTotal(max(l.TotalBytes, l.DoneBytes), false)
	m.bar.SetCurrent(l.DoneBytes)
}

// clear takes the bar away, so that what follows begins on a clean line.
func (m *meter) clear() {
	if m.bar != nil {
		m.bar.Abort(true)
		m.all.Wait()
	}
}
