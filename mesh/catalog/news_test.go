package catalog

import (
	"fmt"
	"testing"
)

// A reader that follows Since hears of every name, and is told when it fell too far behind.
func TestSinceNamesWhatChanged(t *testing.T) {
	var n news
	c := &Catalog{}
	note := func(name string) {
		n.note(&entry{log: &LogID{}, kind: KindArtifact, name: name})
		c.news = n
	}
	if changes, now, all := c.Since(0); len(changes) != 0 || now != 0 || all {
		t.Fatalf("an empty catalog tells %v, %d, %v", changes, now, all)
	}
	note("a")
	note("b")
	changes, now, all := c.Since(0)
	if len(changes) != 2 || changes[0].Name != "a" || changes[1].Name != "b" || now != 2 || all {
		t.Fatalf("Since(0) = %v, %d, %v", changes, now, all)
	}
	for i := range newsKept + 5 {
		note(fmt.Sprint(i))
	}
	if changes, _, all := c.Since(2); len(changes) != 0 || !all {
		t.Fatalf("a reader %d changes behind is told %d of them and all=%v", newsKept+5, len(changes), all)
	}
	changes, now, all = c.Since(2 + newsKept)
	if len(changes) != 5 || changes[4].Name != fmt.Sprint(newsKept+4) || now != newsKept+7 || all {
		t.Fatalf("Since after the ring went round = %v, %d, %v", changes, now, all)
	}
	if _, _, all := c.Since(now + 1); !all {
		t.Error("a reader from another life is not told to read all")
	}
}
