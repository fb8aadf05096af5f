package store

import (
	"errors"
	"testing"

	"go.etcd.io/bbolt"
)

func TestWhatRidesGoesWithTheNextTransaction(t *testing.T) {
	s := open(t, t.TempDir())
	in := func(id *int, err error) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			*id = tx.ID()
			return err
		}
	}
	var ridden, lead, alone int
	wait := s.ride(in(&ridden, nil))
	if ridden != 0 {
		t.Fatal("a ride began a transaction")
	}
	must(t, s.commit(in(&lead, nil)))
	must(t, wait())
	if ridden == 0 || ridden != lead {
		t.Errorf("it rode in transaction %d, the next was %d", ridden, lead)
	}
	must(t, s.ride(in(&alone, nil))())
	if alone <= lead {
		t.Errorf("nobody came along, and wait made no transaction: %d after %d", alone, lead)
	}
	// One that fails does not fail those it rides with.
	no := errors.New("no")
	wait = s.ride(in(&ridden, no))
	must(t, s.commit(in(&lead, nil)))
	if err := wait(); !errors.Is(err, no) {
		t.Errorf("a ride that failed says %v", err)
	}
	wait = s.ride(in(&ridden, nil))
	must(t, s.Close())
	if err := wait(); err == nil {
		t.Error("a ride in a closed store is durable")
	}
}

func TestLaterIsThereWithTheNextApply(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	h := s.Shelf("x")
	wait := h.Later([][]byte{[]byte("a")}, [][]byte{[]byte("1")})
	must(t, h.Apply([][]byte{[]byte("b")}, [][]byte{[]byte("2")}))
	must(t, wait())
	must(t, h.Later([][]byte{[]byte("c")}, [][]byte{[]byte("3")})())
	must(t, s.Close())
	if keys, _, err := open(t, dir).Shelf("x").Scan(nil, nil, 0); err != nil || len(keys) != 3 {
		t.Errorf("%d keys after a restart, want 3: %v", len(keys), err)
	}
	if err := h.Later([][]byte{nil}, [][]byte{nil})(); err == nil {
		t.Error("a key of no bytes was taken")
	}
}

// What is told along with Add is durable with it, in the same transaction, and also where Add fails.
func TestAlongIsDurableWithAdd(t *testing.T) {
	dir, src := t.TempDir(), t.TempDir()
	write(t, src, map[string]string{"x": "content"})
	s := open(t, dir)
	commits := 0
	s.options.Fault = func(step string) error {
		if step == "after commit" {
			commits++
		}
		return nil
	}
	h := s.Shelf("journal")
	waited := 0
	o := AddOptions{Path: src, Along: func() func() error {
		wait := h.Later([][]byte{[]byte("k")}, [][]byte{[]byte("v")})
		return func() error { waited++; return wait() }
	}}
	_, err := s.Add(t.Context(), o)
	must(t, err)
	if commits != 1 || waited != 1 {
		t.Errorf("%d transactions and %d waits, want one each", commits, waited)
	}
	if _, values, err := h.Scan(nil, nil, 0); err != nil || len(values) != 1 {
		t.Errorf("%d values: %v", len(values), err)
	}
	full := errors.New("full")
	s.options.Fault = func(step string) error {
		if step == "before commit" && waited == 1 {
			return full
		}
		return nil
	}
	write(t, src, map[string]string{"x": "other"})
	if _, err := s.Add(t.Context(), o); !errors.Is(err, full) || waited != 2 {
		t.Errorf("Add = %v after %d waits", err, waited)
	}
}
