package ring

import (
	"encoding/base64"
	"fmt"
	"net"
	"strconv"

	"meshd/mesh/id"
)

// spelling is base64 in the 64 characters that serf allows in names: every ping carries two names, and
// these 22 letters spare an idle node 20 bytes a second against 32 hexadecimal digits.
var spelling = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-.").
	WithPadding(base64.NoPadding).Strict()

// name returns what n is called in the ring.
func name(n id.Node) string { return spelling.EncodeToString(n[:]) }

// parseName reads what name wrote, and no other spelling.
func parseName(s string) (id.Node, error) {
	var n id.Node
	if len(s) != spelling.EncodedLen(len(n)) {
		return n, fmt.Errorf("member name %q: %d characters, want %d", s, len(s), spelling.EncodedLen(len(n)))
	}
	b, err := spelling.DecodeString(s)
	if err != nil || len(b) != len(n) {
		return n, fmt.Errorf("member name %q is no node id", s)
	}
	return id.Node(b), nil
}

// logicalPort is part of each member's address in the ring, and no more than that.
const logicalPort = 6374

// logicalIP is a node's address in the ring: it follows from the id and never changes, wherever the node
// roams; the link finds the way.
func logicalIP(n id.Node) net.IP {
	ip := make(net.IP, net.IPv6len)
	ip[0] = 0xfd
	copy(ip[1:], n[:15])
	return ip
}

func address(n id.Node) string {
	return net.JoinHostPort(logicalIP(n).String(), strconv.Itoa(logicalPort))
}
