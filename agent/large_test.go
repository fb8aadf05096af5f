package agent

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
)

// A score of several chunks is read whole: the last chunk alone was, and refused as nonsense.
func TestAScoreOfSeveralChunksIsReadWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 7)
		defer f.end()
		m := f.found("host", nil)
		var long strings.Builder
		for i := range 4_000 {
			fmt.Fprintf(&long, "# remark %d, which makes this score long\n", i)
		}
		f.publishScore(soloScore("1.0.0", long.String()+oneFile))
		f.waitGood(m, "p.file.a")
		if got := m.read("a.txt"); got != "CONTENT" {
			t.Errorf("a.txt holds %q", got)
		}
	})
}
