package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	resumeKills = 20
	resumeRate  = 100      // Mbit/s
	fullBytes   = 64 << 20 // for which a disk has room at first
	diskBytes   = 2 * fullBytes
	spareBytes  = 2 << 20               // left free when it is full: a node has room to tell of it
	pollTime    = 20 * time.Millisecond // between two looks at an interface's counters
)

// has waits until the host has received bytes since a moment.
func (h *host) has(ctx context.Context, since traffic, bytes float64) error {
	return until(ctx, fmt.Sprintf("%s has received %.0f bytes", h.name, bytes), pollTime, func() (bool, error) {
		now, err := h.traffic(ctx)
		return now.received-since.received >= bytes, err
	})
}

// measureKilled kills one of the receivers, each of which is the first fetcher of its share, half way.
func measureKilled(ctx context.Context, l *lab) ([]figure, error) { return l.killed(ctx, 8, fanSize) }

func (l *lab) killed(ctx context.Context, receivers, size int) (_ []figure, err error) {
	c, err := l.newCrew(ctx, receivers, size, fanRate)
	if err != nil {
		return skippedOr(err, "a first fetcher is killed half way")
	}
	defer func() { err = errors.Join(err, c.close()) }()
	m, err := c.mesh(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	source := m.path("source")
	if _, err := randomFile(source, c.size); err != nil {
		return nil, err
	}
	last := len(m.nodes) - 1
	since, err := c.hosts[last].traffic(ctx)
	if err != nil {
		return nil, err
	}
	t, err := c.offer(ctx, m, source)
	if err != nil {
		return nil, err
	}
	if err := c.hosts[last].has(ctx, since, float64(c.size)/2); err != nil {
		return nil, err
	}
	if err := m.nodes[last].Kill(); err != nil {
		return nil, err
	}
	if err := t.placed(ctx, m.nodes[1:last]); err != nil {
		return nil, err
	}
	r, err := t.outcome(ctx)
	if err != nil {
		return nil, err
	}
	r.who = "one killed half way"
	return r.figures(c, 0, 1+1.5/float64(receivers))[:2], nil
}

// measureSlow looks how much one slow receiver slows the others.
func measureSlow(ctx context.Context, l *lab) (_ []figure, err error) {
	c, err := l.newCrew(ctx, 8, fanSize, fanRate)
	if err != nil {
		return skippedOr(err, "one peer ten times slower")
	}
	defer func() { err = errors.Join(err, c.close()) }()
	alike, err := c.spread(ctx, 0)
	if err != nil {
		return nil, err
	}
	if err := c.hosts[8].shape(ctx, fanRate/10); err != nil {
		return nil, err
	}
	r, err := c.spread(ctx, 1)
	if err != nil {
		return nil, err
	}
	return []figure{
		single(c.String()+": one ten times slower, time of the others over that with all alike", "x", r.took.Seconds()/alike.took.Seconds(), 1.10),
		single(c.String()+": one ten times slower, origin egress over size till then", "x", r.egress/float64(c.size), 0),
	}, nil
}

// measureResume kills the receiver at random points, once an artifact.
func measureResume(ctx context.Context, l *lab) ([]figure, error) {
	return l.resume(ctx, resumeKills, fanSize)
}

func (l *lab) resume(ctx context.Context, kills, size int) (_ []figure, err error) {
	c, err := l.newCrew(ctx, 1, size, resumeRate)
	if err != nil {
		return skippedOr(err, "kill -9 of the receiver")
	}
	defer func() { err = errors.Join(err, c.close()) }()
	m, err := c.mesh(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	fetched := figure{name: fmt.Sprintf("kill -9 of the receiver, %d MiB at %d Mbit/s: bytes received in all over size, worst", size>>20, resumeRate), unit: "x", at: 1, target: 1.1}
	again := figure{name: "  from the new start to placed", unit: "s"}
	for i := range kills {
		data := make([]byte, size)
		_, _ = rand.NewChaCha8([32]byte{4, byte(i)}).Read(data) // never fails
		point := rand.New(rand.NewPCG(uint64(i), 5)).Float64() * 0.95
		bytes, took, err := c.killAt(ctx, m, data, point)
		if err != nil {
			return nil, fmt.Errorf("kill %d, at %.2f of the bytes: %w", i+1, point, err)
		}
		fetched.values = append(fetched.values, bytes/float64(size))
		again.values = append(again.values, took.Seconds())
	}
	return []figure{fetched, again}, nil
}

// killAt publishes data, kills the receiver when it has a part of them, starts it again and waits until all is placed.
func (c *crew) killAt(ctx context.Context, m *mesh, data []byte, part float64) (received float64, took time.Duration, err error) {
	source := m.path("source")
	if err := os.WriteFile(source, data, 0o644); err != nil {
		return 0, 0, err
	}
	since, err := c.hosts[1].traffic(ctx)
	if err != nil {
		return 0, 0, err
	}
	t, err := c.offer(ctx, m, source)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, t.published()) }()
	if err := c.hosts[1].has(ctx, since, part*float64(len(data))); err != nil {
		return 0, 0, err
	}
	if err := m.nodes[1].Kill(); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	n, err := m.start(ctx, m.nodes[1].name)
	if n != nil {
		m.nodes = append(m.nodes[:1], n)
	}
	if err != nil {
		return 0, 0, err
	}
	if err := appears(ctx, m.path(n.name, "work", "doc"), data); err != nil {
		return 0, 0, err
	}
	took = time.Since(began)
	now, err := c.hosts[1].traffic(ctx)
	return now.received - since.received, took, err
}

