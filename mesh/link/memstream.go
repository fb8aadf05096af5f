package link

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// A memStream is one end of a simulated stream. What it sends waits in its out queue until the time of
// arrival, in order. All its fields are guarded by net.mu.
type memStream struct {
	net           *Memory
	host, farHost string
	local, remote net.Addr
	far           *memStream

	out      []memSegment // under way to far, by time of arrival
	outBytes int
	closed   bool // by this end
	reset    bool // the far end is gone for good; nothing more comes or goes
	deaf     bool // nothing arrives at this end any more, and nobody is told

	readDeadline, writeDeadline time.Time
	changed                     chan struct{} // closed and replaced at each change of this end or of far
}

// A memSegment without bytes is the end of the stream.
type memSegment struct {
	b  []byte
	at time.Time
}

func newMemStreams(m *Memory, host, farHost string, local, remote net.Addr) (near, far *memStream) {
	near = &memStream{net: m, host: host, farHost: farHost, local: local, remote: remote, changed: make(chan struct{})}
	far = &memStream{net: m, host: farHost, farHost: host, local: remote, remote: local, changed: make(chan struct{})}
	near.far, far.far = far, near
	m.streams[near], m.streams[far] = struct{}{}, struct{}{}
	return near, far
}

func (s *memStream) Read(b []byte) (int, error) {
	for {
		s.net.mu.Lock()
		n, wake, err := s.readLocked(b)
		changed := s.changed
		s.net.mu.Unlock()
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		await(changed, wake)
	}
}

// readLocked takes what has arrived; without any it says until when to wait.
func (s *memStream) readLocked(b []byte) (n int, wake time.Time, err error) {
	now := time.Now()
	switch {
	case s.closed:
		return 0, wake, errMemClosed
	case expired(s.readDeadline, now):
		return 0, wake, os.ErrDeadlineExceeded
	case s.reset:
		return 0, wake, fmt.Errorf("read: %w", syscall.ECONNRESET)
	}
	wake = s.readDeadline
	from := s.far
	if s.deaf || len(from.out) == 0 || s.net.cut[[2]string{s.host, s.farHost}] {
		return 0, wake, nil
	}
	first := &from.out[0]
	if first.at.After(now) {
		return 0, earlier(wake, first.at), nil
	}
	if len(first.b) == 0 {
		return 0, wake, io.EOF // stays there for the next Read
	}
	n = copy(b, first.b)
	first.b = first.b[n:]
	if len(first.b) == 0 {
		from.out = from.out[1:]
	}
	from.outBytes -= n
	from.wake() // there is room
	return n, wake, nil
}

func (s *memStream) Write(b []byte) (int, error) {
	done := 0
	for {
		s.net.mu.Lock()
		n, err := s.writeLocked(b[done:])
		changed, wake := s.changed, s.writeDeadline
		s.net.mu.Unlock()
		done += n
		if err != nil || done == len(b) {
			return done, err
		}
		if n == 0 {
			await(changed, wake)
		}
	}
}

// writeLocked sends as much of b as the buffer has room for.
func (s *memStream) writeLocked(b []byte) (int, error) {
	switch {
	case s.closed:
		return 0, errMemClosed
	case expired(s.writeDeadline, time.Now()):
		return 0, os.ErrDeadlineExceeded
	case s.reset || s.far.closed && !s.net.cut[[2]string{s.host, s.farHost}]:
		return 0, fmt.Errorf("write: %w", syscall.EPIPE)
	}
	n := min(len(b), memBufferBytes-s.outBytes)
	if n > 0 {
		s.sendLocked(append([]byte(nil), b[:n]...))
	}
	return n, nil
}

// sendLocked puts b under way, never before what was sent earlier.
func (s *memStream) sendLocked(b []byte) {
	at := s.net.arrivalLocked(s.host, s.farHost, len(b))
	if n := len(s.out); n > 0 && s.out[n-1].at.After(at) {
		at = s.out[n-1].at
	}
	s.out = append(s.out, memSegment{b, at})
	s.outBytes += len(b)
	s.far.wake()
}

func (s *memStream) Close() error {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	s.closeLocked()
	return nil
}

func (s *memStream) closeLocked() {
	if s.closed {
		return
	}
	s.closed = true
	s.sendLocked(nil)
	delete(s.net.streams, s)
	s.wake()
	s.far.wake()
}

// resetLocked ends both directions at once; the far end learns it even over a cut link, for want of a
// timeout that would tell it later.
func (s *memStream) resetLocked() {
	s.closed = true
	s.far.reset = true
	delete(s.net.streams, s)
	s.wake()
	s.far.wake()
}

func (s *memStream) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *memStream) LocalAddr() net.Addr  { return s.local }
func (s *memStream) RemoteAddr() net.Addr { return s.remote }

func (s *memStream) SetDeadline(t time.Time) error      { return s.setDeadlines(&t, &t) }
func (s *memStream) SetReadDeadline(t time.Time) error  { return s.setDeadlines(&t, nil) }
func (s *memStream) SetWriteDeadline(t time.Time) error { return s.setDeadlines(nil, &t) }

func (s *memStream) setDeadlines(read, write *time.Time) error {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	if s.closed {
		return errMemClosed
	}
	if read != nil {
		s.readDeadline = *read
	}
	if write != nil {
		s.writeDeadline = *write
	}
	s.wake()
	return nil
}

// await returns when changed is closed or the time has come; the zero time never comes.
func await(changed <-chan struct{}, until time.Time) {
	if until.IsZero() {
		<-changed
		return
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	}
}

func expired(deadline, now time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }

// earlier returns the earlier of two times, of which the zero time is none.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
