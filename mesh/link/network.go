package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// A Network is where sockets come from: Real in a daemon, a Host of a Memory in a simulation (law 7).
type Network interface {
	// Listen binds one address for streams and packets alike: both have the same port. Port 0 takes one
	// that is free for both. Where the system can, the address need not be there yet.
	Listen(addr string) (net.Listener, net.PacketConn, error)

	// Dial opens a stream to HOST:PORT. It returns when ctx ends.
	Dial(ctx context.Context, addr string) (net.Conn, error)
}

// Real is the network of this machine: TCP and UDP.
var Real Network = realNetwork{}

type realNetwork struct{}

// keepAlive is how the system probes an idle stream. A stream of ours that works is not silent for longer than Idle: what
// is said on it, or its end after a minute, comes first, and probes are for far ends that are gone. (15 s, the default of
// package net, cost a leaf 800 bytes in each of those for what it had just pulled.)
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 75 * time.Second, Interval: 15 * time.Second, Count: 5}

// portTries is how often Listen asks for a port that TCP and UDP both have free.
const portTries = 32

func (realNetwork) Listen(addr string) (net.Listener, net.PacketConn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on %q: %w; want ADDR:PORT", addr, err)
	}
	tries := 1
	if port == "0" {
		tries = portTries
	}
	var last error
	config := net.ListenConfig{Control: freebind, KeepAliveConfig: keepAlive}
	for range tries {
		l, err := config.Listen(context.Background(), "tcp", addr)
		if err != nil {
			return nil, nil, err
		}
		bound := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		p, err := config.ListenPacket(context.Background(), "udp", net.JoinHostPort(host, bound))
		if err == nil {
			return l, p, nil
		}
		last = errors.Join(err, l.Close())
	}
	return nil, nil, last
}

func (realNetwork) Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive}
	return d.DialContext(ctx, "tcp", addr)
}
