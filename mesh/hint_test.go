package mesh

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"meshd/mesh/catalog"
	"meshd/mesh/id"
	"meshd/mesh/ring"
	"meshd/mesh/wire"
)

func TestAHintIsReadAsItWasWritten(t *testing.T) {
	for _, h := range []hint{
		{catalog.LogID{Origin: id.Node{1}, Epoch: 1, Scope: catalog.ScopeNodes}, 1},
		{catalog.LogID{Origin: id.Node{0xff, 2}, Epoch: 1 << 63, Scope: catalog.ScopeMain}, 1<<64 - 1},
	} {
		b := h.pack()
		got, err := unpackHint(b)
		if err != nil || got != h {
			t.Errorf("%v became %v, %v", h, got, err)
		}
		if len(b) > hintMaxBytes || hintMaxBytes > ring.MaxHint {
			t.Errorf("a hint of %d bytes", len(b))
		}
		for n := range b {
			if _, err := unpackHint(b[:n]); !errors.Is(err, errHint) {
				t.Errorf("cut to %d bytes: %v", n, err)
			}
		}
	}
	var limit *wire.LimitError
	if _, err := unpackHint([]byte(strings.Repeat("x", 100))); !errors.As(err, &limit) {
		t.Errorf("a long hint: %v", err)
	}
}

func FuzzHint(f *testing.F) {
	f.Add(hint{catalog.LogID{Origin: id.Node{1}, Epoch: 7, Scope: catalog.ScopeMain}, 300}.pack())
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := unpackHint(b); err == nil && !bytes.Equal(h.pack(), b) {
			t.Errorf("%x has another spelling", b)
		}
	})
}

// What the ring says is noted within a limit, and what is no hint is counted.
func TestHintsAreBounded(t *testing.T) {
	m := &Mesh{self: id.Node{9}, hints: newHints(), hintRand: newRand(1), kick: make(chan struct{}, 1)}
	for i := range 3 * maxHints {
		m.heardHint(hint{catalog.LogID{Origin: id.Node{1, byte(i), byte(i >> 8)}, Epoch: 1, Scope: catalog.ScopeMain}, 5}.pack())
		m.heardHint([]byte("noise"))
	}
	m.heardHint(hint{catalog.LogID{Origin: m.self, Epoch: 1, Scope: catalog.ScopeMain}, 5}.pack())
	if len(m.hints.heard) != maxHints || m.hints.bad != 3*maxHints {
		t.Errorf("%d hints are kept of %d, %d are counted as noise", len(m.hints.heard), maxHints, m.hints.bad)
	}
	m.wrote(catalog.Record{Log: catalog.LogID{Origin: m.self, Epoch: 1, Scope: catalog.ScopeNodes}, Seq: 4, Kind: catalog.KindStatus})
	if len(m.hints.own) != 0 {
		t.Error("a status is hinted")
	}
}
