package store

import "go.etcd.io/bbolt"

// SizeBytes is how long the packs and state.db are now.
func (s *Store) SizeBytes() (packs, state int64, err error) {
	s.packs.mu.RLock()
	packs = s.packs.sizeLocked()
	s.packs.mu.RUnlock()
	err = s.view(func(tx *bbolt.Tx) error {
		state = tx.Size()
		return nil
	})
	return packs, state, err
}
