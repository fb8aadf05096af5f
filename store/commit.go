package store

import (
	"slices"
	"sync"

	"go.etcd.io/bbolt"
)

// maxGroup is how many changes share one transaction.
const maxGroup = 256

// commits lets changes that arrive while the disk is busy share the next transaction, and with it the
// fsyncs. There is no timer: a lone change is written at once.
type commits struct {
	mu      sync.Mutex
	busy    bool // somebody leads: runs a transaction
	waiting []*change
	riding  []*change // go with the next transaction, before what waits, and begin none
}

type change struct {
	apply func(tx *bbolt.Tx) error
	turn  chan turn // capacity 1
}

// ride has apply done in the next transaction that anybody makes, ahead of what that is made for, and costs no
// fsync of its own. wait makes it durable if that has not happened yet, and says what came of it; it may be
// left out, or called once.
func (s *Store) ride(apply func(tx *bbolt.Tx) error) (wait func() error) {
	c := &change{apply: apply, turn: make(chan turn, 1)}
	q := &s.commits
	q.mu.Lock()
	defer q.mu.Unlock()
	q.riding = append(q.riding, c)
	return func() error {
		q.mu.Lock()
		i := slices.Index(q.riding, c)
		if i >= 0 {
			q.riding = slices.Delete(q.riding, i, i+1)
		}
		q.mu.Unlock()
		if i >= 0 {
			return s.commit(apply)
		}
		return (<-c.turn).err
	}
}

// turn ends the wait of a change: either it was committed or failed, or it is to lead the next group.
type turn struct {
	lead bool
	err  error
}

// commit runs apply in a transaction that is durable on return. Others' changes may be in the same
// transaction, in order of arrival. apply may run more than once: it must only read and write tx.
func (s *Store) commit(apply func(tx *bbolt.Tx) error) error {
	if err := s.step("before commit"); err != nil {
		return err
	}
	if err := s.commitInTurn(apply); err != nil {
		return err
	}
	return s.step("after commit")
}

func (s *Store) commitInTurn(apply func(tx *bbolt.Tx) error) error {
	c := &change{apply: apply, turn: make(chan turn, 1)}
	q := &s.commits
	q.mu.Lock()
	q.waiting = append(q.waiting, c)
	lead := !q.busy
	q.busy = true
	q.mu.Unlock()
	if !lead {
		if t := <-c.turn; !t.lead {
			return t.err
		}
	}
	return s.leadCommit()
}

// leadCommit commits what rides and a group, the first of which is the caller's, then hands the lead to the next
// that waits.
func (s *Store) leadCommit() error {
	q := &s.commits
	q.mu.Lock()
	n := min(len(q.waiting), maxGroup)
	own := len(q.riding)
	group := append(q.riding, q.waiting[:n]...)
	q.riding, q.waiting = nil, q.waiting[n:]
	q.mu.Unlock()

	errs := s.commitGroup(group)
	s.lookedAt(looksOfCommit)

	q.mu.Lock()
	if len(q.waiting) > 0 {
		q.waiting[0].turn <- turn{lead: true}
	} else {
		q.busy, q.waiting = false, nil
	}
	q.mu.Unlock()
	for i, other := range group {
		if i != own {
			other.turn <- turn{err: errs[i]}
		}
	}
	return errs[own]
}

// commitGroup commits all in one transaction, or, when that fails, each in its own: one change that
// finds no room does not fail its neighbours.
func (s *Store) commitGroup(group []*change) []error {
	errs := make([]error, len(group))
	err := s.update(func(tx *bbolt.Tx) error {
		for _, c := range group {
			if err := c.apply(tx); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return errs
	}
	if len(group) == 1 {
		errs[0] = err
		return errs
	}
	for i, c := range group {
		errs[i] = s.update(c.apply)
	}
	return errs
}
