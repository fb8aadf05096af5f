package ring

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Lines of serf and memberlist above debug that are let through in a time; peers can cause any number.
const (
	logLines = 10
	logEvery = time.Minute
)

// A logWriter turns the lines of serf and memberlist into slog records. What they call an error is a
// warning here, a warning is information, all else is for debugging: that a newcomer is heard of before its
// certificate too, which happens at every admission and mends itself (reconsider).
type logWriter struct {
	log *slog.Logger

	mu      sync.Mutex
	since   time.Time
	lines   int
	skipped int
}

func (w *logWriter) Write(line []byte) (int, error) {
	ctx := context.Background()
	level, text := parseLine(line)
	if !w.log.Enabled(ctx, level) {
		return len(line), nil
	}
	skipped := 0
	if level > slog.LevelDebug {
		var ok bool
		if skipped, ok = w.allow(time.Now()); !ok {
			return len(line), nil
		}
	}
	if skipped > 0 {
		w.log.Log(ctx, level, "ring", "text", text, "skipped_before", skipped)
	} else {
		w.log.Log(ctx, level, "ring", "text", text)
	}
	return len(line), nil
}

func (w *logWriter) allow(now time.Time) (skipped int, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.since) >= logEvery {
		w.since, w.lines = now, 0
	}
	if w.lines >= logLines {
		w.skipped++
		return 0, false
	}
	w.lines++
	skipped, w.skipped = w.skipped, 0
	return skipped, true
}

// parseLine splits "[WARN] memberlist: text" into level and text.
func parseLine(line []byte) (slog.Level, string) {
	line = bytes.TrimSpace(line)
	level := slog.LevelDebug
	if rest, ok := bytes.CutPrefix(line, []byte("[")); ok {
		if name, text, ok := bytes.Cut(rest, []byte("] ")); ok {
			line = text
			switch {
			case strings.HasPrefix(string(name), "ERR"):
				level = slog.LevelWarn
			case string(name) == "WARN" && !bytes.HasSuffix(text, []byte(errNoCert.Error())):
				level = slog.LevelInfo
			}
		}
	}
	return level, string(line)
}
