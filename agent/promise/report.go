package promise

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"

	"meshd/policies"
)

// A reportKeeper tells people something once, and again when it says something else.
//
// Memory holds, under ADDRESS 0x00 "report", what was told last: version byte 1, SHA-256 of it.
type reportKeeper struct {
	address policies.Address
	spec    policies.Report
	site    Site
}

const reportRecord = 1 // version byte

func (k *reportKeeper) told() (key string, record []byte) {
	sum := sha256.Sum256([]byte(k.spec.Level + "\x00" + k.spec.Message))
	return string(k.address) + "\x00report", append([]byte{reportRecord}, sum[:]...)
}

// Check reports whether the message was told already.
func (k *reportKeeper) Check(context.Context) (Finding, error) {
	key, now := k.told()
	last, err := k.site.Memory.Get(key)
	if err != nil {
		return Finding{}, fmt.Errorf("read what was told last: %w", err)
	}
	if slices.Equal(last, now) {
		return Finding{OK: true}, nil
	}
	return Finding{Reason: "not told yet: " + k.spec.Message}, nil
}

// Repair tells it. A crash between telling and remembering tells it twice, never not at all.
func (k *reportKeeper) Repair(ctx context.Context) (Finding, error) {
	if f, err := k.Check(ctx); err != nil || f.OK {
		return f, err
	}
	if k.site.Log != nil {
		if _, err := io.WriteString(k.site.Log, reportLine(k.address, k.spec)); err != nil {
			return Finding{}, fmt.Errorf("tell the report: %w", err)
		}
	}
	key, now := k.told()
	if err := k.site.Memory.Put(key, now); err != nil {
		return Finding{}, fmt.Errorf("remember what was told: %w", err)
	}
	return Finding{OK: true, Reason: k.spec.Message}, nil
}

// reportLine is one line whatever the message holds.
func reportLine(a policies.Address, r policies.Report) string {
	level := r.Level
	if level == "" {
		level = "info"
	}
	return fmt.Sprintf("%s %s: %s\n", level, a, oneLine([]byte(r.Message)))
}

func (k *reportKeeper) Watches() []Watch                { return nil }
func (k *reportKeeper) End(context.Context, bool) error { return nil }
