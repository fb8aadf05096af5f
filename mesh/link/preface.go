package link

import (
	"fmt"
	"io"

	"meshd/mesh/wire"
)

// After the handshake of a member's stream the dialler sends a preface, and the other end answers with
// its own: one frame each, before the bytes of the protocol. It carries what TLS does not: whether the
// far end took the stream, where the sender listens, and which packets of its are new.
const (
	prefaceVersion = 1
	prefaceKind    = 1
	prefaceBytes   = 2 << 10
	prefaceAddrs   = 8 // addresses of one node
	addrBytes      = 200
)

// A preface is what each end of a stream says first.
type preface struct {
	Boot    [8]byte  // of the sender's run
	Sent    uint64   // the counter of the last packet that the sender sealed for the receiver
	Port    uint16   // where the sender listens, at the address that the stream comes from
	Addrs   []string // where else
	Refused string   // why the sender ends the stream; empty: it goes on
}

func writePreface(w io.Writer, p preface) error {
	b, err := wire.Marshal(prefaceVersion, p)
	if err != nil {
		return err
	}
	return wire.WriteFrame(w, prefaceKind, b)
}

func readPreface(r io.Reader) (preface, error) {
	kind, b, err := wire.ReadFrame(r, prefaceBytes)
	if err != nil {
		return preface{}, fmt.Errorf("read the preface: %w", err)
	}
	if kind != prefaceKind {
		return preface{}, fmt.Errorf("read the preface: %w: frame of kind %d, want %d", wire.ErrMalformed, kind, prefaceKind)
	}
	return decodePreface(b)
}

func decodePreface(b []byte) (preface, error) {
	var p preface
	lim := wire.Limits{Bytes: prefaceBytes, Depth: 2, Items: prefaceAddrs, Total: 32}
	if err := wire.Unmarshal(b, prefaceVersion, lim, &p); err != nil {
		return preface{}, fmt.Errorf("read the preface: %w", err)
	}
	for _, a := range p.Addrs {
		if len(a) > addrBytes {
			return preface{}, &wire.LimitError{What: "bytes of an address", Limit: addrBytes, Got: len(a)}
		}
	}
	return p, nil
}
