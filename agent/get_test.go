package agent

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meshd/agent/control"
)

// What is here already is not pulled; whoever gets it is told all the same how much will come.
func TestGettingWhatIsHereTellsItsSizeBeforeItsBytes(t *testing.T) {
	solo(t, oneFile, func(f *fleet, m *simNode) {
		path := filepath.Join(t.TempDir(), "app")
		if err := os.WriteFile(path, []byte(strings.Repeat("a line\n", 1000)), 0o644); err != nil {
			t.Fatal(err)
		}
		d := door{m.agent}
		if _, err := d.Publish(f.t.Context(), "app", "", packed(f.t, path), nil); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		var total int64
		err := d.Get(f.t.Context(), "app", &out, func(l control.Line) {
			if out.Len() > 0 {
				t.Errorf("told %+v after the first bytes", l)
			}
			total = l.TotalBytes
		})
		if err != nil || total != 7000 || out.Len() < 7000 {
			t.Errorf("told of %d bytes, %d came, %v; want 7000 told", total, out.Len(), err)
		}
	})
}
