package main

import (
	"bytes"
	"context"
	"crypto/sha1" // BitTorrent's own
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	rsyncPort, btPort, trackerPort = 8730, 6881, 6969
	pieceBytes                     = 256 << 10
)

// A tool is a process of another program than meshd, started in the background.
type tool struct {
	cmd  *exec.Cmd
	out  *bytes.Buffer // read after done
	peak float64       // RSS (bytes), looked at every readTime; read after done
	done chan struct{}
}

// run starts a program on a host.
func (h *host) run(name string, args ...string) (*tool, error) {
	t := &tool{cmd: exec.Command(name, args...), out: new(bytes.Buffer), done: make(chan struct{})}
	t.cmd.Stdout, t.cmd.Stderr = t.out, t.out
	if err := h.do(t.cmd.Start); err != nil {
		return nil, err
	}
	// The kernel's own maximum (rusage) begins with that of the process that forked.
	ended := make(chan struct{})
	go func() {
		_ = t.cmd.Wait() // its end is in ProcessState
		close(ended)
	}()
	go func() {
		defer close(t.done)
		ticker := time.NewTicker(readTime)
		defer ticker.Stop()
		for {
			select {
			case <-ended:
				return
			case <-ticker.C:
			}
			if peak, err := peakOf(t.cmd.Process.Pid); err == nil {
				t.peak = max(t.peak, peak)
			}
		}
	}()
	return t, nil
}

// wait waits for its end, which must be exit 0.
func (t *tool) wait(ctx context.Context) error {
	select {
	case <-t.done:
	case <-ctx.Done():
		t.stop()
		return ctx.Err()
	}
	if !t.cmd.ProcessState.Success() {
		return fmt.Errorf("%s: %s: %s", t.cmd.Path, t.cmd.ProcessState, t.out)
	}
	return nil
}

// stop ends it, whatever it is at.
func (t *tool) stop() {
	_ = t.cmd.Process.Signal(syscall.SIGTERM) // gone already: the wait sees that
	select {
	case <-t.done:
	case <-time.After(endTime):
		_ = t.cmd.Process.Kill()
		<-t.done
	}
}

// sum adds up what tools took, which have ended, and the children that they waited for.
func (r *outcome) sum(tools []*tool) {
	for _, t := range tools {
		r.cpu += t.cmd.ProcessState.UserTime() + t.cmd.ProcessState.SystemTime()
		r.peak = max(r.peak, t.peak)
	}
}

