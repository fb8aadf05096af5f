package swarm

import (
	"fmt"
	"slices"
	"time"

	"meshd/mesh/id"
	"meshd/mesh/wire"
	"meshd/store/artifact"
)

// shareTime is between two looks at shares that wait although nothing happened.
const shareTime = graceLeast / 2

// A job is what the peer asks: chunks by name, a share, or what this node has.
type job struct {
	kind  byte // kindWant, kindShare or kindTell
	req   uint32
	root  artifact.Digest
	ids   []artifact.Digest
	force bool
	part  uint8
	parts uint8
	rate  uint32
	tell  *tell
	given []int // chosen for a share; indices into the content
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
	return x.onJob(job{kind: kindWant, req: w.Req, root: w.Root, ids: ids, force: w.Force, rate: w.Rate})
}

func (x *session) onShare(body []byte) error {
	var f share
	if err := decode(body, &f); err != nil {
		return err
	}
	if f.Parts > maxParts || f.Part >= max(f.Parts, 1) {
		return fmt.Errorf("share of part %d of %d, at most %d are allowed", f.Part, f.Parts, maxParts)
	}
	return x.onJob(job{kind: kindShare, req: f.Req, root: f.Root, part: f.Part, parts: f.Parts, rate: f.Rate})
}

func (x *session) onJob(j job) error {
	x.mu.Lock()
	if len(x.jobs) >= maxJobs {
		x.mu.Unlock()
		if j.kind == kindTell {
			return x.reply(kindBye, &bye{Root: j.root, Why: uint8(refusedBusy)})
		}
		return x.refuse(j.req, refusedBusy, id.Node{})
	}
	x.jobs = append(x.jobs, j)
	x.wakeWriter()
	x.mu.Unlock()
	return nil
}

// onCancel drops a job that has not begun. One that has is answered as if nothing had happened.
func (x *session) onCancel(req uint32) error {
	x.mu.Lock()
	i := slices.IndexFunc(x.jobs, func(j job) bool { return j.req == req && j.kind != kindTell })
	if i >= 0 {
		x.jobs = slices.Delete(x.jobs, i, i+1)
	}
	x.mu.Unlock()
	if i < 0 {
		return nil
	}
	return x.refuse(req, refusedGone, id.Node{})
}

func (x *session) refuse(req uint32, why refusal, at id.Node) error {
	return x.reply(kindRefuse, &refuse{Req: req, Why: uint8(why), At: at})
}

// write sends what is queued and serves the peer's jobs, one artifact after the other in turn, until
// the session ends.
func (x *session) write() error {
	look := time.NewTimer(shareTime)
	defer look.Stop()
	for {
		x.mu.Lock()
		control := x.control
		x.control = nil
		var j job
		var ok bool
		if control == nil {
			j, ok = x.nextJob()
		}
		waits := len(x.jobs) > 0
		x.mu.Unlock()
		var err error
		switch {
		case control != nil:
			err = x.send(slices.Concat(control...), true)
		case ok:
			err = x.serve(j)
		default:
			var again <-chan time.Time
			if waits {
				look.Reset(shareTime)
				again = look.C
			}
			select {
			case <-x.kick:
			case <-again:
			case <-x.done:
				return nil
			}
		}
		if err != nil {
			return err
		}
	}
}

