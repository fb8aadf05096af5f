package agent

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// sizeOf sums the files below a folder.
func sizeOf(t *testing.T, dir string) (bytes int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return bytes
}

// Sixty new versions leave publisher, user and copy no larger at their largest than the first thirty did,
// but for the journal, which has a bound of its own.
func TestChurnLeavesNodesNoLarger(t *testing.T) { churn(t, 60, time.Minute) }

// So does a day of one every six minutes, compared with its first twelve hours.
func TestADayOfChurnLeavesNodesNoLarger(t *testing.T) {
	if os.Getenv("MESHD_TEST_ALL") == "" {
		t.Skip("skip: a day of three nodes; MESHD_TEST_ALL=1 runs it")
	}
	churn(t, 240, 6*time.Minute)
}

func churn(t *testing.T, versions int, rest time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 11)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", wantApp))
		late := f.join("late", 2, map[string]string{"late": "yes"})
		f.join("copy", 3, nil)
		path := filepath.Join(t.TempDir(), "app")
		publish := func() {
			b := make([]byte, 300<<10)
			for i := range b {
				b[i] = byte(f.rand.Uint32())
			}
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, err := host.agent.supply.offer(t.Context(), "app", "", 3, addPath(path), Cause{Text: "churn"}); err != nil {
				t.Fatal(err)
			}
			f.until("it is placed", time.Minute, func() (bool, string) { return late.read("app.txt") == string(b), "another version" })
		}
		// Packs grow until the next collection, whose time is by chance: their peaks are compared. What is kept and
		// what half an hour brings may lie there in any case: a collection is sure of what nobody keeps at its second look.
		may := (3 + int64(30*time.Minute/rest) + 2) * 300 << 10
		first, second := map[string]int64{}, map[string]int64{}
		began := time.Now()
		for version := range versions {
			publish()
			time.Sleep(rest)
			peak := first
			if version >= versions/2 {
				peak = second
			}
			for name, m := range f.nodes {
				peak[name] = max(peak[name], sizeOf(t, filepath.Join(m.dir, "packs")))
			}
		}
		t.Logf("%d versions in %v", versions, time.Since(began).Round(time.Minute))
		for name, m := range f.nodes {
			db := sizeOf(t, filepath.Join(m.dir, "state.db"))
			t.Logf("%s: packs of at most %d kB in the first half, %d kB in the second; state.db %d kB, all %d kB", name, first[name]>>10, second[name]>>10, db>>10, sizeOf(t, m.dir)>>10)
			if second[name] > max(first[name], may)+1<<20 || db > 2<<20 {
				t.Errorf("%s grew from %d to %d bytes of packs, and has %d of state.db", name, first[name], second[name], db)
			}
		}
		roots, err := host.agent.store.Roots()
		// Three are kept, one is the score, ten are younger than the last collection; Collect is sure of what
		// nobody keeps when it saw it twice.
		if err != nil || len(roots) > 3+1+20 {
			t.Errorf("the publisher still holds %d artifacts of %d versions, %v", len(roots), versions, err)
		}
	})
}

// What would pass max-size is not fetched and is told; what is there stays, and the rest comes when there is room.
func TestMaxSizeRefusesWhatIsNewAndKeepsWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 12)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", wantApp))
		f.setUp = func(c *Config) { c.MaxSizeBytes = 1 << 20 }
		late := f.join("late", 2, map[string]string{"late": "yes"})
		f.setUp = nil
		publish := func(text string) {
			if _, err := f.publishFile(host, "app", "", text); err != nil {
				t.Fatal(err)
			}
		}
		holds := func(text string) func() (bool, string) {
			return func() (bool, string) { return late.read("app.txt") == text, "another version" }
		}
		publish("small")
		f.until("it is placed", time.Minute, holds("small"))
		large := strings.Repeat("0123456789abcdef", 2<<20/16)
		publish(large)
		reason := f.waitOutcome(late, "p.want.app", "failed")
		if !strings.Contains(reason, "max-size") || late.read("app.txt") != "small" {
			t.Errorf("failed with %q; %d bytes are placed", reason, len(late.read("app.txt")))
		}
		f.halt(late, false)
		f.start(late)
		f.until("the large one is placed", 10*time.Minute, holds(large))
	})
}

// Bytes that the disk damaged are found without anybody asking for them, and come back from another holder.
func TestScrubHasDamageFetchedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 13)
		defer f.end()
		host := f.found("host", nil)
		f.publishScore(soloScore("1.0.0", wantApp))
		late := f.join("late", 2, map[string]string{"late": "yes"})
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = byte(f.rand.Uint32())
		}
		art, err := f.publishFile(host, "app", "", string(b))
		if err != nil {
			t.Fatal(err)
		}
		f.until("it is placed", time.Minute, func() (bool, string) { return late.read("app.txt") == string(b), "not yet" })
		of := late.agent.supply.named("app")
		if len(of) != 1 {
			t.Fatalf("%d versions of %s", len(of), art.Name)
		}
		packs, err := filepath.Glob(filepath.Join(late.dir, "packs", "*.pack"))
		if err != nil || len(packs) == 0 {
			t.Fatalf("packs %v, %v", packs, err)
		}
		p, err := os.OpenFile(packs[0], os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.WriteAt(make([]byte, 4096), 500<<10); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		pulled := late.agent.mesh.Stats().Swarm.PulledBytes
		f.until("the damage is found and mended", time.Hour, func() (bool, string) {
			has, err := late.agent.store.Has(of[0].ref.Root)
			again := late.agent.mesh.Stats().Swarm.PulledBytes - pulled
			return err == nil && has && again > 0, fmt.Sprintf("has %v, %d bytes came again, %v", has, again, err)
		})
	})
}