// measureFull fills the receiver's disk half way through a pull, and then makes room.
func measureFull(ctx context.Context, l *lab) (_ []figure, err error) {
	c, err := l.newCrew(ctx, 1, fullBytes, resumeRate)
	if err != nil {
		return skippedOr(err, "a disk that is full half way")
	}
	defer func() { err = errors.Join(err, c.close()) }()
	disk, err := c.folders()
	if err != nil {
		return nil, err
	}
	if err := unix.Mount("lab", disk, "tmpfs", 0, fmt.Sprintf("size=%d", diskBytes)); err != nil {
		return skippedOr(errors.Join(errors.ErrUnsupported, err), "a disk that is full half way")
	}
	defer func() { err = errors.Join(err, unix.Unmount(disk, 0), os.Remove(disk)) }()
	c.data = map[string]string{"p1": disk}
	m, err := c.mesh(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	return c.fill(ctx, m, disk)
}

// fill publishes, and fills the disk when half of it has come: the want fails and says so, a file elsewhere is still
// repaired, and once there is room the rest comes by itself.
func (c *crew) fill(ctx context.Context, m *mesh, disk string) (_ []figure, err error) {
	source, work := m.path("source"), m.path("p1-work")
	if err := m.publishScore(ctx, strings.Replace(wantScore(), "1.0.0", "1.0.1", 1)+fileScore); err != nil {
		return nil, err
	}
	if err := appears(ctx, filepath.Join(work, "note"), []byte("well\n")); err != nil {
		return nil, err
	}
	if _, err := randomFile(source, c.size); err != nil {
		return nil, err
	}
	since, err := c.hosts[1].traffic(ctx)
	if err != nil {
		return nil, err
	}
	t, err := c.offer(ctx, m, source)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.published()) }()
	if err := c.hosts[1].has(ctx, since, float64(c.size)/2); err != nil {
		return nil, err
	}
	filler := filepath.Join(disk, "filler")
	if err := occupy(filler); err != nil {
		return nil, err
	}
	began := time.Now()
	reason, err := m.nodes[1].failed(ctx, "read.want.doc")
	if err != nil {
		return nil, err
	}
	failed := single("disk full half way: from there to failed", "s", time.Since(began).Seconds(), 0)
	failed.remark = strings.ReplaceAll(reason, m.dir+"/", "")
	took, err := damage(ctx, filepath.Join(work, "note"), []byte("well\n"))
	if err != nil {
		return nil, fmt.Errorf("another promise while the disk is full: %w", err)
	}
	began = time.Now()
	if err := os.Remove(filler); err != nil {
		return nil, err
	}
	if err := exists(ctx, filepath.Join(work, "doc")); err != nil {
		return nil, err
	}
	room := single("  from room to placed, nobody asking", "s", time.Since(began).Seconds(), 0)
	now, err := c.hosts[1].traffic(ctx)
	if err != nil {
		return nil, err
	}
	return []figure{
		failed, single("  repair of another file meanwhile", "ms", took, 0), room,
		single("  bytes received in all over size", "x", (now.received-since.received)/float64(c.size), 0),
	}, alike(source, filepath.Join(work, "doc"))
}

// failed waits until a promise has failed, and returns why.
func (n *node) failed(ctx context.Context, address string) (reason string, err error) {
	err = until(ctx, n.name+" says that "+address+" failed", lookTime, func() (bool, error) {
		list, err := n.door.Promises(ctx, address, "", false)
		if len(list) == 1 {
			reason = list[0].Outcome + ": " + list[0].Reason
			return list[0].Outcome == "failed", err
		}
		return false, err
	})
	if err != nil {
		return "", fmt.Errorf("%w; it says %q", err, reason)
	}
	return reason, nil
}

// occupy fills a disk with a file, but for spareBytes.
func occupy(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	size, block := int64(0), make([]byte, 1<<20)
	for err == nil {
		var n int
		n, err = f.Write(block)
		size += int64(n)
	}
	if errors.Is(err, unix.ENOSPC) {
		err = f.Truncate(max(size-spareBytes, 0))
	}
	return errors.Join(err, f.Close())
}

const fileScore = `
part "note" {
  role = "reader"
  file "note" {
    path    = "note"
    content = "well\n"
  }
}
`

// measureQuick is the short form for .ci/run: the same parts, small.
func measureQuick(ctx context.Context, l *lab) ([]figure, error) {
	const receivers, size = 4, 8 << 20
	c, err := l.newCrew(ctx, receivers, size, fanRate)
	if err != nil {
		return skippedOr(err, "a few peers behind shaped links")
	}
	r, err := c.spread(ctx, 0)
	if err = errors.Join(err, c.close()); err != nil {
		return nil, err
	}
	figures := r.figures(c, 0, 0)
	for _, more := range []func() ([]figure, error){
		func() ([]figure, error) { return l.killed(ctx, receivers, size) },
		func() ([]figure, error) { return l.resume(ctx, 2, size) },
		func() ([]figure, error) { return measureFull(ctx, l) },
		func() ([]figure, error) { return l.text(ctx, 1, size, false) },
	} {
		f, err := more()
		if err != nil {
			return nil, err
		}
		figures = append(figures, f...)
	}
	return figures, nil
}
