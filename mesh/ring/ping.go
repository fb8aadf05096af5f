package ring

import (
	"bytes"
	"encoding/binary"

	"meshd/mesh/id"
)

// A ping of memberlist says in 113 bytes what the packet it rides in says already: who asks whom. It travels as its
// number alone, as msgpack wrote it. pingHead and pingTail are what stands before and behind that; where
// memberlist writes a ping otherwise it travels whole.

func pingHead(to id.Node) []byte {
	return []byte("\x00\x85\xa4Node\xb6" + name(to) + "\xa5SeqNo")
}

func pingTail(from id.Node) []byte {
	b := []byte("\xaaSourceAddr\xb0" + string(logicalIP(from)) + "\xaaSourceNode\xb6" + name(from) + "\xaaSourcePort\xcd")
	return binary.BigEndian.AppendUint16(b, logicalPort)
}

// shortPing returns the number of the ping b; false where b is anything else.
func shortPing(b []byte, from, to id.Node) ([]byte, bool) {
	b, ok := bytes.CutPrefix(b, pingHead(to))
	if !ok {
		return nil, false
	}
	b, ok = bytes.CutSuffix(b, pingTail(from))
	return b, ok && isNumber(b)
}

// wholePing undoes shortPing; false where number is none.
func wholePing(number []byte, from, to id.Node) ([]byte, bool) {
	if !isNumber(number) {
		return nil, false
	}
	return append(append(pingHead(to), number...), pingTail(from)...), true
}

// isNumber reports whether b is one msgpack number of at most 32 bits, without a sign.
func isNumber(b []byte) bool {
	switch len(b) {
	case 1:
		return b[0] < 0x80
	case 2:
		return b[0] == 0xcc
	case 3:
		return b[0] == 0xcd
	case 5:
		return b[0] == 0xce
	}
	return false
}
