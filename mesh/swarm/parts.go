package swarm

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"meshd/mesh/wire"
)

// An answer goes out in parts of what the stream carries in partPace, as it was with the last answer: so long do frames
// wait that become due meanwhile, and as much again, which the system holds unsent.
const (
	partPace  = 10 * time.Millisecond
	leastPart = 16 << 10 // a TLS record
	mostPart  = slice
	partHead  = 12 // bytes of the longest header of a part, which counts as one of it: no record is begun for a few bytes
	paceParts = 4  // parts that an answer has where it may tell that the stream is faster: the system takes fewer unsent
)

// setPart sets how many bytes go out at once, and how many the system takes before it sends them.
func (x *session) setPart(bytes int) {
	if x.part == bytes {
		return
	}
	x.part = bytes
	if u, ok := x.conn.(interface{ LimitUnsent(bytes int) error }); ok {
		if err := u.LimitUnsent(bytes); err != nil {
			x.s.log.Debug("announcements will wait behind chunks", "peer", x.peer.Short(), "why", err)
		}
	}
}

// sendAnswer sends the header of an answer, and the bytes that lie in b behind headRoom, with what else becomes due
// between its parts. What was sent of b is written over.
func (x *session) sendAnswer(head, b []byte, small bool) error {
	start, size := time.Now(), len(b)-headRoom
	for at := headRoom; ; {
		lead, n := head, min(len(b)-at, x.part-len(head)-partHead)
		if n > 0 {
			f, err := frame(kindPart, &part{Bytes: uint32(n)})
			if err != nil {
				return err
			}
			lead = append(lead, f...)
		}
		if len(lead) > headRoom {
			return errors.New("header of an answer does not fit its room")
		}
		from := at - len(lead)
		copy(b[from:], lead)
		if err := x.send(b[from:at+n], small); err != nil {
			return err
		}
		if x.untold += n; x.untold >= leashLook {
			x.untold = 0
			x.tighten()
		}
		if at += n; at == len(b) {
			break
		}
		head = nil
		if err := x.sendControl(); err != nil {
			return err
		}
	}
	if size >= leastPart {
		pace := float64(size) * partPace.Seconds() / max(time.Since(start), time.Microsecond).Seconds()
		pace = min(max(pace, leastPart), mostPart)
		if now := int(pace) / leastPart * leastPart; now < x.part || size >= paceParts*x.part {
			x.setPart(now)
		}
	}
	return nil
}

// sendControl sends the frames that are queued.
func (x *session) sendControl() error {
	x.mu.Lock()
	control := x.control
	x.control = nil
	x.mu.Unlock()
	if control == nil {
		return nil
	}
	return x.send(slices.Concat(control...), true)
}

// A coming is an answer of which not all bytes have come.
type coming struct {
	data
	absent bitset
	raw    *buffer // as the bytes come; nil: they are dropped, because the request was cancelled
	got    int
	from   time.Time
}

// onData begins an answer of no more bytes than were asked for.
func (x *session) onData(body []byte) error {
	c := &coming{from: time.Now()}
	if err := decode(body, &c.data); err != nil {
		return fmt.Errorf("%w: %w", errViolation, err)
	}
	x.mu.Lock()
	r, ok := x.pending[c.Req]
	ended := x.ended
	x.mu.Unlock()
	switch {
	case ended:
		return nil
	case x.coming != nil:
		return fmt.Errorf("%w: an answer to request %d within the one to %d", errViolation, c.Req, x.coming.Req)
	case !ok:
		return fmt.Errorf("%w: bytes for request %d, which was not made", errViolation, c.Req)
	case r != nil:
		if err := x.choose(r, &c.data); err != nil {
			return fmt.Errorf("%w: %w", errViolation, err)
		}
		var err error
		if c.absent, err = r.check(&c.data); err != nil {
			return fmt.Errorf("%w: %w", errViolation, err)
		}
		c.raw = x.s.buffers.get(int(c.Bytes))
	case c.Bytes > maxExtent:
		return fmt.Errorf("%w: %w", errViolation, &wire.LimitError{What: "bytes of an answer", Limit: maxExtent, Got: int(c.Bytes)})
	}
	x.coming = c
	if c.Bytes == 0 {
		return x.came()
	}
	return nil
}

// onPart reads the next bytes of an answer.
func (x *session) onPart(body []byte, in io.Reader) error {
	var f part
	if err := decode(body, &f); err != nil {
		return fmt.Errorf("%w: %w", errViolation, err)
	}
	c := x.coming
	if c == nil {
		return fmt.Errorf("%w: a part of no answer", errViolation)
	}
	left := int64(c.Bytes) - int64(c.got)
	if f.Bytes == 0 || int64(f.Bytes) > left {
		return fmt.Errorf("%w: a part of %d bytes of an answer that lacks %d", errViolation, f.Bytes, left)
	}
	var err error
	if c.raw == nil {
		_, err = io.CopyN(io.Discard, in, int64(f.Bytes))
	} else {
		_, err = io.ReadFull(in, c.raw.b[c.got:c.got+int(f.Bytes)])
	}
	if err != nil {
		return x.readError(err)
	}
	x.s.stats.bytesIn.Add(int64(f.Bytes))
	if c.got += int(f.Bytes); c.got < int(c.Bytes) {
		return nil
	}
	return x.came()
}

// came hands out the answer all of whose bytes have come.
func (x *session) came() error {
	c := x.coming
	x.coming = nil
	a, err := x.unpacked(c)
	if err == nil {
		err = x.onAnswer(c.Req, a)
	}
	if err != nil { // its bytes are false, or it was refused while they came
		return fmt.Errorf("%w: %w", errViolation, err)
	}
	return nil
}

// unpacked makes c an answer, which owns its bytes.
func (x *session) unpacked(c *coming) (answer, error) {
	if c.raw == nil {
		x.s.stats.wasted.Add(int64(c.Bytes))
		return answer{}, nil
	}
	x.mu.Lock()
	x.line.read(c.got, time.Since(c.from))
	x.mu.Unlock()
	if c.Plain == 0 {
		return answer{body: c.raw, absent: c.absent}, nil
	}
	defer c.raw.release()
	plain := x.s.buffers.get(int(c.Plain))
	if err := x.s.packer.unpack(c.raw.b, plain.b); err != nil {
		plain.release()
		return answer{}, err
	}
	return answer{body: plain, absent: c.absent}, nil
}
