package catalog

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"meshd/mesh/wire"
)

// compareSoon asks for a comparison of roots. It never blocks.
func (s *session) compareSoon() {
	s.mu.Lock()
	s.again, s.unlike = true, false
	s.rounds = 0
	s.mu.Unlock()
	s.wake()
}

// differSoon is compareSoon where the roots are known to be unlike: it saves a turn.
func (s *session) differSoon() {
	s.mu.Lock()
	s.again, s.unlike = true, true
	s.rounds = 0
	s.mu.Unlock()
	s.wake()
}

// Flush waits until every session has sent what was new when it was called, or ctx ends. Whether it arrived nobody knows.
func (c *Catalog) Flush(ctx context.Context) {
	var all []chan struct{}
	for _, s := range c.others(nil) {
		s.mu.Lock()
		if !s.over {
			sent := make(chan struct{})
			all, s.flushed = append(all, sent), append(s.flushed, sent)
		}
		s.mu.Unlock()
		s.wake()
	}
	for _, sent := range all {
		select {
		case <-sent:
		case <-ctx.Done():
			return
		}
	}
}

// tellFlushed tells who waits in Flush, if nothing is left to push or the session is over.
func (s *session) tellFlushed(over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = s.over || over
	if len(s.pushes) > 0 && !s.over {
		return
	}
	for _, sent := range s.flushed {
		close(sent)
	}
	s.flushed = nil
}

// prove queues proofs of forks. It never blocks.
func (s *session) prove(list ...proof) {
	s.mu.Lock()
	s.proofs = append(s.proofs, list...)
	if n := len(s.proofs); n > maxForks {
		s.proofs = s.proofs[n-maxForks:] // the others are told in the next session
	}
	s.mu.Unlock()
	s.wake()
}

// push queues new records for the peer. It never blocks: of a peer that reads too slowly the queue is
// given up (it reports false), and a comparison brings the peer what it missed. What others said is kept for the
// comparison with which the session begins: the peer may well have it.
func (s *session) push(entries []*entry, relayed bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
	if relayed && !s.met {
		s.again = true
		return true
	}
	if len(s.pushes)+len(entries) > maxPushes {
		s.pushes = nil
		s.again = true
		return false
	}
	s.pushes = append(s.pushes, entries...)
	return true
}

func (s *session) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// queue appends a frame to be sent before all pages. Whoever calls it holds s.mu.
func (s *session) queue(kind byte, body any) error {
	if len(s.control) >= maxControl {
		return blame(&wire.LimitError{What: "answers that the peer does not read", Limit: maxControl, Got: len(s.control) + 1})
	}
	s.control = append(s.control, frame{kind, body})
	s.wake()
	return nil
}

// write sends what waits until ctx ends or the stream fails.
func (s *session) write(ctx context.Context) error {
	alive := time.NewTicker(s.pace)
	defer alive.Stop()
	f := feed{c: s.c}
	for {
		next, ok, err := s.next(&f)
		if err != nil {
			return err
		}
		if !ok {
			s.tellFlushed(false)
		}
		if ok {
			if err := s.send(next); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			continue
		}
		var turn <-chan time.Time
		if s.waiting {
			turn = time.After(turnStall)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
		case <-turn:
		case <-alive.C:
			s.compareSoon()
		}
	}
}

func (s *session) send(f frame) error {
	b, err := wire.Marshal(sessionVersion, f.body)
	if err != nil {
		return fmt.Errorf("encode a frame of kind %d: %w", f.kind, err)
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(writeMax)); err != nil {
		return err
	}
	return wire.WriteFrame(s.conn, f.kind, b)
}

// next returns the next frame: answers first, then what was asked for, then what is new, then done, then a
// question of this side's own.
func (s *session) next(f *feed) (frame, bool, error) {
	s.mu.Lock()
	if len(s.control) > 0 {
		f := s.control[0]
		s.control = slices.Delete(s.control, 0, 1)
		s.mu.Unlock()
		return f, true, nil
	}
	f.tasks = append(f.tasks, s.tasks...)
	s.tasks = nil
	s.mu.Unlock()
	if answer, ok, err := f.next(); ok || err != nil {
		return answer, ok, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tasks) > 0 || len(s.control) > 0 {
		s.wake() // came meanwhile, and goes first
		return frame{}, false, nil
	}
	if len(s.pushes) > 0 {
		return s.takePushes()
	}
	if s.done {
		s.done = false
		if s.phase == serving {
			s.phase = idle
		}
		return frame{frameDone, &doneFrame{s.c.Root()}}, true, nil
	}
	if s.met && s.phase == idle && len(s.proofs) > 0 {
		p := s.proofs[0]
		s.proofs = s.proofs[1:]
		return frame{frameFork, &forkFrame{p.A, p.B}}, true, nil
	}
	s.waiting = s.again && s.phase == idle && !s.c.takeTurn(s)
	if s.again && s.phase == idle && !s.waiting {
		s.again = false
		if s.unlike {
			s.unlike = false
			b, err := s.ask()
			return frame{frameBuckets, b}, err == nil, err
		}
		s.phase = asked
		return frame{frameRoot, &rootFrame{s.c.Root()}}, true, nil
	}
	return frame{}, false, nil
}

