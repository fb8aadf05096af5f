package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"meshd/agent/control"
)

// Who asks in the first instant, before the node's certificate is in its log, is told of the node itself.
func TestANodeListsItselfBeforeItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 5)
		defer f.end()
		m := f.found("host", map[string]string{"kind": "parent"})
		f.halt(m, false)
		if err := os.Remove(filepath.Join(m.dir, "state.db")); err != nil {
			t.Fatal(err)
		}
		a := f.made(m)
		defer func() {
			ended, cancel := context.WithCancel(context.Background())
			cancel()
			if err := a.Run(ended); err != nil {
				t.Error(err)
			}
		}()
		list, err := door{a}.Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 1 {
			t.Fatalf("members: %+v", list)
		}
		want := control.Member{Name: "host", ID: a.mesh.Self().String(), Status: "alive"}
		if got := list[0]; !got.Self || got.Name != want.Name || got.ID != want.ID || got.Status != want.Status || got.Tags["kind"] != "parent" {
			t.Errorf("it lists %+v, want itself, %+v", got, want)
		}
	})
}
