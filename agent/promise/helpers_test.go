package promise

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meshd/policies"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for a thing of the machine before it fails.
const patience = 30 * time.Second

// A shelf is Memory in a map, with the two faults of every write.
type shelf struct {
	mu     sync.Mutex
	m      map[string][]byte
	writes int
	fail   error // Put: not applied
	after  error // Put: applied all the same
}

func newShelf() *shelf { return &shelf{m: map[string][]byte{}} }

func (s *shelf) Get(key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[key], nil
}

func (s *shelf) Put(key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes++
	if s.fail != nil {
		return s.fail
	}
	if value == nil {
		delete(s.m, key)
	} else {
		s.m[key] = value
	}
	return s.after
}

func realHost(t testing.TB) *Real {
	t.Helper()
	h, err := NewReal()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

func newSite(t testing.TB, h Host) Site {
	t.Helper()
	dir := t.TempDir()
	s := Site{Host: h, Memory: newShelf(), Work: filepath.Join(dir, "work"), Data: filepath.Join(dir, "data"), Wall: time.Now}
	for _, d := range []string{s.Work, s.Data} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func keeper(t testing.TB, s Site, spec policies.Spec) Keeper {
	t.Helper()
	k, err := New(promiseOf(spec), s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func promiseOf(spec policies.Spec) policies.Promise {
	return policies.Promise{Address: "part.type.name", Spec: spec}
}

func check(t testing.TB, k Keeper) Finding {
	t.Helper()
	f, err := k.Check(context.Background())
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	return f
}

// keep repairs once if need be, and insists that the promise is then kept. It reports whether it repaired.
func keep(t testing.TB, k Keeper) bool {
	t.Helper()
	if check(t, k).OK {
		return false
	}
	if _, err := k.Repair(context.Background()); err != nil {
		t.Fatalf("Repair: %v", err)
	}
	if f := check(t, k); !f.OK {
		t.Fatalf("not kept after Repair: %s", f.Reason)
	}
	return true
}

func waiting(err error) bool {
	_, ok := errors.AsType[*WaitingError](err)
	return ok
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func wait[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		t.Fatalf("waited %s for %s", patience, what)
		panic("unreachable")
	}
}

func ptr[T any](v T) *T { return &v }
