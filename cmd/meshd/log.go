package main

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
)

// logger writes to standard error: as text or JSON, and for the journal, which has its own time and knows
// levels by a number in front of the line, without time and with that number.
func (o *options) logger(level slog.Leveler) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: level}
	switch o.format {
	case "text":
		if toJournal(os.Stderr, os.Getenv("JOURNAL_STREAM")) {
			return slog.New(newJournalHandler(os.Stderr, level)), nil
		}
		return slog.New(slog.NewTextHandler(os.Stderr, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, opts)), nil
	}
	return nil, usagef("--log-format %q: want text or json", o.format)
}

func (o *options) logLevel() (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.level)); err != nil {
		return 0, usagef("--log-level %q: want debug, info, warn or error", o.level)
	}
	return level, nil
}

// toJournal reports whether f is the stream that systemd says it connected to its journal, DEVICE:INODE. A
// shell that redirects standard error leaves the variable behind.
func toJournal(f *os.File, stream string) bool {
	device, inode, ok := strings.Cut(stream, ":")
	if !ok {
		return false
	}
	dev, ino, ok := fileID(f)
	return ok && device == strconv.FormatUint(dev, 10) && inode == strconv.FormatUint(ino, 10)
}

// A journalHandler writes records for the journal: one text handler for each number of sd-daemon(3).
type journalHandler struct{ error, warn, info, debug slog.Handler }

func newJournalHandler(w io.Writer, level slog.Leveler) *journalHandler {
	lines := &syncWriter{w: w}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}}
	of := func(prefix string) slog.Handler { return slog.NewTextHandler(&prefixed{lines, prefix}, opts) }
	return &journalHandler{error: of("<3>"), warn: of("<4>"), info: of("<6>"), debug: of("<7>")}
}

// Enabled is the same for all four.
func (h *journalHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.info.Enabled(ctx, l)
}

// Handle writes one record as one line.
func (h *journalHandler) Handle(ctx context.Context, r slog.Record) error {
	switch {
	case r.Level >= slog.LevelError:
		return h.error.Handle(ctx, r)
	case r.Level >= slog.LevelWarn:
		return h.warn.Handle(ctx, r)
	case r.Level >= slog.LevelInfo:
		return h.info.Handle(ctx, r)
	}
	return h.debug.Handle(ctx, r)
}

// WithAttrs adds to all four.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.each(func(one slog.Handler) slog.Handler { return one.WithAttrs(attrs) })
}

// WithGroup opens a group in all four.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	return h.each(func(one slog.Handler) slog.Handler { return one.WithGroup(name) })
}

func (h *journalHandler) each(f func(slog.Handler) slog.Handler) *journalHandler {
	return &journalHandler{error: f(h.error), warn: f(h.warn), info: f(h.info), debug: f(h.debug)}
}

// syncWriter writes whole lines, one after the other.
type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(b)
}

// prefixed puts the same in front of each write.
type prefixed struct {
	w      io.Writer
	prefix string
}

func (p *prefixed) Write(b []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.prefix), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}
