package catalog

import (
	"context"
	"fmt"
	"slices"
	"time"

	"meshd/mesh/wire"
)

// compareSoon asks for a comparison of roots. It never blocks.
func (s *session) compareSoon() {
	s.mu.Lock()
	s.again = true
	s.rounds = 0
	s.mu.Unlock()
	s.wake()
}

// push queues new records for the peer. It never blocks: of a peer that reads too slowly the queue is
// given up (it reports false), and a comparison brings the peer what it missed.
func (s *session) push(entries []*entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wake()
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
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	var rest []*entry // of the log that is being sent
	for {
		f, ok := s.next(&rest)
		if ok {
			if err := s.send(f); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.kick:
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

// next returns the next frame: answers first, then pages of what was asked for, then what is new, then
// done, then a question of this side's own. rest is what of a log did not fit into the page before.
func (s *session) next(rest *[]*entry) (frame, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.control) > 0 {
		f := s.control[0]
		s.control = slices.Delete(s.control, 0, 1)
		return f, true
	}
	if records := s.takeAsked(rest); len(records) > 0 {
		return frame{framePage, &pageFrame{records}}, true
	}
	if len(s.pushes) > 0 {
		var p page
		n := 0
		for n < len(s.pushes) && p.fit(s.pushes[n]) {
			n++
		}
		s.pushes = slices.Delete(s.pushes, 0, n)
		return frame{framePage, &pageFrame{p.records}}, true
	}
	if s.done {
		s.done = false
		if s.phase == serving {
			s.phase = idle
		}
		return frame{frameDone, &doneFrame{s.c.Root()}}, true
	}
	if s.again && s.phase == idle {
		s.again = false
		s.phase = asked
		return frame{frameRoot, &rootFrame{s.c.Root()}}, true
	}
	return frame{}, false
}

// takeAsked fills a page from the logs that were asked for.
func (s *session) takeAsked(rest *[]*entry) [][]byte {
	var p page
	for {
		for len(*rest) > 0 {
			if !p.fit((*rest)[0]) {
				return p.records
			}
			*rest = (*rest)[1:]
		}
		if len(s.tasks) == 0 {
			s.tasks = nil
			return p.records
		}
		*rest = s.c.after(s.tasks[0].log, s.tasks[0].from)
		s.tasks = s.tasks[1:]
	}
}

// page is records within the limits of one frame.
type page struct {
	records   [][]byte
	sizeBytes int
}

// fit adds e, or reports that the page is full. Every record fits into an empty page.
func (p *page) fit(e *entry) bool {
	b, err := e.Encode()
	if err != nil {
		return true // it was decoded from its encoding, so this can not be; without it the page is still good
	}
	if len(p.records) == maxPageRecords || p.sizeBytes+len(b) > maxPageBytes {
		return false
	}
	p.records = append(p.records, b)
	p.sizeBytes += len(b)
	return true
}

// nodesFirst orders logs so that keys come before what they verify.
func nodesFirst(tasks []task) []task {
	slices.SortStableFunc(tasks, func(a, b task) int {
		return int(scopeByte(a.log.Scope)) - int(scopeByte(b.log.Scope))
	})
	return tasks
}

func deleteEntries(list []*entry, hashes map[[32]byte]bool) []*entry {
	return slices.DeleteFunc(list, func(e *entry) bool { return hashes[e.hash] })
}
