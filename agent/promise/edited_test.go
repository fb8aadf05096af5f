package promise

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"meshd/policies"
)

// Somebody is just writing the file: it is empty when it is looked at, and whole a moment later.
func TestFileOfLinesKeepsAnEditThatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		path := filepath.Join(s.Work, "slip")
		k := keeper(t, s, policies.File{Path: "slip", Lines: &policies.Lines{Present: []string{"promised"}}})
		write(t, path, "")
		time.AfterFunc(30*time.Millisecond, func() { write(t, path, "an edi") })
		time.AfterFunc(60*time.Millisecond, func() { write(t, path, "an edit\n") })
		if _, err := k.Repair(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := read(t, path), "an edit\npromised\n"; got != want {
			t.Errorf("the file holds %q, want %q", got, want)
		}
	})
}

// The same where the edit comes at the last moment, when the new file is made already.
func TestFileOfLinesKeepsAnEditMadeMeanwhile(t *testing.T) {
	for _, tt := range []struct{ name, before, edit string }{
		{"of a file", "old\n", "an edit, and longer\n"},
		{"of the same length", "old\n", "new\n"},
		{"where none was", "", "an edit\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				edited := false
				var path string
				host := NewSim(map[string]Program{"validate": func(context.Context, Cmd) (int, []byte) {
					if !edited {
						edited = true
						write(t, path, tt.edit)
						later := time.Now().Add(time.Hour) // the clock of files may not have ticked yet
						if err := os.Chtimes(path, later, later); err != nil {
							t.Error(err)
						}
					}
					return 0, nil
				}})
				s := newSite(t, host)
				path = filepath.Join(s.Work, "slip")
				if tt.before != "" {
					write(t, path, tt.before)
				}
				k := keeper(t, s, policies.File{Path: "slip", Validate: []string{"validate"}, Lines: &policies.Lines{Present: []string{"promised"}}})
				if _, err := k.Repair(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got, want := read(t, path), tt.edit+"promised\n"; got != want {
					t.Errorf("the file holds %q, want %q", got, want)
				}
			})
		})
	}
}

// One who never ceases to write is not fought.
func TestFileOfLinesThatIsAlwaysWrittenIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, nil)
		path := filepath.Join(s.Work, "slip")
		write(t, path, "x")
		k := keeper(t, s, policies.File{Path: "slip", Lines: &policies.Lines{Present: []string{"promised"}}})
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for text := "x"; ; text += "x" {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
					write(t, path, text)
				}
			}
		}()
		_, err := k.Repair(t.Context())
		close(stop)
		<-done
		if err == nil {
			t.Error("it was repaired under the writer's hands")
		}
		if left, err := os.ReadDir(s.Work); err != nil || len(left) != 1 {
			t.Errorf("left %v (%v)", left, err)
		}
	})
}
