package mesh

import (
	"context"
	"fmt"
	"net"
	"time"

	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

// protoAttach is how a node comes to its place: it asks to be dialled back, or to be taken in as a leaf.
//
//	asker -> peer    reach {nonce}
//	peer  -> asker   reached {problem}, and the nonce in a sealed packet
//
//	leaf  -> point   attach {}
//	point -> leaf    offer {next}, or refused {reason}
//	leaf  -> point   lease {lease, standby}; again later, when the standby becomes the attach point
//	point -> leaf    taken {}; then members {up, down} at each change, and call {token, proto} for a stream
//	leaf  -> point   ping {}, answered by pong {root}; reach {nonce} as above, on this session; at the end bye {state}
const protoAttach = "meshd/attach/1"

const (
	attachV1    = 1
	attachBytes = 4 << 10 // of one frame

	frameReach   = 1
	frameReached = 2
	frameAttach  = 3
	frameOffer   = 4
	frameRefused = 5
	frameLease   = 6
	frameTaken   = 7
	frameMembers = 8
	frameCall    = 9
	framePing    = 10
	frameBye     = 12
	framePong    = 13

	membersPerFrame = 100
)

var attachLimits = wire.Limits{Bytes: attachBytes, Depth: 3, Items: 2 * membersPerFrame, Total: 2 * attachBytes}

// reachFrame asks to be dialled back; the packet that proves UDP carries the nonce.
type reachFrame struct{ Nonce [8]byte }

// reachedFrame tells why the asker was not reached; no Problem: it was, by a stream, and packets follow.
// Busy says that nothing was tried.
type reachedFrame struct {
	Busy    bool
	Problem string
}

// emptyFrame is the body of attach, taken and ping.
type emptyFrame struct{}

// offerFrame names the least count that the leaf's lease must have.
type offerFrame struct{ Next uint64 }

type refusedFrame struct{ Reason string }

// leaseFrame carries what trust.SignLease returned.
type leaseFrame struct {
	Lease   []byte
	Standby bool
}

// membersFrame tells which ring members came and went since the last; the first tells of all.
type membersFrame struct{ Up, Down [][16]byte }

type callFrame struct {
	Token [16]byte
	Proto string
}

// pongFrame carries the beginning of the point's catalog root, as the ring's ping acks do.
type pongFrame struct{ Root [8]byte }

// byeFrame says what becomes of the lease: one of catalog's states.
type byeFrame struct{ State uint8 }

// sendAttach writes one frame of attach/1.
func sendAttach(c net.Conn, kind byte, body any) error {
	b, err := wire.Marshal(attachV1, body)
	if err != nil {
		return err
	}
	return wire.WriteFrame(c, kind, b)
}

// readAttach reads one frame of that kind; any other is an error.
func readAttach[T any](c net.Conn, kind byte) (body T, err error) {
	got, b, err := wire.ReadFrame(c, attachBytes)
	if err != nil {
		return body, err
	}
	if got == frameRefused && kind != frameRefused {
		refused, err := parseAttach[refusedFrame](b)
		if err != nil {
			return body, err
		}
		return body, fmt.Errorf("%w: %q", errNotTaken, refused.Reason)
	}
	if got != kind {
		return body, fmt.Errorf("frame of kind %d where %d belongs: %w", got, kind, wire.ErrMalformed)
	}
	return parseAttach[T](b)
}

func parseAttach[T any](b []byte) (body T, err error) {
	err = wire.Unmarshal(b, attachV1, attachLimits, &body)
	return body, err
}

// serveAttach speaks with a node that looks for its place.
func (m *Mesh) serveAttach(ctx context.Context, peer trust.Cert, c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(reachLimit))
	kind, b, err := wire.ReadFrame(c, attachBytes)
	if err == nil {
		switch kind {
		case frameReach:
			var ask reachFrame
			if ask, err = parseAttach[reachFrame](b); err == nil {
				err = m.serveReach(ctx, peer.ID, ask, c)
			}
		case frameAttach:
			if _, err = parseAttach[emptyFrame](b); err == nil {
				err = m.serveLeaf(ctx, peer, c)
			}
		default:
			err = fmt.Errorf("frame of kind %d where reach or attach belongs: %w", kind, wire.ErrMalformed)
		}
	}
	if err != nil && ctx.Err() == nil {
		m.cfg.Log.Debug("attach", "peer", peer.ID.Short(), "error", err)
	}
}
