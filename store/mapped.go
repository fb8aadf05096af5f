package store

import "go.etcd.io/bbolt"

// What is looked at of state.db becomes a part of this process's memory, 64 KiB at a time, and stays. The rows of a
// large artifact lie everywhere in it. So it is given back now and then where it is larger than unmapBytes; the system
// keeps it for as long as it has room, and to look at it again costs a microsecond.
const (
	unmapBytes    = 4 << 20
	unmapLooks    = 64 // looks for one row, between two times
	looksOfCommit = 16 // what a transaction counts for: more often nothing but a few rows were looked at
)

// lookedAt counts looks at state.db, when no transaction of the caller runs.
func (s *Store) lookedAt(n int) {
	if s.looks.Add(int64(n)) < unmapLooks {
		return
	}
	s.looks.Store(0)
	s.unmapDB()
}

func (s *Store) unmapDB() {
	_ = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error { // while it runs the file is not mapped anew
			if n := tx.Size(); n > unmapBytes {
				unmap(s.db.Info().Data, n)
			}
			return nil
		})
	})
}
