package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"meshd/agent/control"
)

// swarmScenarios need root: they run nodes in network namespaces, behind links of a given rate.
var swarmScenarios = []scenario{
	{"swarm8", 5 * time.Minute, fanOut(8, "aria2", "rsync")},
	{"swarm16", 5 * time.Minute, fanOut(16, "aria2")},
	{"killed", 3 * time.Minute, measureKilled},
	{"slow", 4 * time.Minute, measureSlow},
	{"resume", 5 * time.Minute, measureResume},
	{"full", 2 * time.Minute, measureFull},
	{"small", 3 * time.Minute, measureSmall},
	{"news30", 4 * time.Minute, measureNews},
	{"caps", 2 * time.Minute, measureCaps},
	{"text", 5 * time.Minute, measureText},
	{"quick", 2 * time.Minute, measureQuick},
}

const (
	fanSize = 32 << 20
	fanRate = 40 // Mbit/s
)

// A crew is an origin and the receivers of what it offers, each on a host of its own: hosts[0] is "a".
type crew struct {
	l     *lab
	net   *network
	hosts []*host
	size  int               // of what is sent (bytes)
	rate  int               // of each link (Mbit/s); 0: not shaped
	data  map[string]string // data folders that are not the mesh's own, by node
	of    string            // what is sent: logLines, or random bytes in the words of the scenario
	count bool              // nodes serve their metrics, and outcomes tell what compressing did
}

// newCrew makes the hosts.
func (l *lab) newCrew(ctx context.Context, receivers, size, rate int) (c *crew, err error) {
	c = &crew{l: l, size: size, rate: rate}
	if c.net, err = newNetwork(ctx); err != nil {
		return nil, err
	}
	if err := c.mount(); err != nil {
		return nil, errors.Join(err, c.net.close())
	}
	for i := range receivers + 1 {
		name := "a"
		if i > 0 {
			name = fmt.Sprintf("p%d", i)
		}
		h, err := c.net.add(ctx, name, rate)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.hosts = append(c.hosts, h)
	}
	return c, nil
}

// mount has all folders of the crew in memory: nodes that have machines of their own don't wait for one another's disk.
func (c *crew) mount() error {
	dir, err := os.MkdirTemp(c.l.dir, "ram-")
	if err != nil {
		return err
	}
	if err := unix.Mount("lab", dir, "tmpfs", 0, "mode=0700"); err != nil {
		return errors.Join(fmt.Errorf("mount a tmpfs: %w: %w", errors.ErrUnsupported, err), os.Remove(dir))
	}
	own := *c.l
	own.dir = dir
	c.l = &own
	return nil
}

// close removes the hosts and the folders.
func (c *crew) close() error {
	return errors.Join(c.net.close(), unix.Unmount(c.l.dir, unix.MNT_DETACH), os.Remove(c.l.dir))
}

func (c *crew) String() string {
	return fmt.Sprintf("%d peers, %d MiB%s, %d Mbit/s", len(c.hosts)-1, c.size>>20, c.of, c.rate)
}

// ideal is what the link needs for the bytes alone.
func (c *crew) ideal() time.Duration {
	return time.Duration(float64(c.size) * 8 / float64(c.rate) / 1e6 * float64(time.Second))
}

// folders makes a folder of the crew, with one below it for each of names.
func (c *crew) folders(names ...string) (string, error) {
	dir, err := os.MkdirTemp(c.l.dir, "crew-")
	for _, n := range names {
		err = errors.Join(err, os.MkdirAll(filepath.Join(dir, n), 0o755))
	}
	return dir, err
}

// An outcome is what one program took to bring the bytes to all.
type outcome struct {
	who    string
	took   time.Duration
	first  time.Duration // meshd: until the first had placed it
	call   time.Duration // meshd: from the call of publish, which stores the bytes, to the end
	egress float64       // bytes that the origin sent
	cpu    time.Duration // of all processes
	peak   float64       // RSS of the largest process (bytes)
	pack   *packing      // nil: not counted
}

// figures tells an outcome; targets of 0 are none.
func (r *outcome) figures(c *crew, timeTarget, egressTarget float64) []figure {
	one := func(what, unit string, v, target float64) figure {
		return single(fmt.Sprintf("%s: %s, %s", c, r.who, what), unit, v, target)
	}
	list := []figure{
		one("time over ideal", "x", r.took.Seconds()/c.ideal().Seconds(), timeTarget),
		one("origin egress over size", "x", r.egress/float64(c.size), egressTarget),
		one("CPU of all nodes", "s", r.cpu.Seconds(), 0),
		one("peak RSS of a node", "MiB", r.peak/mebi, 0),
	}
	if r.call > 0 {
		list = append(list, one("the first peer's time over ideal", "x", r.first.Seconds()/c.ideal().Seconds(), 0),
			one("time over ideal from the call of publish", "x", r.call.Seconds()/c.ideal().Seconds(), 0))
	}
	if r.pack != nil {
		list = append(list, one("spared by all nodes over size", "x", r.pack.spared/float64(c.size), 0),
			one("time in the compressors of all nodes", "s", r.pack.seconds, 0),
			one("answers for which there was none left", "", r.pack.spent, 0))
	}
	return list
}

