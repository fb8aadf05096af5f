package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	netnsDir   = "/run/netns/"
	device     = "eth0"
	switchAddr = "10.77.255.254"
	netBits    = "/16"
	meshdPort  = "6374"
	headBytes  = 66 // of a TCP segment with time stamps on Ethernet: 14 + 20 + 20 + 12
	// What tbf lets through at once holds the largest segment that TCP hands down (64 KiB); what waits beyond it,
	// waits 50 ms at most.
	tbfBurst, tbfWait = "80kb", "50ms"

	controlFile, congestionControl = "/proc/sys/net/ipv4/tcp_congestion_control", "reno"
)

// A network is a bridge in a namespace of its own, and hosts that hang on it, each in one of its own. This kernel's
// tbf shapes both directions of every link; there is no delay (netem is not everywhere).
type network struct {
	prefix string // of the namespaces' names: what is left behind is found by "meshd-"
	hosts  map[string]*host
}

// A host is one namespace with one link.
type host struct {
	net        *network
	name, addr string
	port       string // the bridge's end of its link
}

// newNetwork makes the bridge. It needs root; close removes all.
func newNetwork(ctx context.Context) (w *network, err error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("network namespaces need root: %w", errors.ErrUnsupported)
	}
	w = &network{prefix: fmt.Sprintf("meshd-lab%d-", os.Getpid()), hosts: map[string]*host{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if err := w.ip(ctx, "", "netns", "add", w.prefix+"sw"); err != nil {
		return nil, err
	}
	for _, args := range []string{
		"link set lo up", "link add br0 type bridge", "addr add " + switchAddr + netBits + " dev br0", "link set br0 up",
	} {
		if err := w.ip(ctx, w.prefix+"sw", strings.Fields(args)...); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// add hangs a host on the bridge, with a link of mbit/s each way; 0 is as fast as the machine.
func (w *network) add(ctx context.Context, name string, mbit int) (*host, error) {
	n := len(w.hosts) + 1
	h := &host{net: w, name: name, addr: fmt.Sprintf("10.77.%d.%d", n/250, n%250+1), port: fmt.Sprintf("p%d", n)}
	w.hosts[name] = h
	if err := w.ip(ctx, "", "netns", "add", h.ns()); err != nil {
		return nil, err
	}
	for _, c := range [][2]string{
		{"", "link add name " + device + " netns " + h.ns() + " type veth peer name " + h.port + " netns " + w.prefix + "sw"},
		{w.prefix + "sw", "link set " + h.port + " master br0 up"},
		{h.ns(), "addr add " + h.addr + netBits + " dev " + device},
		{h.ns(), "link set " + device + " up"},
		{h.ns(), "link set lo up"},
	} {
		if err := w.ip(ctx, c[0], strings.Fields(c[1])...); err != nil {
			return nil, err
		}
	}
	// The one that may be set in any namespace; at short round trips cubic, what most machines use, does the same. What
	// this machine uses would decide how often full queues drop something.
	err := h.do(func() error { return os.WriteFile(controlFile, []byte(congestionControl), 0o644) })
	if err != nil {
		return nil, fmt.Errorf("set the congestion control: %w", err)
	}
	return h, h.shape(ctx, mbit)
}

// shape bounds both directions of the link.
func (h *host) shape(ctx context.Context, mbit int) error {
	if mbit == 0 {
		return nil
	}
	for ns, dev := range map[string]string{h.ns(): device, h.net.prefix + "sw": h.port} {
		args := []string{"-n", ns, "qdisc", "replace", "dev", dev, "root", "tbf", "rate", fmt.Sprintf("%dmbit", mbit), "burst", tbfBurst, "latency", tbfWait}
		if err := command(ctx, "tc", args...); err != nil {
			return err
		}
	}
	return nil
}

func (h *host) ns() string { return h.net.prefix + h.name }

// do calls f on a thread that is in the host's namespace: sockets that it makes and processes that it starts are there.
// A nil host is where this program is.
func (h *host) do(f func() error) error {
	if h == nil {
		return f()
	}
	return inside(h.ns(), f)
}

// inside calls f on a thread in a namespace; the thread ends with it.
func inside(ns string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever
		fd, err := unix.Open(netnsDir+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- fmt.Errorf("open namespace %s: %w", ns, err)
			return
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", ns, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// traffic is what went over a host's link, in bytes of TCP payload: of each packet the headers are taken off, so that
// it does not matter how the kernel cut the stream. UDP (gossip) counts 24 bytes a packet too little.
type traffic struct{ sent, received float64 }

func (h *host) traffic(ctx context.Context) (traffic, error) {
	out, err := exec.CommandContext(ctx, "ip", "-n", h.ns(), "-j", "-s", "link", "show", "dev", device).Output()
	if err != nil {
		return traffic{}, fmt.Errorf("counters of %s: %w", h.name, err)
	}
	var links []struct {
		Stats map[string]struct{ Bytes, Packets float64 } `json:"stats64"`
	}
	if err := json.Unmarshal(out, &links); err != nil || len(links) != 1 {
		return traffic{}, fmt.Errorf("counters of %s: %q: %v", h.name, out, err)
	}
	payload := func(dir string) float64 {
		s := links[0].Stats[dir]
		return s.Bytes - headBytes*s.Packets
	}
	return traffic{payload("tx"), payload("rx")}, nil
}

// close removes the namespaces, and with them all links.
func (w *network) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	var errs []error
	for _, h := range w.hosts {
		errs = append(errs, w.ip(ctx, "", "netns", "del", h.ns()))
	}
	return errors.Join(append(errs, w.ip(ctx, "", "netns", "del", w.prefix+"sw"))...)
}

func (w *network) ip(ctx context.Context, ns string, args ...string) error {
	if ns != "" {
		args = append([]string{"-n", ns}, args...)
	}
	return command(ctx, "ip", args...)
}

// command runs a program of the machine to its end.
func command(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
