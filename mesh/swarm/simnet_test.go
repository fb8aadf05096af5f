package swarm

import (
	"container/heap"
	"time"
)

const (
	quantum     = 16 << 10  // bytes that a link carries at a time: a TLS record
	streamAhead = 128 << 10 // bytes of one stream on their way, as TCP would have
	socketRoom  = 16 << 10  // bytes that a stream's socket takes before they are sent
	linkQueue   = 256 << 10 // bytes that wait at a downlink before senders are held back
	headerBytes = 60        // of a frame, besides what it carries
)

// A simnet carries frames between nodes over links of given rates, one event after the other. An uplink
// serves its streams in turn; a downlink serves what arrives in order; a full downlink holds back senders, as
// TCP would. Nothing is random.
type simnet struct {
	now    time.Duration
	seq    int
	events simEvents
	nodes  []*simNode
}

type simEvent struct {
	at  time.Duration
	seq int
	do  func()
}

type simEvents []simEvent

func (h simEvents) Len() int { return len(h) }
func (h simEvents) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h simEvents) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *simEvents) Push(x any)   { *h = append(*h, x.(simEvent)) }
func (h *simEvents) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

func (s *simnet) after(d time.Duration, do func()) {
	s.seq++
	heap.Push(&s.events, simEvent{s.now + d, s.seq, do})
}

// run plays events until done or the time is up, and says whether done.
func (s *simnet) run(done func() bool, limit time.Duration) bool {
	for len(s.events) > 0 && !done() {
		e := heap.Pop(&s.events).(simEvent)
		if s.now = e.at; s.now > limit {
			return false
		}
		e.do()
	}
	return done()
}

// A simLink is one node's connection to the net.
type simLink struct {
	rateUp, rateDown float64 // bytes a second
	delay            time.Duration
	streams          []*simStream // outgoing
	turn             int
	sending          bool
	queued           int64 // at the downlink
	free             time.Duration
	up, down         int64 // bytes carried
	dead             bool
}

// A simStream is one direction of a stream between two nodes.
type simStream struct {
	net      *simnet
	from, to *simNode
	control  []simFrame
	jobs     func() (simFrame, bool) // the next answer, when the socket has room for it
	rest     simFrame                // what of an answer is not in the socket yet
	socket   []simFrame              // being sent, in order
	unsent   int64
	flying   int64
	closed   bool
}

// A simFrame is one message; deliver runs at its receiver.
type simFrame struct {
	bytes   int64
	deliver func()
	sent    func() // its last byte is in the socket; may be nil
}

func (x *simStream) send(f simFrame) {
	if x.closed {
		return
	}
	x.control = append(x.control, f)
	x.fill()
}

// fill moves frames into the socket: control first, then answers, a part at a time.
func (x *simStream) fill() {
	for x.unsent < socketRoom && !x.closed {
		var f simFrame
		if len(x.control) > 0 {
			f = x.control[0]
			x.control = x.control[1:]
		} else {
			if x.rest.bytes == 0 {
				x.rest, _ = x.jobs()
			}
			if f = x.rest; f.bytes == 0 {
				break
			}
			x.rest = simFrame{}
			if f.bytes > leastPart {
				x.rest = simFrame{f.bytes - leastPart, f.deliver, f.sent}
				f = simFrame{bytes: leastPart}
			}
		}
		x.socket = append(x.socket, f)
		x.unsent += f.bytes
	}
	x.from.link.pump(x.net)
}

// pump sends the next quantum of a link, if it is idle.
func (l *simLink) pump(s *simnet) {
	if l.sending || l.dead {
		return
	}
	for i := range l.streams {
		x := l.streams[(l.turn+i)%len(l.streams)]
		if len(x.socket) == 0 || x.flying >= streamAhead || x.to.link.queued >= linkQueue || x.closed {
			continue
		}
		l.turn = (l.turn + i + 1) % len(l.streams)
		n := min(x.socket[0].bytes, quantum)
		x.socket[0].bytes -= n
		var last simFrame
		if x.socket[0].bytes == 0 {
			last = x.socket[0]
			x.socket = x.socket[1:]
		}
		x.unsent -= n
		x.flying += n
		x.to.link.queued += n
		l.up += n
		l.sending = true
		s.after(l.took(n, l.rateUp), func() {
			l.sending = false
			if last.sent != nil {
				last.sent()
			}
			x.fill()
			l.pump(s)
			x.arrive(n, last)
		})
		return
	}
}

func (l *simLink) took(n int64, rate float64) time.Duration {
	return time.Duration(float64(n) / rate * float64(time.Second))
}

// arrive queues n bytes at the downlink; last is the frame that they end, if they end one.
func (x *simStream) arrive(n int64, last simFrame) {
	d := x.to.link
	start := max(d.free, x.net.now+x.from.link.delay)
	d.free = start + d.took(n, d.rateDown)
	x.net.after(d.free-x.net.now, func() {
		full := d.queued >= linkQueue
		d.queued -= n
		d.down += n
		x.flying -= n
		if !x.closed && last.deliver != nil {
			last.deliver()
		}
		x.from.link.pump(x.net)
		if full && d.queued < linkQueue {
			for _, other := range x.net.nodes {
				other.link.pump(x.net)
			}
		}
	})
}
