package link

import "time"

// A memPipe is one direction of a host's access line. Its fields are guarded by Memory.mu.
type memPipe struct {
	perSecond int64     // bytes; 0: no limit
	free      time.Time // when what was given to it so far has passed
	passed    int64     // bytes of streams and packets, without headers
}

// take says when n bytes that come at the given time have passed.
func (p *memPipe) take(n int, at time.Time) time.Time {
	p.passed += int64(n)
	if p.perSecond == 0 || n == 0 {
		return at
	}
	if p.free.Before(at) {
		p.free = at
	}
	p.free = p.free.Add(time.Duration(int64(n) * int64(time.Second) / p.perSecond))
	return p.free
}

// Rate limits the line of the host at addr to so many bytes per second each way; 0 is no limit. What is under way
// stays as it was.
func (m *Memory) Rate(addr string, bytesPerSecond int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.hostLocked(addr)
	h.up.perSecond, h.down.perSecond = bytesPerSecond, bytesPerSecond
}

// Passed returns how many bytes of streams and packets the host at addr has sent and was sent, without headers.
func (m *Memory) Passed(addr string) (sent, received int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.hostLocked(addr)
	return h.up.passed, h.down.passed
}

// arrivalLocked draws when n bytes sent now from one host to another arrive.
func (m *Memory) arrivalLocked(from, to string, n int) time.Time {
	at := m.hostLocked(from).up.take(n, time.Now())
	return m.hostLocked(to).down.take(n, at.Add(m.delayLocked()))
}
