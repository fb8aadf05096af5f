package promise

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestAFirstStampIsTrustedOnlyWhereALaterWriteWouldChangeIt(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("one\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	s, ok := stampOf(info)
	if !ok {
		t.Skip("no stamps on this system")
	}
	now := time.Now()
	for name, tt := range map[string]struct {
		at   time.Duration
		racy bool
	}{"an hour ago": {-time.Hour, false}, "now": {0, true}, "in an hour": {time.Hour, false}} {
		s.mtime, s.ctime = now.Add(tt.at).UnixNano(), now.Add(tt.at).UnixNano()
		if s.isRacy() != tt.racy {
			t.Errorf("of a file written %s: racy is %v", name, s.isRacy())
		}
	}
	var fresh trust
	if fresh.found(info); fresh.holds(path, false) && time.Since(info.ModTime()) < racyWindow {
		t.Error("a file written just now is trusted at once")
	}
	time.Sleep(time.Until(info.ModTime().Add(2 * racyWindow))) // the system's clock of files is not the test's
	var old trust
	if old.found(info); !old.holds(path, false) {
		t.Error("a file that nobody wrote for long is not trusted")
	}
}