// fanOut has meshd, and others on the same work in the same run, bring a file from one to all.
func fanOut(receivers int, others ...string) func(context.Context, *lab) ([]figure, error) {
	timeTarget := map[int]float64{8: 1.15, 16: 1.30}[receivers]
	return func(ctx context.Context, l *lab) (_ []figure, err error) {
		c, err := l.newCrew(ctx, receivers, fanSize, fanRate)
		if err != nil {
			return skippedOr(err, fmt.Sprintf("%d peers behind shaped links", receivers))
		}
		defer func() { err = errors.Join(err, c.close()) }()
		r, err := c.spread(ctx, 0)
		if err != nil {
			return nil, err
		}
		figures := r.figures(c, timeTarget, 1.02)
		for _, name := range others {
			more, err := c.other(ctx, name)
			if err != nil {
				return nil, err
			}
			figures = append(figures, more...)
		}
		return figures, nil
	}
}

// skippedOr turns what the machine lacks into a figure that says so.
func skippedOr(err error, name string) ([]figure, error) {
	if errors.Is(err, errors.ErrUnsupported) {
		return []figure{{name: name, remark: err.Error()}}, nil
	}
	return nil, err
}

// other has another program do the same work, if it is installed.
func (c *crew) other(ctx context.Context, name string) ([]figure, error) {
	if c.l.alone {
		return nil, nil
	}
	program, do := "rsync", func(ctx context.Context, source string) (*outcome, error) { return c.rsync(ctx, source) }
	switch name {
	case "aria2":
		program, do = "aria2c", c.aria2
	case "rsync -z":
		do = func(ctx context.Context, source string) (*outcome, error) { return c.rsync(ctx, source, "-z") }
	}
	if _, err := exec.LookPath(program); err != nil {
		return []figure{{name: fmt.Sprintf("%s: %s", c, name), remark: program + " is not installed (apt-get install " + name + ")"}}, nil
	}
	dir, err := c.folders()
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	source := filepath.Join(dir, "source")
	if err := c.prepare(source); err != nil {
		return nil, err
	}
	r, err := do(ctx, source)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return r.figures(c, 0, 0), nil
}

