package promise

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAFirstStampIsTrustedOnlyWhereALaterWriteWouldChangeIt(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, tt := range map[string]struct {
		at   time.Duration
		racy bool
	}{"an hour ago": {-time.Hour, false}, "now": {0, true}, "in an hour": {time.Hour, false}} {
		at := now.Add(tt.at).UnixNano()
		if got := (stamp{mtime: at, ctime: at}).isRacy(); got != tt.racy {
			t.Errorf("of a file written %s: racy is %v", name, got)
		}
	}
	trusted := func(path string) bool {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		var first trust
		first.found(info)
		return first.holds(path, false)
	}
	if !trusted("stamp.go") {
		t.Error("a file that nobody wrote for long is not trusted")
	}
	path, held := filepath.Join(t.TempDir(), "f"), true
	for range 10 { // one look within a racyWindow of the write will do
		if err := os.WriteFile(path, []byte("one\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		held = held && trusted(path)
	}
	if held {
		t.Error("a file written just now is trusted at once")
	}
}
