package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/catalog"
	"meshd/store"
)

const phoneScore = `score "apps" {
  version  = "1.0.0"
  language = 1
  why      = "What a phone wants of the mesh"
}

role "phone" { when = node.name == "phone" }

part "apps" {
  role = "phone"
  want "apps" {
    name  = "app/*"
    place = "apps/${artifact.name}"
  }
}
`

// A phone that slept for thirty days is right again in seconds, over its own slow line, with nobody's help.
func TestPhoneAsleepForAMonthIsRightInSeconds(t *testing.T) {
	adverts := 1000
	if os.Getenv("MESHD_TEST_ALL") != "" {
		adverts = 10_000
	}
	const (
		apps     = 10
		appBytes = 10 << 10
		month    = 30 * 24 * time.Hour
		line     = 5_000_000 / 8 // bytes per second
	)
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 30)
		defer f.end()
		var skew atomic.Int64
		f.setUp = func(cfg *Config) { cfg.Wall = func() time.Time { return time.Now().Add(time.Duration(skew.Load())) } }
		hub := f.found("hub", nil)
		f.publishScore(phoneScore)
		f.join("second", 2, nil)
		phone := f.join("phone", 3, nil)
		f.net.Rate(phone.addr, line)
		source := filepath.Join(t.TempDir(), "app")
		text := func(i int, version string) string {
			return fmt.Sprintf("%s of %d\n%0*d", version, i, appBytes, i)
		}
		publish := func(version string) {
			for i := range apps {
				if err := os.WriteFile(source, []byte(text(i, version)), 0o644); err != nil {
					t.Fatal(err)
				}
				if _, err := hub.agent.supply.offer(t.Context(), fmt.Sprintf("app/%d", i), "", 1, addPath(source), Cause{Text: "test"}); err != nil {
					t.Fatal(err)
				}
			}
		}
		placed := func(version string) func() (bool, string) {
			return func() (bool, string) {
				for i := range apps {
					if phone.read(fmt.Sprintf("apps/app/%d", i)) != text(i, version) {
						return false, fmt.Sprintf("app/%d", i)
					}
				}
				return true, ""
			}
		}
		publish("first")
		f.until("the phone has the first versions", time.Minute, placed("first"))
		f.halt(phone, true)
		skew.Store(int64(month))
		manyAdverts(t, hub, adverts, source)
		publish("second")
		f.until("the others know the same", 10*time.Minute, func() (bool, string) {
			return hub.agent.mesh.Catalog().Root() == f.nodes["second"].agent.mesh.Catalog().Root(), ""
		})
		_, before := f.net.Passed(phone.addr)
		f.start(phone)
		took := f.until("the phone has the second versions", time.Minute, placed("second"))
		whole := took + f.until("the phone knows all", time.Minute, func() (bool, string) {
			return hub.agent.mesh.Catalog().Root() == phone.agent.mesh.Catalog().Root(), ""
		})
		_, after := f.net.Passed(phone.addr)
		received := after - before - apps*appBytes
		t.Logf("%d adverts behind, at 5 Mbit/s: all it wants in place %v after the start (target 10 s), catalogs equal after %v, %d bytes beside the artifacts (target 3,000,000)",
			adverts, took, whole, received)
		if took > 10*time.Second {
			t.Errorf("what the phone wants was in place only after %v", took)
		}
		if received > 3_000_000 {
			t.Errorf("the phone was sent %d bytes beside the artifacts", received)
		}
	})
}

// manyAdverts has a node offer one content under many names.
func manyAdverts(t *testing.T, m *simNode, n int, source string) {
	t.Helper()
	ref, err := m.agent.store.Add(t.Context(), store.AddOptions{Path: source})
	if err != nil {
		t.Fatal(err)
	}
	body, err := catalog.EncodeArtifact(catalog.ArtifactBody{Counter: 1, Root: ref.Root, Tree: ref.Tree, SizeBytes: ref.SizeBytes, Keep: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := m.agent.mesh.Publish(t.Context(), catalog.KindArtifact, fmt.Sprintf("log/%d", i), body, 1); err != nil {
			t.Fatal(err)
		}
	}
}