// spread publishes a file at the first node of a fresh mesh that all others want, and waits for all but the last few.
func (c *crew) spread(ctx context.Context, few int) (_ *outcome, err error) {
	m, err := c.mesh(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	source := m.path("source")
	if err := c.prepare(source); err != nil {
		return nil, err
	}
	t, err := c.offer(ctx, m, source)
	if err != nil {
		return nil, err
	}
	if err := t.placed(ctx, m.nodes[1:len(m.nodes)-few]); err != nil {
		return nil, err
	}
	return t.outcome(ctx)
}

// mesh starts a node on each host and waits until all know each other and all but the first want "doc".
func (c *crew) mesh(ctx context.Context) (*mesh, error) {
	hosts := map[string]*host{}
	for _, h := range c.hosts {
		hosts[h.name] = h
	}
	m, err := c.l.newMeshOn(ctx, hosts, c.hosts[0].name, c.flags()...)
	if err != nil {
		return nil, err
	}
	if err := c.gather(ctx, m); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (c *crew) gather(ctx context.Context, m *mesh) error {
	for _, h := range c.hosts[1:] {
		token, err := m.nodes[0].door.Invite(ctx, control.InviteRequest{Name: h.name, TTLSeconds: 600, Uses: 1})
		if err != nil {
			return err
		}
		flags := append([]string{"--name", h.name, "--join", token}, c.flags()...)
		if disk := c.data[h.name]; disk != "" {
			if err := os.Symlink(disk, m.path(h.name)); err != nil {
				return err
			}
			flags = append(flags, "--work-dir", m.path(h.name+"-work"))
		}
		if _, err := m.start(ctx, h.name, flags...); err != nil {
			return err
		}
	}
	if err := m.publishScore(ctx, wantScore()); err != nil {
		return err
	}
	for i, n := range m.nodes {
		err := until(ctx, n.name+" knows all and waits for the artifact", 50*time.Millisecond, func() (bool, error) {
			if alive, err := countAlive(ctx, n.door); err != nil || alive < len(m.nodes) || i == 0 {
				return err == nil && alive == len(m.nodes), err
			}
			list, err := n.door.Promises(ctx, "read.want.doc", "", false)
			return len(list) == 1 && list[0].Outcome == "waiting", err
		})
		if err != nil {
			return fmt.Errorf("%w: %s", err, n.Tail())
		}
	}
	return m.calm(ctx)
}

// calm waits until all nodes together use little of the processors: a tenth of one, and of what each takes that is idle.
func (m *mesh) calm(ctx context.Context) error {
	const look = 500 * time.Millisecond
	few := 0.1 + 0.01*float64(len(m.nodes))
	var pids []int
	for _, n := range m.nodes {
		pids = append(pids, n.PID())
	}
	last, err := cpuOfAll(pids)
	for err == nil {
		if err = wait(ctx, look); err != nil {
			break
		}
		var now time.Duration
		if now, err = cpuOfAll(pids); err != nil {
			break
		}
		if (now - last).Seconds() < few*look.Seconds() {
			return nil
		}
		last = now
	}
	return fmt.Errorf("the nodes do not come to rest: %w", err)
}

// A trial is one artifact on its way.
type trial struct {
	c      *crew
	m      *mesh
	source string
	called time.Time // when publish was
	said   time.Time // when the artifact was announced; after published
	first  time.Time // when the first node had placed it
	ended  time.Time
	before []time.Duration // processor time of each node
	sent   float64         // by the origin, before
	answer chan error
}

// offer begins to publish source as "doc": the call ends when it is announced and, within limits, copied.
func (c *crew) offer(ctx context.Context, m *mesh, source string) (*trial, error) {
	t := &trial{c: c, m: m, source: source, answer: make(chan error, 1)}
	for _, n := range m.nodes {
		used, err := cpuOf(n.PID())
		if err != nil {
			return nil, err
		}
		t.before = append(t.before, used)
	}
	was, err := c.hosts[0].traffic(ctx)
	if err != nil {
		return nil, err
	}
	t.sent, t.called = was.sent, time.Now()
	r, w := io.Pipe()
	go func() { w.CloseWithError(control.Pack(w, source, nil)) }()
	go func() {
		a, err := m.nodes[0].door.Publish(ctx, "doc", "", r, nil)
		_ = r.Close()
		t.said = a.PublishedAt
		t.answer <- err
	}()
	return t, nil
}

// published waits for the answer to the call; it is called once.
func (t *trial) published() error { return <-t.answer }

// placed waits until nodes have placed it and the call has been answered, and then looks that it is what was published.
func (t *trial) placed(ctx context.Context, nodes []*node) error {
	left := slices.Clone(nodes)
	err := until(ctx, "all have placed it", readTime, func() (bool, error) {
		left = slices.DeleteFunc(left, func(n *node) bool {
			_, err := os.Stat(t.m.path(n.name, "work", "doc"))
			if err == nil && t.first.IsZero() {
				t.first = time.Now()
			}
			return err == nil
		})
		return len(left) == 0, nil
	})
	t.ended = time.Now()
	err = errors.Join(err, t.published())
	for _, n := range left {
		err = errors.Join(err, fmt.Errorf("%s has not placed it: %s", n.name, n.Tail()))
	}
	if err != nil {
		return err
	}
	for _, n := range nodes {
		err = errors.Join(err, alike(t.source, t.m.path(n.name, "work", "doc")))
	}
	return err
}

// outcome adds up what it took; a node that was killed has no part in it.
func (t *trial) outcome(ctx context.Context) (*outcome, error) {
	r := &outcome{who: "meshd", took: t.ended.Sub(t.said), first: t.first.Sub(t.said), call: t.ended.Sub(t.called)}
	now, err := t.c.hosts[0].traffic(ctx)
	if err != nil {
		return nil, err
	}
	r.egress = now.sent - t.sent
	for i, n := range t.m.nodes {
		select {
		case <-n.Done():
			continue
		default:
		}
		used, err := cpuOf(n.PID())
		if err != nil {
			return nil, err
		}
		peak, err := peakOf(n.PID())
		if err != nil {
			return nil, err
		}
		r.cpu += used - t.before[i]
		r.peak = max(r.peak, peak)
	}
	if t.c.count {
		r.pack, err = t.c.packing(ctx)
	}
	return r, err
}

// alike compares two files by their digests.
func alike(want, got string) error {
	sums := make([][]byte, 2)
	for i, path := range []string{want, got} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		sums[i] = h.Sum(nil)
	}
	if !bytes.Equal(sums[0], sums[1]) {
		return fmt.Errorf("%s is not what was sent", got)
	}
	return nil
}
