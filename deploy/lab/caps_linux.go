package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"meshd/agent/control"
)

const (
	capRate = 1_000_000 // bytes a second
	capSize = 12 << 20
	capTime = 6 * time.Second // looked at, from the second megabyte on
)

// measureCaps caps one end of a fast link, then the other, and looks at the link; meanwhile a small artifact comes.
func measureCaps(ctx context.Context, l *lab) (_ []figure, err error) {
	c, err := l.newCrew(ctx, 1, capSize, 0)
	if err != nil {
		return skippedOr(err, "a cap of 1 MB/s")
	}
	defer func() { err = errors.Join(err, c.close()) }()
	m, err := c.mesh(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	score := strings.Replace(wantScore(), "1.0.0", "1.0.1", 1) + noteScore
	if err := m.publishScore(ctx, score); err != nil {
		return nil, err
	}
	rate, none := int64(capRate), int64(0)
	egress, first, err := c.capped(ctx, m, 0, control.LimitChange{Class: control.ClassAll, Egress: &rate, Ingress: &none})
	if err != nil {
		return nil, fmt.Errorf("egress: %w", err)
	}
	if _, err := m.nodes[0].door.SetLimit(ctx, control.LimitChange{Reset: true}); err != nil {
		return nil, err
	}
	ingress, second, err := c.capped(ctx, m, 1, control.LimitChange{Class: control.ClassLAN, Egress: &none, Ingress: &rate})
	if err != nil {
		return nil, fmt.Errorf("ingress: %w", err)
	}
	return []figure{
		single("cap of 1 MB/s on what goes out: bytes on the link over the cap", "x", egress, 1.1),
		single("  10 KiB published meanwhile to placed, that cap", "ms", first, 0),
		single("cap of 1 MB/s on what comes in: bytes on the link over the cap", "x", ingress, 1.1),
		single("  10 KiB published meanwhile to placed, this cap", "ms", second, 0),
	}, nil
}

const noteScore = `
part "note" {
  role = "reader"
  want "note" {
    name  = "note"
    place = "note"
  }
}
`

// capped puts a cap on node i, publishes a large file, and returns the rate on the link over the cap, and how long a
// small file took meanwhile (ms).
func (c *crew) capped(ctx context.Context, m *mesh, i int, change control.LimitChange) (rate, small float64, err error) {
	if _, err := m.nodes[i].door.SetLimit(ctx, change); err != nil {
		return 0, 0, err
	}
	source, note := m.path("source"), m.path("note")
	data := make([]byte, c.size)
	_, _ = rand.Read(data) // never fails
	if err := os.WriteFile(source, data, 0o644); err != nil {
		return 0, 0, err
	}
	from, err := c.hosts[1].traffic(ctx)
	if err != nil {
		return 0, 0, err
	}
	t, err := c.offer(ctx, m, source)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, t.published()) }()
	if err := c.hosts[1].has(ctx, from, capRate); err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if from, err = c.hosts[1].traffic(ctx); err != nil {
		return 0, 0, err
	}
	text := fmt.Appendf(nil, "%d %x", i, data[:smallSize/2])
	if err := os.WriteFile(note, text, 0o644); err != nil {
		return 0, 0, err
	}
	answer := make(chan error, 1)
	go func() { answer <- m.nodes[0].publish(ctx, "note", note) }()
	err = appears(ctx, m.path("p1", "work", "note"), text)
	small = time.Since(began).Seconds() * 1000
	if err = errors.Join(err, <-answer); err != nil {
		return 0, 0, err
	}
	if err := wait(ctx, capTime-time.Since(began)); err != nil {
		return 0, 0, err
	}
	to, err := c.hosts[1].traffic(ctx)
	took := time.Since(began)
	if err != nil {
		return 0, 0, err
	}
	return (to.received - from.received) / took.Seconds() / capRate, small, appears(ctx, m.path("p1", "work", "doc"), data)
}
