package agent

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/catalog"
	"meshd/store/artifact"
)

// Nothing arrives any more on the streams that a node has, and nobody told it. It hears of news by the ring's event, finds
// that its neighbours are silent, and opens new streams: long before silence alone would make it do so.
func TestNewsReachANodeWithDeadStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := four(t, 26)
		defer f.end()
		f.publishScore(notes)
		deaf, from := f.nodes["node_2"], f.nodes["node_1"]
		for _, m := range f.nodes {
			f.waitScore(m)
		}
		for i := range 3 {
			time.Sleep(20 * time.Second)
			f.net.Deafen(deaf.addr)
			from.put(t, "note.txt", fmt.Sprintf("news %d\n", i))
			took := f.until("the news are in place", 3*time.Minute, func() (bool, string) {
				got := deaf.read("in/note/node_1")
				return got == from.read("note.txt"), got
			})
			t.Logf("news %d were in place %v after they were written", i, took)
			if took > healLimit {
				t.Errorf("news %d were in place only after %v", i, took)
			}
			f.until("all are whole", time.Minute, f.whole)
		}
	})
}

// A want that began to pull a version which was replaced meanwhile, and which nobody kept, looks for the newer one at once.
func TestAPullOfWhatWasReplacedEndsSoon(t *testing.T) {
	market(t, func(t *testing.T, f *fleet) {
		maker, user := f.nodes["maker"], f.nodes["user"]
		if _, err := f.publishFile(maker, "app", "", "one"); err != nil {
			t.Fatal(err)
		}
		f.until("the first is placed", time.Minute, func() (bool, string) { return user.read("app.txt") == "one", f.report() })
		nothing := artifact.Sum([]byte("nobody kept this"))
		f.advertise(maker, "app", catalog.ArtifactBody{Counter: 2, Root: nothing, Tree: nothing, SizeBytes: 1000, Keep: 1})
		if _, err := maker.agent.supply.offer(t.Context(), "app", "", 1, addPath(f.file("three")), Cause{}); err != nil {
			t.Fatal(err)
		}
		took := f.until("the newer one is placed", time.Minute, func() (bool, string) { return user.read("app.txt") == "three", f.report() })
		t.Logf("in place %v after the publish", took)
		if took < pullNoOffer/2 || took > 2*pullNoOffer {
			t.Errorf("in place %v after the publish: want about %v, when the pull of the version that is gone ends", took, pullNoOffer)
		}
	})
}
