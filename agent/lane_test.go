package agent

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meshd/agent/promise"
)

// crowd is a part with more commands, of a second each, than run at once.
func crowd(part string, commands int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "part %q {\n", part)
	for i := range commands {
		fmt.Fprintf(&b, "  command \"c%d\" { run = [\"slow\", %q] }\n", i, part)
	}
	b.WriteString("}\n")
	return b.String()
}

// Promises that end while they wait for a place must not take the places of those that come: with a new score
// most of it was not looked at before the next periodic look.
func TestANewScoreIsNotHeldUpByWhatWaitedOfTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 7)
		defer f.end()
		f.setUp = func(c *Config) {
			c.Host = promise.NewSim(map[string]promise.Program{"slow": func(ctx context.Context, _ promise.Cmd) (int, []byte) {
				select {
				case <-ctx.Done():
					return 1, nil
				case <-time.After(time.Second):
					return 0, nil
				}
			}})
		}
		m := f.found("host", nil)
		atOnce := 2 * runtime.GOMAXPROCS(0)
		const rounds = 5
		f.publishScore(soloScore("1.0.0", crowd("old", rounds*atOnce)))
		time.Sleep(1500 * time.Millisecond) // the second round is under way
		f.publishScore(soloScore("1.1.0", crowd("new", rounds*atOnce)))
		took := f.until("all of the new score is kept", 20*time.Second, func() (bool, string) {
			list, err := m.agent.ownPromises(t.Context(), "")
			kept := 0
			for _, p := range list {
				if strings.HasPrefix(p.Address, "new.") && (p.Outcome == "kept" || p.Outcome == "repaired") {
					kept++
				}
			}
			return err == nil && kept == rounds*atOnce, fmt.Sprintf("%d of %d are, %v", kept, rounds*atOnce, err)
		})
		if took > (rounds+2)*time.Second {
			t.Errorf("it took %v, want about %d s", took, rounds)
		}
	})
}
