package mesh

import (
	"context"
	"fmt"
	"net"
	"time"

	"meshd/mesh/trust"
	"meshd/mesh/wire"
)

// protoAttach is how a node comes to its place: it asks to be dialled back.
//
//	asker  -> peer   reach {nonce}
//	peer   -> asker  reached {problem}, and the nonce in a sealed packet
const protoAttach = "meshd/attach/1"

const (
	attachV1    = 1
	attachBytes = 4 << 10 // of one frame

	frameReach   = 1
	frameReached = 2
)

var attachLimits = wire.Limits{Bytes: attachBytes, Depth: 3, Items: 256, Total: 512}

// reachFrame asks to be dialled back; the packet that proves UDP carries the nonce.
type reachFrame struct{ Nonce [8]byte }

// reachedFrame tells why the asker was not reached; no Problem: it was, by a stream, and packets follow.
// Busy says that nothing was tried.
type reachedFrame struct {
	Busy    bool
	Problem string
}

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
	if got != kind {
		return body, fmt.Errorf("frame of kind %d where %d belongs: %w", got, kind, wire.ErrMalformed)
	}
	err = wire.Unmarshal(b, attachV1, attachLimits, &body)
	return body, err
}

// serveAttach speaks with a node that looks for its place.
func (m *Mesh) serveAttach(ctx context.Context, peer trust.Cert, c net.Conn) {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(reachLimit))
	ask, err := readAttach[reachFrame](c, frameReach)
	if err == nil {
		err = m.serveReach(ctx, peer.ID, ask, c)
	}
	if err != nil && ctx.Err() == nil {
		m.cfg.Log.Debug("attach", "peer", peer.ID.Short(), "error", err)
	}
}
