package main

import (
	"net"
	"strconv"
	"strings"

	"meshd/mesh/id"
)

// checkAddresses refuses what can't be meant by --listen, --advertise and --peer: a node that took it would be
// up and reach nobody.
func (o *options) checkAddresses() error {
	if o.listen != "" && !isAddress(o.listen, 0) {
		return usagef("--listen %q: want ADDR:PORT, the port 0 to 65535; an empty ADDR is all of this machine's", o.listen)
	}
	for _, a := range o.advertise {
		if !isAddress(a, 1) || strings.HasPrefix(a, ":") {
			return usagef("--advertise %q: want HOST:PORT", a)
		}
	}
	for _, p := range o.peers {
		node, addr, named := strings.Cut(p, "@")
		if !named {
			addr = p
		}
		if _, err := id.Parse(node); (named && err != nil) || !isAddress(addr, 1) || strings.HasPrefix(addr, ":") {
			return usagef("--peer %q: want HOST:PORT or ID@HOST:PORT, the ID as meshctl members -o wide shows it", p)
		}
	}
	return nil
}

// isAddress reports whether s is HOST:PORT with a port from least on.
func isAddress(s string, least uint64) bool {
	host, port, err := net.SplitHostPort(s)
	n, errPort := strconv.ParseUint(port, 10, 16)
	return err == nil && errPort == nil && n >= least && !strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == '@' })
}