// nextJob takes the oldest job of another artifact than the last one served, or else the oldest; a share for
// which there is nothing yet waits. x.mu is held.
func (x *session) nextJob() (job, bool) {
	other := slices.IndexFunc(x.jobs, func(j job) bool { return j.root != x.last })
	for n := range x.jobs {
		i := n
		if other > 0 {
			i = (other + n) % len(x.jobs)
		}
		j := x.jobs[i]
		if j.kind == kindShare {
			given, open := x.s.desks.give(x.peer, &j, time.Now())
			if open && given == nil {
				continue
			}
			j.given = given
		}
		x.jobs = slices.Delete(x.jobs, i, i+1)
		x.last = j.root
		return j, true
	}
	return job{}, false
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
	if j.given != nil {
		defer x.s.desks.sent(x.peer, j.root)
	}
	refuse := func(why refusal) error {
		if j.kind == kindTell {
			return x.reply(kindBye, &bye{Root: j.root, Why: uint8(why)})
		}
		return x.refuse(j.req, why, id.Node{})
	}
	m, err := x.s.manifests.get(x.s.cfg.Chunks, j.root)
	if err != nil { // it may be on its way here: that is no refusal that lasts
		x.s.log.Debug("artifact not served", "peer", x.peer.Short(), "root", j.root.Short(), "why", err)
		x.promise(j.root)
		return refuse(refusedAbsent)
	}
	switch {
	case !x.s.cfg.Allow(x.peer, j.root, m.maker):
		return refuse(refusedAccess)
	case j.kind == kindTell:
		return x.serveTell(j.tell, m)
	case j.kind == kindShare && j.given == nil:
		return refuse(refusedAbsent) // not, or no longer, handed out here
	}
	return x.serveChunks(j, m)
}

// serveTell takes what the peer has, and tells what is here.
func (x *session) serveTell(t *tell, m *manifest) error {
	has, err := t.bits(len(m.chunks))
	if err != nil {
		return fmt.Errorf("%w: %w", errViolation, err)
	}
	lack, err := m.missing(x.s.cfg.Chunks)
	if err != nil {
		x.s.log.Debug("chunks not looked up", "root", t.Root.Short(), "err", err)
		return x.reply(kindBye, &bye{Root: t.Root, Why: uint8(refusedTrouble)})
	}
	h := tell{Root: t.Root, All: lack.count() == 0}
	if h.All {
		h.Shy, h.Others = x.s.desks.tell(x, m, has, time.Now())
	} else {
		if len(m.chunks) > maxHave {
			return x.reply(kindBye, &bye{Root: t.Root, Why: uint8(refusedAbsent)})
		}
		h.Bits = lack.complement(len(m.chunks)).bytes(len(m.chunks))
	}
	if !t.Answer {
		return nil
	}
	return x.reply(kindTell, &h)
}

// serveChunks answers a want or a share.
func (x *session) serveChunks(j job, m *manifest) error {
	chunks, err := x.chosen(j, m)
	if err != nil || chunks == nil {
		return err
	}
	var size int
	for _, c := range chunks {
		size += int(c.SizeBytes)
	}
	if size > maxExtent {
		return fmt.Errorf("%w: %w", errViolation, &wire.LimitError{What: "bytes of one want", Limit: maxExtent, Got: size})
	}
	buf := x.s.buffers.get(headRoom + size)
	defer func() { buf.release() }()
	out := data{Req: j.req, Runs: runsOf(j.given).bytes()}
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
		x.promise(j.root)
	}
	out.Bytes = uint32(len(b) - headRoom)
	x.s.stats.served.Add(int64(out.Bytes))
	buf.b = b
	if packed := x.packed(buf, j.rate); packed != nil {
		buf.release()
		buf, b = packed, packed.b
		out.Bytes, out.Plain = uint32(len(b)-headRoom), out.Bytes
		x.s.stats.spared.Add(int64(out.Plain - out.Bytes))
	}
	head, err := frame(kindData, &out)
	if err != nil {
		return err
	}
	return x.sendAnswer(head, b, size <= smallBytes)
}

// chosen are the chunks that a job asks for; nil if it was refused.
func (x *session) chosen(j job, m *manifest) (chunks []artifact.Chunk, err error) {
	for _, c := range j.given {
		chunks = append(chunks, m.chunks[c])
	}
	for _, d := range j.ids {
		c, at, ok := m.find(d)
		if !ok {
			x.s.stats.foreign.Add(1)
			return nil, x.refuse(j.req, refusedAbsent, id.Node{})
		}
		if at >= 0 && !j.force {
			if other, ok := x.s.desks.elsewhere(x.peer, m, at, time.Now()); ok {
				return nil, x.refuse(j.req, refusedElsewhere, other)
			}
		}
		chunks = append(chunks, c)
	}
	return chunks, nil
}
