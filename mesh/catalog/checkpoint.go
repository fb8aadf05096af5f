package catalog

import (
	"fmt"
	"time"
)

// checkpointFrom is how many withdrawals an own log holds before a checkpoint is worth its records.
const checkpointFrom = 128

// checkpoint bounds what withdrawals cost. Once they are more than half of the own log, what else is live in
// it is written again and a checkpoint after it, below whose floor nothing counts: so a log is never more
// than twice what it offers, and each withdrawal pays for at most one record more.
//
// It waits until a peer told the own head: below the floor of a store that was restored from a backup could
// be records that only others know. Withdrawals that older epochs still need are written again as well.
func (c *Catalog) checkpoint() error {
	h := c.set.logs[LogID{c.self, c.epoch, ScopeMain}]
	if h == nil || h.withdrawals < checkpointFrom || 2*h.withdrawals < h.recs.n || !c.OwnChecked() || h.forked || !h.complete() {
		return nil
	}
	if list := c.set.ofLog(kindKey{ScopeMain, KindCheckpoint}, "", h.id); len(list) > 0 {
		last := list[len(list)-1]
		if h.last()-last.seq < last.seq-last.floor() { // since then too little was written to pay for one like it
			return nil
		}
	}
	after := newSet() // the own log, written on ahead of the disk
	after.fetch = c.set.fetch
	old := h.recs.list()
	for _, e := range old {
		r := c.record(e)
		if r == nil {
			return fmt.Errorf("checkpoint: record %d of the own log can not be read", e.seq)
		}
		again := *e
		again.rec = r
		after.add(&again)
	}
	floor := h.last() + 1
	var entries []*entry
	var encoded [][]byte
	sign := func(kind uint8, name string, body []byte, at time.Time) error {
		e, b, err := c.sign(after, kind, name, body, at)
		if err != nil {
			return fmt.Errorf("checkpoint: %w", err)
		}
		copied := *e
		after.add(&copied)
		entries, encoded = append(entries, e), append(encoded, b)
		return nil
	}
	for _, e := range old {
		if e.kind == KindCheckpoint || e.kind == KindWithdraw && !c.needsWithdrawal(e) {
			continue
		}
		r := c.record(e)
		if r == nil {
			return fmt.Errorf("checkpoint: record %d of the own log can not be read", e.seq)
		}
		if err := sign(r.Kind, r.Name, r.Body, r.At); err != nil {
			return err
		}
	}
	body, err := EncodeCheckpoint(CheckpointBody{Floor: floor})
	if err != nil {
		return err
	}
	if err := sign(KindCheckpoint, "", body, c.cfg.Wall()); err != nil {
		return err
	}
	for len(entries) > 0 { // cut anywhere, the log only holds some records twice
		n := min(len(entries), maxPageRecords)
		if err := c.write(entries[:n], encoded[:n]); err != nil {
			return err
		}
		entries, encoded = entries[n:], encoded[n:]
	}
	return nil
}

// needsWithdrawal reports whether an artifact of an older epoch would be live again without w.
func (c *Catalog) needsWithdrawal(w *entry) bool {
	needed := false
	c.set.eachNamed(kindKey{ScopeMain, KindArtifact}, w.name, func(e *entry) {
		needed = needed || e.log.Origin == w.log.Origin && e.log.Epoch < w.log.Epoch
	})
	return needed
}
