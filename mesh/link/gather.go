package link

import (
	"net"
	"sync"
)

const (
	gatherFrom = 32 << 10  // a write of so many bytes is gathered: two records of TLS
	gatherMost = 256 << 10 // bytes gathered before they are sent
)

// A gather stands between TLS and the network, and sends the records of one large write together: TLS alone
// makes a system call of each 16 KiB, which costs a twelfth of a transfer.
type gather struct {
	net.Conn
	spare *sync.Pool // of *[]byte

	// turn, capacity 1, is held by whoever reads or changes what follows or writes to Conn. It is no mutex:
	// one waits for it while another's write waits for the network.
	turn    chan struct{}
	holders int     // large writes under way
	b       *[]byte // records of those; nil = none
}

func newGather(c net.Conn, spare *sync.Pool) *gather {
	return &gather{Conn: c, spare: spare, turn: make(chan struct{}, 1)}
}

// Write is called by TLS, with a record or a few.
func (g *gather) Write(record []byte) (int, error) {
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	if g.holders == 0 {
		return g.Conn.Write(record)
	}
	if g.b == nil {
		var ok bool
		if g.b, ok = g.spare.Get().(*[]byte); !ok {
			g.b = new([]byte)
		}
	}
	*g.b = append(*g.b, record...)
	if len(*g.b) < gatherMost {
		return len(record), nil
	}
	return len(record), g.send()
}

// hold has what is written from now on gathered, until release.
func (g *gather) hold() {
	g.turn <- struct{}{}
	g.holders++
	<-g.turn
}

// release sends what was gathered.
func (g *gather) release() error {
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	g.holders--
	return g.send()
}

// send is called with the turn held.
func (g *gather) send() error {
	if g.b == nil {
		return nil
	}
	_, err := g.Conn.Write(*g.b)
	*g.b = (*g.b)[:0]
	g.spare.Put(g.b)
	g.b = nil
	return err
}

// Write sends b. Where it returns an error, the stream is of no more use.
func (c *Conn) Write(b []byte) (int, error) {
	if len(b) < gatherFrom {
		return c.Conn.Write(b)
	}
	c.out.hold()
	n, err := c.Conn.Write(b)
	if sendErr := c.out.release(); err == nil && sendErr != nil {
		n, err = 0, sendErr
	}
	return n, err
}