// rsyncDaemon serves the folder dir/a from the first host of a cast.
func (c *crew) rsyncDaemon(ctx context.Context, dir string) (*tool, error) {
	conf := filepath.Join(dir, "rsyncd.conf")
	text := fmt.Sprintf("use chroot = no\nreverse lookup = no\nuid = %d\ngid = %d\n[a]\npath = %s\nread only = yes\n",
		os.Geteuid(), os.Getegid(), filepath.Join(dir, "a"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	d, err := c.hosts[0].run("rsync", "--daemon", "--no-detach", "--config="+conf, fmt.Sprintf("--port=%d", rsyncPort))
	if err != nil {
		return nil, err
	}
	addr := net.JoinHostPort(c.hosts[0].addr, strconv.Itoa(rsyncPort))
	return d, until(ctx, "the rsync daemon listens", lookTime, func() (bool, error) {
		return c.hosts[0].do(func() error {
			conn, err := net.DialTimeout("tcp", addr, time.Second)
			if err == nil {
				err = conn.Close()
			}
			return err
		}) == nil, nil
	})
}

// rsync has each receiver fetch all below source from the origin's daemon, all at once; where they put it is told by
// their names below dir.
func (c *crew) rsync(ctx context.Context, source string, flags ...string) (r *outcome, err error) {
	dir, err := c.folders("a")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := command(ctx, "cp", "-a", source, filepath.Join(dir, "a", "doc")); err != nil {
		return nil, err
	}
	d, err := c.rsyncDaemon(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer d.stop()
	before, err := c.hosts[0].traffic(ctx)
	if err != nil {
		return nil, err
	}
	r = &outcome{who: strings.Join(append([]string{"rsync"}, flags...), " ") + ", no crypto"}
	began := time.Now()
	var tools []*tool
	defer func() {
		for _, t := range tools {
			t.stop()
		}
	}()
	for _, h := range c.hosts[1:] {
		args := append(flags, "-a", "-W", fmt.Sprintf("rsync://%s:%d/a/", c.hosts[0].addr, rsyncPort), filepath.Join(dir, h.name)+"/")
		t, err := h.run("rsync", args...)
		if err != nil {
			return nil, err
		}
		tools = append(tools, t)
	}
	for _, t := range tools {
		if err := t.wait(ctx); err != nil {
			return nil, err
		}
	}
	r.took = time.Since(began)
	after, err := c.hosts[0].traffic(ctx)
	if err != nil {
		return nil, err
	}
	r.egress = after.sent - before.sent
	d.stop()
	r.sum(append(tools, d))
	return r, nil
}

// aria2 has each receiver fetch a file by BitTorrent. A tracker of ours tells everybody all addresses at once; DHT,
// local discovery and exchange of peers are off, so that nothing leaves the namespaces.
func (c *crew) aria2(ctx context.Context, source string) (r *outcome, err error) {
	dir, err := c.folders("a")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tracker, err := c.newTracker()
	if err != nil {
		return nil, err
	}
	defer tracker.close()
	if err := os.WriteFile(filepath.Join(dir, "hook"), []byte("#!/bin/sh\n: > \"$3.done\"\n"), 0o700); err != nil {
		return nil, err
	}
	if err := c.torrent(dir, source); err != nil {
		return nil, err
	}
	if err := command(ctx, "cp", source, filepath.Join(dir, "a", "doc")); err != nil {
		return nil, err
	}
	var tools []*tool
	stop := func() {
		for _, t := range tools {
			t.stop()
		}
	}
	defer func() { stop() }()
	start := func(h *host) error {
		t, err := h.run("aria2c", "--no-conf", "--quiet", "--dir="+filepath.Join(dir, h.name), fmt.Sprintf("--listen-port=%d", btPort),
			"--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false", "--enable-peer-exchange=false", "--disable-ipv6",
			"--check-integrity", "--seed-ratio=0.0", "--file-allocation=none", "--bt-tracker-interval=1", "--bt-max-peers=0",
			"--on-bt-download-complete="+filepath.Join(dir, "hook"), filepath.Join(dir, "doc.torrent"))
		tools = append(tools, t)
		return err
	}
	if err := start(c.hosts[0]); err != nil {
		return nil, err
	}
	select {
	case <-tracker.seeded:
	case <-tools[0].done:
		return nil, fmt.Errorf("aria2c ended: %s", tools[0].out)
	case <-ctx.Done():
		return nil, errors.New("aria2c did not announce itself in time")
	}
	before, err := c.hosts[0].traffic(ctx)
	if err != nil {
		return nil, err
	}
	r = &outcome{who: "aria2, no crypto"}
	began := time.Now()
	for _, h := range c.hosts[1:] {
		if err := start(h); err != nil {
			return nil, err
		}
	}
	for _, h := range c.hosts[1:] {
		if err := exists(ctx, filepath.Join(dir, h.name, "doc.done")); err != nil {
			return nil, err
		}
	}
	r.took = time.Since(began)
	after, err := c.hosts[0].traffic(ctx)
	if err != nil {
		return nil, err
	}
	r.egress = after.sent - before.sent
	stop()
	r.sum(tools)
	for _, h := range c.hosts[1:] {
		if err := alike(source, filepath.Join(dir, h.name, "doc")); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// torrent describes a file in the format of BitTorrent v1.
func (c *crew) torrent(dir, source string) error {
	data, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	var pieces []byte
	for at := 0; at < len(data); at += pieceBytes {
		sum := sha1.Sum(data[at:min(at+pieceBytes, len(data))])
		pieces = append(pieces, sum[:]...)
	}
	announce := fmt.Sprintf("http://%s:%d/announce", switchAddr, trackerPort)
	text := fmt.Sprintf("d8:announce%d:%s4:infod6:lengthi%de4:name3:doc12:piece lengthi%de6:pieces%d:%see",
		len(announce), announce, len(data), pieceBytes, len(pieces), pieces)
	return os.WriteFile(filepath.Join(dir, "doc.torrent"), []byte(text), 0o600)
}

// A tracker tells everybody who asks the addresses of all.
type tracker struct {
	server *http.Server
	seeded chan struct{} // closed when one that has all asked
	ended  chan struct{}
}

func (c *crew) newTracker() (*tracker, error) {
	t := &tracker{seeded: make(chan struct{}), ended: make(chan struct{})}
	var peers []byte
	for _, h := range c.hosts {
		peers = append(peers, net.ParseIP(h.addr).To4()...)
		peers = append(peers, byte(btPort>>8), byte(btPort&0xff))
	}
	text := fmt.Appendf(nil, "d8:intervali1e5:peers%d:%se", len(peers), peers)
	var seed sync.Once
	mux := http.NewServeMux()
	mux.HandleFunc("/announce", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("left") == "0" {
			seed.Do(func() { close(t.seeded) })
		}
		_, _ = w.Write(text) // who has gone needs no answer
	})
	t.server = &http.Server{Handler: mux}
	var l net.Listener
	err := inside(c.net.prefix+"sw", func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(switchAddr, strconv.Itoa(trackerPort)))
		return err
	})
	if err != nil {
		return nil, err
	}
	go func() {
		_ = t.server.Serve(l) // ErrServerClosed
		close(t.ended)
	}()
	return t, nil
}

func (t *tracker) close() {
	_ = t.server.Close()
	<-t.ended
}
