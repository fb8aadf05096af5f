package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	smallFiles    = 10_000
	smallFileSize = 4 << 10
	newsPeers     = 30
	newsCount     = 50
	newsEvery     = time.Second // between two of them, where one does not follow the other at once
)

// measureSmall brings a tree of many small files to one receiver, as rsync does without crypto.
func measureSmall(ctx context.Context, l *lab) (_ []figure, err error) {
	const name = "10,000 files of 4 KiB to one peer"
	c, err := l.newCrew(ctx, 1, smallFiles*smallFileSize, 0)
	if err != nil {
		return skippedOr(err, name)
	}
	defer func() { err = errors.Join(err, c.close()) }()
	dir, err := c.folders("tree")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	tree := filepath.Join(dir, "tree")
	if err := smallTree(tree); err != nil {
		return nil, err
	}
	m, err := c.mesh(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	t, err := c.offer(ctx, m, tree)
	if err != nil {
		return nil, err
	}
	placed := m.path("p1", "work", "doc")
	if err := exists(ctx, placed); err != nil {
		return nil, err
	}
	t.ended = time.Now()
	if err := t.published(); err != nil {
		return nil, err
	}
	r, err := t.outcome(ctx)
	if err != nil {
		return nil, err
	}
	if err := command(ctx, "diff", "-r", tree, placed+"/"); err != nil {
		return nil, err
	}
	figures := []figure{
		single(name+": meshd, announced to placed", "s", r.took.Seconds(), 0),
		single(name+": meshd, call of publish to placed", "s", r.call.Seconds(), 0),
		single(name+": meshd, CPU of both", "s", r.cpu.Seconds(), 0),
		single(name+": meshd, peak RSS of a node", "MiB", r.peak/mebi, 0),
		single(name+": meshd, wire over size", "x", r.egress/float64(c.size), 0),
	}
	ratio := figure{name: name + ": meshd, announced to placed, over rsync without crypto", unit: "x", target: 1.5, remark: "rsync is not installed"}
	whole := figure{name: name + ": the same with the call of publish, which stores it", unit: "x", remark: ratio.remark}
	if _, err := exec.LookPath("rsync"); err == nil {
		other, err := c.rsync(ctx, tree)
		if err != nil {
			return nil, fmt.Errorf("rsync: %w", err)
		}
		figures = append(figures, single(name+": rsync", "s", other.took.Seconds(), 0), single(name+": rsync, CPU of both", "s", other.cpu.Seconds(), 0))
		ratio.remark, ratio.values = "", []float64{r.took.Seconds() / other.took.Seconds()}
		whole.remark, whole.values = "", []float64{r.call.Seconds() / other.took.Seconds()}
	}
	return append(figures, ratio, whole), nil
}

func smallTree(dir string) error {
	data := make([]byte, smallFileSize)
	for i := range smallFiles {
		folder := filepath.Join(dir, fmt.Sprintf("d%02d", i%100))
		if i < 100 {
			if err := os.Mkdir(folder, 0o755); err != nil {
				return err
			}
		}
		_, _ = rand.Read(data) // never fails
		if err := os.WriteFile(filepath.Join(folder, fileKey(i)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// measureNews publishes small files at one of many nodes and waits for each at every other: one a second, and one as
// soon as the last is everywhere, which measures what all nodes together need of the machine's processors.
func measureNews(ctx context.Context, l *lab) (_ []figure, err error) {
	name := fmt.Sprintf("publish to placed, 10 KiB, at each of %d nodes", newsPeers)
	c, err := l.newCrew(ctx, newsPeers, smallSize, 0)
	if err != nil {
		return skippedOr(err, name)
	}
	defer func() { err = errors.Join(err, c.close()) }()
	m, err := c.mesh(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	before := make([]os.FileInfo, len(m.nodes))
	var figures []figure
	for _, every := range []time.Duration{newsEvery, 0} {
		var values []float64
		began := time.Now()
		for range newsCount {
			next := time.Now().Add(every)
			more, err := m.tellAll(ctx, before)
			if err != nil {
				return nil, err
			}
			values = append(values, more...)
			if err := wait(ctx, time.Until(next)); err != nil {
				return nil, err
			}
		}
		rate := newsCount / time.Since(began).Seconds()
		each, target := fmt.Sprintf("%s, %.2g a second", name, rate), 1000.0
		if every == 0 {
			each, target = fmt.Sprintf("%s, without a pause (%.2g a second)", name, rate), 0
		}
		figures = append(figures,
			figure{name: each + ", p50", unit: "ms", values: values},
			figure{name: each + ", p99", unit: "ms", values: values, at: 0.99, target: target})
	}
	return figures, nil
}

// tellAll returns the time from the call of publish to the file at each node (ms); before is what lies there.
func (m *mesh) tellAll(ctx context.Context, before []os.FileInfo) ([]float64, error) {
	data := make([]byte, smallSize)
	_, _ = rand.Read(data) // never fails
	source := m.path("source")
	if err := os.WriteFile(source, data, 0o644); err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- m.nodes[0].publish(ctx, "doc", source) }()
	var values []float64
	placed := make([]bool, len(m.nodes))
	err := until(ctx, "all have placed it", time.Millisecond, func() (bool, error) {
		for i, n := range m.nodes[1:] {
			path := m.path(n.name, "work", "doc")
			info, err := os.Stat(path)
			if placed[i] || err != nil || before[i] != nil && os.SameFile(info, before[i]) {
				continue // not there yet
			}
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, data) {
				return false, fmt.Errorf("%s placed something else: %v", n.name, err)
			}
			placed[i], before[i] = true, info
			values = append(values, time.Since(began).Seconds()*1000)
		}
		return len(values) == len(m.nodes)-1, nil
	})
	return values, errors.Join(err, <-done)
}
