package catalog

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
)

// Fork is two records of one log that its origin can not both have written on one branch: they have the
// same seq, or A is missing from a live set that B's signature covers. The origin's disk was cloned or
// restored from a backup, or its key is in two places.
type Fork struct{ A, B Record }

// Limits of forks.
const (
	maxForks  = 256       // kept and passed on; more are known by the records alone
	cloneTime = time.Hour // in which own records may come from elsewhere maxClaims times
	maxClaims = 3
)

// ErrCloned is wrapped when records of this node's key that it did not write keep coming: another machine
// runs with the same key. Appending would fork one log after the other.
var ErrCloned = errors.New("another machine writes with this node's key: stop one of them, and give it a key of its own (meshctl invite --replace)")

// proof is a Fork on disk and on the wire.
type proof struct{ A, B []byte }

func (f Fork) encode() (proof, error) {
	a, err := f.A.Encode()
	if err != nil {
		return proof{}, err
	}
	b, err := f.B.Encode()
	return proof{a, b}, err
}

// decode reads both records; their signatures stay unverified.
func (p proof) decode() (a, b *entry, err error) {
	if a, err = decodeEntry(p.A); err == nil {
		b, err = decodeEntry(p.B)
	}
	if err == nil && (*a.log != *b.log || a.hash == b.hash) {
		err = fmt.Errorf("%w: it is not two records of one log", ErrMalformed)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("proof of a fork: %w", err)
	}
	return a, b, nil
}

// Cloned reports whether own records came from elsewhere too often of late, or one says that this key is in two places:
// then Append takes nothing but a status, and fails with ErrCloned.
func (c *Catalog) Cloned() bool { return c.Claims() > maxClaims }

// Claims counts how often within the last hour own records came from elsewhere that this store did not hold: one comes
// of a restored backup, many of another machine with this key.
func (c *Catalog) Claims() int {
	now := c.cfg.Wall()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.claims = slices.DeleteFunc(c.claims, func(at time.Time) bool { return now.Sub(at) > cloneTime || at.After(now) })
	return len(c.claims)
}

// saysCloned reports whether a status says that its node's key is in two places.
func saysCloned(r *Record) bool {
	if r.Kind != KindStatus {
		return false
	}
	s, err := DecodeStatus(r.Body)
	return err == nil && s.State == StatusCloned
}

// keepProof writes down why a log counts as forked, and tells all peers. Only a writer calls it.
func (c *Catalog) keepProof(f Fork) error {
	log := f.A.Log
	c.mu.RLock()
	_, known := c.forks[log]
	n := len(c.forks)
	c.mu.RUnlock()
	if known || n >= maxForks {
		return nil
	}
	c.cfg.Log.Error("log is forked: its origin's disk was cloned or restored, or its key is in two places",
		"log", log.String(), "seq", f.A.Seq)
	p, err := f.encode()
	if err != nil {
		return err
	}
	value, err := wire.Marshal(shelfVersion, &p)
	if err != nil {
		return err
	}
	if err := c.apply([][]byte{append([]byte{prefixFork}, log.key()...)}, [][]byte{value}); err != nil {
		return err
	}
	c.mu.Lock()
	c.forks[log] = f
	if h := c.set.logs[log]; h != nil {
		h.forked = true
	}
	c.mu.Unlock()
	if f.portable() {
		for _, s := range c.others(nil) {
			s.prove(p)
		}
	}
	c.tell(nil, nil)
	return nil
}

// portable reports whether the proof convinces who knows nothing else of the log.
func (f Fork) portable() bool { return f.A.Seq == f.B.Seq }

// heardProof takes a proof from a peer. One whose origin is not known here is left for a later session.
func (c *Catalog) heardProof(p proof) error {
	a, b, err := p.decode()
	if err != nil {
		return err
	}
	if a.seq != b.seq {
		return fmt.Errorf("proof of a fork: %w: records %d and %d of %s may be of one branch", ErrMalformed, a.seq, b.seq, a.log)
	}
	key, ok := c.Key(a.log.Origin)
	if !ok {
		return nil
	}
	for _, e := range []*entry{a, b} {
		if err := e.rec.Verify(key); err != nil {
			return fmt.Errorf("proof of a fork: %w", err)
		}
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.keepProof(Fork{*a.rec, *b.rec}); err != nil {
		return err
	}
	if a.log.Origin == c.self && a.log.Epoch == c.epoch {
		return c.newEpoch()
	}
	return nil
}

// proofs returns what can be passed on.
func (c *Catalog) proofs() []proof {
	var out []proof
	for _, f := range c.Forks() {
		if p, err := f.encode(); err == nil && f.portable() {
			out = append(out, p)
		}
	}
	return out
}

// Forks returns a proof for each log that is known to be forked, by log. Records of both branches are live.
func (c *Catalog) Forks() []Fork {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := make([]Fork, 0, len(c.forks))
	for _, f := range c.forks {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Fork) int { return a.A.Log.compare(b.A.Log) })
	return out
}

// Forked reports whether a log of origin is known to be forked.
func (c *Catalog) Forked(origin id.Node) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for log := range c.forks {
		if log.Origin == origin {
			return true
		}
	}
	return false
}