// takePushes fills a page with what is new. Whoever calls it holds s.mu.
func (s *session) takePushes() (frame, bool, error) {
	var p page
	n := 0
	for ; n < len(s.pushes); n++ {
		b, err := s.c.encoded(s.pushes[n])
		if err != nil {
			return frame{}, false, err
		}
		if !p.fit(b) {
			break
		}
	}
	s.pushes = slices.Delete(s.pushes, 0, n)
	if len(p.records) == 0 { // all of it is needless by now
		s.wake()
		return frame{}, false, nil
	}
	return frame{framePage, &pageFrame{Records: p.records}}, true, nil
}

// feed is what the writer sends of what was asked for. It reads the shelf a page at a time, under no lock.
type feed struct {
	c     *Catalog
	tasks []task
	rest  [][]byte // read and not yet sent
	log   LogID    // being read, from seq on; nodes logs are read at once
	from  []byte   // key to go on with; nil: nothing more
}

// next fills a frame; it reports false when all was sent.
func (f *feed) next() (frame, bool, error) {
	var p page
	for {
		for len(f.rest) > 0 {
			if !p.fit(f.rest[0]) {
				return frame{framePage, &pageFrame{true, p.records}}, true, nil
			}
			f.rest = f.rest[1:]
		}
		if f.from != nil {
			if err := f.read(maxPageRecords - len(p.records)); err != nil {
				return frame{}, false, err
			}
			continue
		}
		if len(f.tasks) == 0 || f.tasks[0].stone != nil {
			if len(p.records) > 0 {
				return frame{framePage, &pageFrame{true, p.records}}, true, nil
			}
			return f.graves()
		}
		t := f.tasks[0]
		f.tasks = f.tasks[1:]
		if t.log.Scope == ScopeNodes {
			var err error
			if f.rest, err = f.c.nodesLog(t.log, t.from); err != nil {
				return frame{}, false, err
			}
			continue
		}
		f.log, f.from = t.log, t.log.from(min(t.from, math.MaxUint64-1)+1)
	}
}

// read takes the next records of the log from the shelf.
func (f *feed) read(limit int) error {
	limit = max(limit, 1)
	end := append([]byte{prefixRecord}, f.log.key()...)
	end[len(end)-1]++ // beyond the scope: no other key lies between
	keys, values, err := f.c.cfg.Shelf.Scan(f.from, end, limit)
	if err != nil {
		return fmt.Errorf("read log %s: %w", f.log, err)
	}
	f.rest, f.from = values, nil
	if len(keys) == limit {
		f.from = append(bytes.Clone(keys[len(keys)-1]), 0)
	}
	return nil
}

// graves fills a frame with the graves at the front of the tasks.
func (f *feed) graves() (frame, bool, error) {
	var b []byte
	n := 0
	for ; n < len(f.tasks) && n < gravesPerFrame && f.tasks[n].stone != nil; n++ {
		b = f.tasks[n].stone.append(b)
	}
	f.tasks = f.tasks[n:]
	return frame{frameGraves, &gravesFrame{b}}, n > 0, nil
}

// nodesLog returns the live records of a log beyond seq from; certificates come first.
func (c *Catalog) nodesLog(log LogID, from uint64) ([][]byte, error) {
	var certs, rest []*entry
	c.mu.RLock()
	if h := c.set.logs[log]; h != nil {
		for _, e := range h.recs.list() {
			switch {
			case e.seq <= from:
			case e.kind == KindCert:
				certs = append(certs, e)
			default:
				rest = append(rest, e)
			}
		}
	}
	c.mu.RUnlock()
	var out [][]byte
	for _, e := range append(certs, rest...) {
		b, err := c.encoded(e)
		if err != nil {
			return nil, err
		}
		if b != nil {
			out = append(out, b)
		}
	}
	return out, nil
}

// page is records within the limits of one frame.
type page struct {
	records   [][]byte
	sizeBytes int
}

// fit adds a record, or reports that the page is full. Every record fits into an empty page; nil is one
// that went meanwhile.
func (p *page) fit(b []byte) bool {
	if b == nil {
		return true
	}
	if len(p.records) == maxPageRecords || p.sizeBytes+len(b) > maxPageBytes {
		return false
	}
	p.records = append(p.records, b)
	p.sizeBytes += len(b)
	return true
}

// nodesFirst orders logs so that keys come before what they verify; graves, which need the admissions, come
// last.
func nodesFirst(tasks []task) []task {
	slices.SortStableFunc(tasks, func(a, b task) int {
		return int(a.order()) - int(b.order())
	})
	return tasks
}

func deleteEntries(list []*entry, hashes map[[32]byte]bool) []*entry {
	return slices.DeleteFunc(list, func(e *entry) bool { return hashes[e.hash] })
}

func (t task) order() uint8 {
	if t.stone != nil {
		return uint8(len(scopes))
	}
	return scopeByte(t.log.Scope)
}
