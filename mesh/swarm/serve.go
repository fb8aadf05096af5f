package swarm

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// A job is a request of the peer: for chunks, or, with no ids, what this node has.
type job struct {
	req  uint32
	root artifact.Digest
	ids  []artifact.Digest
}

func (x *session) onWant(body []byte) error {
	var w want
	if err := decode(body, &w); err != nil {
		return err
	}
	ids, err := w.digests()
	if err != nil {
		return err
	}
	return x.onJob(job{req: w.Req, root: w.Root, ids: ids})
}

func (x *session) onJob(j job) error {
	x.mu.Lock()
	if len(x.jobs) >= maxJobs {
		x.mu.Unlock()
		return x.refuse(j.req, refusedBusy)
	}
	x.jobs = append(x.jobs, j)
	x.wakeWriter()
	x.mu.Unlock()
	return nil
}

// onCancel drops a job that has not begun. One that has is answered as if nothing had happened.
func (x *session) onCancel(req uint32) error {
	x.mu.Lock()
	i := slices.IndexFunc(x.jobs, func(j job) bool { return j.req == req })
	if i >= 0 {
		x.jobs = slices.Delete(x.jobs, i, i+1)
	}
	x.mu.Unlock()
	if i < 0 {
		return nil
	}
	return x.refuse(req, refusedGone)
}

func (x *session) refuse(req uint32, why refusal) error {
	return x.reply(kindRefuse, &refuse{Req: req, Why: uint8(why)})
}

// write sends what is queued and serves the peer's jobs, one artifact after the other in turn, until
// the session ends.
func (x *session) write() error {
	for {
		x.mu.Lock()
		control := x.control
		x.control = nil
		var j job
		var ok bool
		if control == nil {
			j, ok = x.nextJob()
		}
		x.mu.Unlock()
		var err error
		switch {
		case control != nil:
			err = x.send(slices.Concat(control...), true)
		case ok:
			err = x.serve(j)
		default:
			select {
			case <-x.kick:
			case <-x.done:
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// nextJob takes the oldest job of another artifact than the last one served, or else the oldest.
// x.mu is held.
func (x *session) nextJob() (job, bool) {
	if len(x.jobs) == 0 {
		return job{}, false
	}
	i := max(0, slices.IndexFunc(x.jobs, func(j job) bool { return j.root != x.last }))
	j := x.jobs[i]
	x.jobs = slices.Delete(x.jobs, i, i+1)
	x.last = j.root
	return j, true
}

// send writes b, a slice at a time, so that a slow link is told apart from a dead one, and no faster than the caps
// allow; what is small goes first.
func (x *session) send(b []byte, small bool) error {
	for part := range slices.Chunk(b, x.s.egress.piece(x.link, slice)) {
		x.s.egress.take(x.link, len(part), small, x.done)
		if err := x.conn.SetWriteDeadline(time.Now().Add(silenceTime)); err != nil {
			return err
		}
		if _, err := x.conn.Write(part); err != nil {
			return err
		}
	}
	x.s.stats.bytesOut.Add(int64(len(b)))
	return nil
}

// serve answers one job. Only chunks of an artifact that this peer may have are read (Config.Allow):
// a peer that guesses the id of any other gets nothing.
func (x *session) serve(j job) error {
	if !x.s.cfg.Allow(x.peer, j.root) {
		return x.refuse(j.req, refusedAccess)
	}
	m, err := x.s.manifests.get(x.s.cfg.Chunks, j.root)
	if err != nil {
		x.s.log.Debug("artifact not served", "peer", x.peer.Short(), "root", j.root.Short(), "why", err)
		return x.refuse(j.req, refusedAbsent)
	}
	if j.ids == nil {
		return x.serveHave(j, m)
	}
	return x.serveWant(j, m)
}

func (x *session) serveHave(j job, m *manifest) error {
	lack, err := m.missing(x.s.cfg.Chunks)
	if err != nil {
		x.s.log.Debug("chunks not looked up", "root", j.root.Short(), "err", err)
		return x.refuse(j.req, refusedTrouble)
	}
	h := have{Req: j.req, All: lack.count() == 0}
	if !h.All {
		if len(m.chunks) > maxHave {
			return x.refuse(j.req, refusedAbsent)
		}
		here := newBitset(len(m.chunks))
		here.fill(len(m.chunks))
		for i, w := range lack {
			here[i] &^= w
		}
		h.Bits = here.bytes(len(m.chunks))
	}
	return x.reply(kindHave, &h)
}

func (x *session) serveWant(j job, m *manifest) error {
	var size int
	chunks := make([]artifact.Chunk, len(j.ids))
	for i, d := range j.ids {
		c, ok := m.find(d)
		if !ok {
			x.s.stats.foreign.Add(1)
			return x.refuse(j.req, refusedAbsent)
		}
		chunks[i] = c
		size += int(c.SizeBytes)
	}
	if size > maxExtent {
		return fmt.Errorf("%w: %w", errViolation, &wire.LimitError{What: "bytes of one want", Limit: maxExtent, Got: size})
	}
	buf := x.s.buffers.get(headRoom + size)
	defer buf.release()
	out := data{Req: j.req}
	b := buf.b[:headRoom]
	absent := newBitset(len(chunks))
	for i, c := range chunks {
		end := len(b)
		got, err := x.s.cfg.Chunks.Read(c.ID, b[end:end])
		if err != nil || len(got) != int(c.SizeBytes) {
			x.s.log.Debug("chunk not served", "peer", x.peer.Short(), "chunk", c.ID.Short(), "why", err)
			absent.set(i)
			continue
		}
		if &got[0] == &b[:end+1][end] {
			b = b[:end+len(got)] // Read used the room it was given
		} else {
			b = append(b, got...)
		}
	}
	if absent.count() > 0 {
		out.Absent = absent.bytes(len(chunks))
	}
	out.Bytes = uint32(len(b) - headRoom)
	head, err := frame(kindData, &out)
	if err != nil {
		return err
	}
	if len(head) > headRoom {
		return errors.New("header of an answer does not fit its room")
	}
	copy(b[headRoom-len(head):], head)
	x.s.stats.served.Add(int64(out.Bytes))
	return x.send(b[headRoom-len(head):], size <= smallBytes)
}
