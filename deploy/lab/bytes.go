package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"os"
	"time"

	"meshd/agent/control"
)

const (
	publishes = 1000
	smallSize = 10 << 10
	bigSize   = 256 << 20
)

// wantScore has all nodes but "a" place the artifact "doc" as "doc".
func wantScore() string {
	return `score "one" {
  version  = "1.0.0"
  language = 1
  why      = "One artifact, one hop"
}

role "reader" { when = node.name != "a" }

part "read" {
  role = "reader"
  want "doc" {
    name  = "doc"
    place = "doc"
  }
}
`
}

// newPair starts the nodes "a" and "b".
func (l *lab) newPair(ctx context.Context) (m *mesh, err error) {
	if m, err = l.newMesh(ctx, "a"); err != nil {
		return nil, err
	}
	if _, err = m.join(ctx, "b"); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// publish offers a file as name and returns when the node says it is durable and announced.
func (n *node) publish(ctx context.Context, name, path string) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(control.Pack(w, path, nil)) }()
	_, err := n.door.Publish(ctx, name, "", r, nil)
	_ = r.Close()
	return err
}

// measurePublish publishes small files at one node and waits for each to lie in the other's work folder.
func measurePublish(ctx context.Context, l *lab) (_ []figure, err error) {
	m, err := l.newPair(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := m.publishScore(ctx, wantScore()); err != nil {
		return nil, err
	}
	err = until(ctx, "b waits for the artifact", lookTime, func() (bool, error) {
		list, err := m.nodes[1].door.Promises(ctx, "read.want.doc", "", false)
		return len(list) == 1 && list[0].Outcome == "waiting", err
	})
	if err != nil {
		return nil, err
	}
	var values, syncs []float64
	for range publishes {
		took, err := m.publishSmall(ctx)
		if err != nil {
			return nil, err
		}
		synced, err := m.syncPage()
		if err != nil {
			return nil, err
		}
		values, syncs = append(values, took), append(syncs, synced)
	}
	const name = "publish to placed, 10 KiB, one hop"
	return []figure{
		{name: name + ", p50", unit: "ms", values: values, target: 10},
		{name: name + ", p99", unit: "ms", values: values, at: 0.99, target: 50},
		{name: "  4 KiB appended to a file there and synced, after each", unit: "ms", values: syncs},
	}, nil
}

// syncPage measures what the disk takes to keep 4 KiB more of a file (ms).
func (m *mesh) syncPage() (_ float64, err error) {
	f, err := os.OpenFile(m.path("page"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	began := time.Now()
	if _, err := f.Write(make([]byte, 4<<10)); err != nil {
		return 0, err
	}
	err = f.Sync()
	return time.Since(began).Seconds() * 1000, err
}

// publishSmall measures from the start of the call to the appearance of the file (ms).
func (m *mesh) publishSmall(ctx context.Context) (float64, error) {
	data := make([]byte, smallSize)
	if _, err := rand.Read(data); err != nil {
		return 0, err
	}
	source, placed := m.path("source"), m.path("b", "work", "doc")
	if err := os.WriteFile(source, data, 0o644); err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	began := time.Now()
	go func() { done <- m.nodes[0].publish(ctx, "doc", source) }()
	err := appears(ctx, placed, data)
	took := time.Since(began).Seconds() * 1000
	return took, errors.Join(err, <-done)
}

// appears waits until a file holds data; it reads it only when another file is there.
func appears(ctx context.Context, path string, data []byte) error {
	var before os.FileInfo
	return until(ctx, path+" is placed", spinTime, func() (bool, error) {
		info, err := os.Stat(path)
		if err != nil || before != nil && os.SameFile(info, before) {
			if errors.Is(err, os.ErrNotExist) {
				err = nil
			}
			return false, err
		}
		before = info
		got, err := os.ReadFile(path)
		return bytes.Equal(got, data), err
	})
}

// randomFile writes size bytes that no compression shortens and that are alike in every run.
func randomFile(path string, size int) ([]byte, error) {
	data := make([]byte, size)
	_, _ = mrand.NewChaCha8([32]byte{1}).Read(data) // never fails
	return data, os.WriteFile(path, data, 0o644)
}

// local waits until a node holds all bytes of the version of an artifact.
func (n *node) local(ctx context.Context, name string, counter uint64) error {
	return until(ctx, n.name+" holds "+name, 25*time.Millisecond, func() (bool, error) {
		list, err := n.door.Artifacts(ctx, name, false)
		return len(list) == 1 && list[0].Local && list[0].Counter == counter, err
	})
}

// measureTransfer has b pull 256 MiB from a, once as a mere copy and once more to place them, and holds the
// processor time of both against TLS and SHA-256 alone.
func measureTransfer(ctx context.Context, l *lab) (_ []figure, err error) {
	m, err := l.newPair(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	a, b := m.nodes[0], m.nodes[1]
	if _, err := randomFile(m.path("source"), bigSize); err != nil {
		return nil, err
	}
	pids := []int{a.PID(), b.PID()}
	if err := b.door.Offline(ctx, 0, true); err != nil {
		return nil, err
	}
	if err := a.publish(ctx, "doc", m.path("source")); err != nil {
		return nil, err
	}
	if _, err := a.settled(ctx); err != nil {
		return nil, err
	}
	raw, err := rawTransfer(ctx, bigSize)
	if err != nil {
		return nil, err
	}
	before, err := cpuOfAll(pids)
	if err != nil {
		return nil, err
	}
	idle, err := peaks(pids, forgetPeak)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := b.door.Offline(ctx, 0, false); err != nil {
		return nil, err
	}
	if err := b.local(ctx, "doc", 1); err != nil {
		return nil, err
	}
	wall := time.Since(began)
	pulled, err := cpuOfAll(pids)
	if err != nil {
		return nil, err
	}
	most, err := peaks(pids, nil)
	if err != nil {
		return nil, err
	}
	began = time.Now()
	if err := m.publishScore(ctx, wantScore()); err != nil {
		return nil, err
	}
	err = until(ctx, "b has placed it", 5*time.Millisecond, func() (bool, error) {
		info, err := os.Stat(m.path("b", "work", "doc"))
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return err == nil && info.Size() == bigSize, err
	})
	if err != nil {
		return nil, err
	}
	placing := time.Since(began)
	placed, err := cpuOfAll(pids)
	if err != nil {
		return nil, err
	}
	one := func(name, unit string, v, target float64) figure {
		return figure{name: name, unit: unit, values: []float64{v}, target: target}
	}
	return []figure{
		one("256 MiB one to one, CPU of both over raw TLS + SHA-256", "x", (pulled-before).Seconds()/raw.Seconds(), 1.7),
		one("256 MiB one to one, RSS above idle, sender", "MiB", (most[0]-idle[0])/(1<<20), 32),
		one("256 MiB one to one, RSS above idle, receiver", "MiB", (most[1]-idle[1])/(1<<20), 32),
		one("  CPU of both", "s", (pulled - before).Seconds(), 0),
		one("  raw TLS 1.3 + SHA-256, CPU of both ends", "s", raw.Seconds(), 0),
		one("  wall, the link's return included", "s", wall.Seconds(), 0),
		one("  CPU to place it besides", "s", (placed - pulled).Seconds(), 0),
		one("  wall to place it, the score's way included", "s", placing.Seconds(), 0),
	}, nil
}

// peaks are the most memory that processes held; forget, if not nil, makes what they hold now the new peak.
func peaks(pids []int, forget func(pid int) error) ([]float64, error) {
	var out []float64
	for _, pid := range pids {
		if forget != nil {
			if err := forget(pid); err != nil {
				return nil, err
			}
		}
		p, err := peakOf(pid)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// measureChunks publishes a file, a version of it with small changes all over, and one with something put
// in front, and counts what goes over the wire.
func measureChunks(ctx context.Context, l *lab) (_ []figure, err error) {
	spread := figure{name: "256 MiB, 1 % changed in 20 places: bytes on the wire", unit: "MB", target: 6}
	front := figure{name: "256 MiB, 4 KiB put in front: bytes on the wire", unit: "KB", target: 100}
	if !l.wire {
		spread.remark, front.remark = l.noWire, l.noWire
		return []figure{spread, front}, nil
	}
	m, err := l.newPair(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	source := m.path("source")
	data, err := randomFile(source, bigSize)
	if err != nil {
		return nil, err
	}
	if _, err := m.pullNext(ctx, source, 1); err != nil {
		return nil, err
	}
	const places = 20
	change := bigSize / 100 / places
	for i := range places {
		at := i*(bigSize/places) + 12345
		_, _ = mrand.NewChaCha8([32]byte{2, byte(i)}).Read(data[at : at+change])
	}
	if err := os.WriteFile(source, data, 0o644); err != nil {
		return nil, err
	}
	n, err := m.pullNext(ctx, source, 2)
	if err != nil {
		return nil, err
	}
	spread.values = []float64{n / 1e6}
	more := make([]byte, 4<<10)
	_, _ = mrand.NewChaCha8([32]byte{3}).Read(more)
	if err := os.WriteFile(source, append(more, data...), 0o644); err != nil {
		return nil, err
	}
	if n, err = m.pullNext(ctx, source, 3); err != nil {
		return nil, err
	}
	front.values = []float64{n / 1e3}
	return []figure{spread, front}, nil
}

// pullNext publishes source at a and returns what went over the wire until b held it: gossip, headers and
// acknowledgements included.
func (m *mesh) pullNext(ctx context.Context, source string, counter uint64) (float64, error) {
	before, err := wireBytes()
	if err != nil {
		return 0, err
	}
	if err := m.nodes[0].publish(ctx, "doc", source); err != nil {
		return 0, err
	}
	if err := m.nodes[1].local(ctx, "doc", counter); err != nil {
		return 0, fmt.Errorf("version %d: %w", counter, err)
	}
	after, err := wireBytes()
	return after - before, err
}
