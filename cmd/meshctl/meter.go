package main

import (
	"encoding/json"
	"io"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"meshd/agent/control"
)

const (
	barWidth  = 30
	meterRest = 100 * time.Millisecond // between two words of bytes that this program counts itself
)

// A meter shows how far something has come: as a bar on a terminal, as lines of JSON on stdout with -o ndjson, and
// not at all elsewhere. Its methods may be called at once.
type meter struct {
	bars io.Writer // a terminal, or nil
	now  func() time.Time

	mu    sync.Mutex
	what  string
	json  *json.Encoder // or nil
	all   *mpb.Progress // nil before the first line
	bar   *mpb.Bar
	total int64     // as last told
	last  time.Time // when counted bytes were last shown
	pace  pace      // where a line tells no rate
	text  string    // behind the bar: how it goes
}

func newMeter(a *app, what string) *meter {
	m := &meter{what: escape(what), now: time.Now}
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
	m.mu.Lock()
	defer m.mu.Unlock()
	m.show(l)
}

// show is progress for whoever holds mu.
func (m *meter) show(l control.Line) {
	m.total = l.TotalBytes
	if m.json != nil {
		_ = m.json.Encode(l)
	}
	if m.bars == nil {
		return
	}
	m.text = m.pace.describe(l, m.now())
	if m.all == nil {
		text := func(decor.Statistics) string {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.text
		}
		name := func(decor.Statistics) string {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.what + "  "
		}
		m.all = mpb.New(mpb.WithOutput(m.bars), mpb.WithWidth(barWidth), mpb.WithAutoRefresh())
		m.bar = m.all.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"), mpb.BarRemoveOnComplete(),
			mpb.PrependDecorators(decor.Any(name), decor.CountersKibiByte("% .1f of % .1f  ")),
			mpb.AppendDecorators(decor.Percentage(), decor.Any(text)))
	}
	m.bar.SetTotal(max(l.TotalBytes, l.DoneBytes), false)
	m.bar.SetCurrent(l.DoneBytes)
}

// sending counts what is read from r, of about total bytes.
func (m *meter) sending(r io.Reader, total int64) io.Reader {
	done := int64(0)
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		done += int64(n)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.due() {
			m.show(control.Line{Type: control.LineProgress, DoneBytes: min(done, total), TotalBytes: total})
		}
		return n, err
	})
}

// receiving counts what is written to w, under a name of its own, of the total that progress was last told. Programs
// that read -o ndjson are told nothing of it: their count of bytes would begin anew.
func (m *meter) receiving(w io.Writer, what string) io.Writer {
	done := int64(0)
	return writerFunc(func(p []byte) (int, error) {
		n, err := w.Write(p)
		done += int64(n)
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.json == nil && m.due() {
			m.what = escape(what)
			m.show(control.Line{DoneBytes: min(done, m.total), TotalBytes: m.total})
		}
		return n, err
	})
}

// due reports whether counted bytes may be shown again. Whoever calls it holds mu.
func (m *meter) due() bool {
	now := m.now()
	if now.Sub(m.last) < meterRest {
		return false
	}
	m.last = now
	return true
}

// clear takes the bar away, so that what follows begins on a clean line.
func (m *meter) clear() {
	if m.bar != nil {
		m.bar.Abort(true)
		m.all.Wait()
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// bytesBelow is what the regular files at path hold, as far as they can be looked at.
func bytesBelow(path string) (total int64) {
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // publishing says what can't be read
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}
