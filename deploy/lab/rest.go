package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

const (
	idleTime  = 30 * time.Second
	calmTime  = 15 * time.Second // before it: statuses go out, syncs come to rest
	adverts   = 10_000
	atOnce    = 32 // publishes under way
	passTime  = 2 * time.Second
	passCount = 5
	mebi      = 1 << 20
)

// measurePasses looks at what it costs to find that all is kept: at start, and again and again.
func measurePasses(ctx context.Context, l *lab) ([]figure, error) {
	first, later := map[int]time.Duration{}, map[int]time.Duration{}
	for _, n := range []int{1, 1000, watchedFiles} {
		var err error
		if first[n], later[n], err = l.pass(ctx, n); err != nil {
			return nil, fmt.Errorf("%d files: %w", n, err)
		}
	}
	net := func(of map[int]time.Duration, n int) float64 { return (of[n] - of[1]).Seconds() }
	one := func(name, unit string, v, target float64) figure {
		return figure{name: name, unit: unit, values: []float64{v}, target: target}
	}
	return []figure{
		one("first pass over 1,000 kept files, CPU beyond one file's", "s", net(first, 1000), 0.05),
		one("  the whole start with 1,000 files, CPU", "s", first[1000].Seconds(), 0),
		one("  the whole start with 1 file, CPU", "s", first[1].Seconds(), 0),
		one("later pass over 1,000 kept files, CPU", "s", net(later, 1000), 0.01),
		one("first pass over 10,000 over that of 1,000", "x", net(first, watchedFiles)/net(first, 1000), 11),
		one("later pass over 10,000 over that of 1,000", "x", net(later, watchedFiles)/net(later, 1000), 11),
	}, nil
}

// pass starts a node with n kept files and returns the processor time of its start, and of one later look
// at all of them.
func (l *lab) pass(ctx context.Context, n int) (first, later time.Duration, err error) {
	m, err := l.newFiles(ctx, n, "1h")
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if first, err = m.nodes[0].settled(ctx); err != nil {
		return 0, 0, err
	}
	if err := m.allKept(ctx); err != nil {
		return 0, 0, err
	}
	again, err := l.newFiles(ctx, n, passTime.String())
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, again.close()) }()
	if err := wait(ctx, calmTime); err != nil {
		return 0, 0, err
	}
	used, err := again.used(ctx, passCount*passTime)
	return first, used / passCount, err
}

// used is the processor time of all nodes in the next d.
func (m *mesh) used(ctx context.Context, d time.Duration) (time.Duration, error) {
	pids, err := m.pids(ctx)
	if err != nil {
		return 0, err
	}
	before, err := cpuOfAll(pids)
	if err != nil {
		return 0, err
	}
	if err := wait(ctx, d); err != nil {
		return 0, err
	}
	after, err := cpuOfAll(pids)
	return after - before, err
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// measureIdle leaves the four nodes of the pipeline alone.
func measureIdle(ctx context.Context, l *lab) (_ []figure, err error) {
	m, err := l.newPostcards(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := wait(ctx, calmTime); err != nil {
		return nil, err
	}
	pids, err := m.pids(ctx)
	if err != nil {
		return nil, err
	}
	wire := figure{name: "idle node of 4: TCP and UDP sent, headers included", unit: "B/s", target: 230, remark: l.noWire}
	before := 0.0
	if l.wire {
		if before, err = wireBytes(); err != nil {
			return nil, err
		}
	}
	used, err := m.used(ctx, idleTime)
	if err != nil {
		return nil, err
	}
	if l.wire {
		after, err := wireBytes()
		if err != nil {
			return nil, err
		}
		wire.values = []float64{(after - before) / idleTime.Seconds() / float64(len(pids))}
	}
	cpu := figure{name: "idle node of 4: CPU", unit: "%", target: 0.1}
	cpu.values = []float64{100 * used.Seconds() / idleTime.Seconds() / float64(len(pids))}
	rss := figure{name: "idle node of 4: RSS", unit: "MiB", target: 32}
	for _, pid := range pids {
		total, _, err := rssOf(pid)
		if err != nil {
			return nil, err
		}
		rss.values = append(rss.values, total/mebi)
	}
	return []figure{cpu, wire, rss}, nil
}

// measureAdverts fills the catalog of two nodes.
func measureAdverts(ctx context.Context, l *lab) (_ []figure, err error) {
	m, err := l.newPair(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	began := time.Now()
	if err := m.publishMany(ctx, adverts); err != nil {
		return nil, err
	}
	took := time.Since(began)
	last := fmt.Sprintf("many/%d", adverts-1)
	if err := m.nodes[1].local(ctx, last, 1); err != nil {
		return nil, err
	}
	if _, err := m.nodes[1].settled(ctx); err != nil {
		return nil, err
	}
	rss := figure{name: "RSS with 10,000 adverts, all held", unit: "MiB", target: 32}
	anonymous := figure{name: "  of it not pages of files", unit: "MiB"}
	for _, n := range m.nodes {
		total, anon, err := rssOf(n.PID())
		if err != nil {
			return nil, err
		}
		rss.values = append(rss.values, total/mebi)
		anonymous.values = append(anonymous.values, anon/mebi)
	}
	return []figure{rss, anonymous, {name: "  publishing them, 32 at once", unit: "s", values: []float64{took.Seconds()}}}, nil
}

// publishMany publishes n artifacts of a few bytes each.
func (m *mesh) publishMany(ctx context.Context, n int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	next := make(chan int)
	for w := range atOnce {
		wg.Go(func() {
			source := m.path(fmt.Sprintf("source-%d", w))
			for i := range next {
				err := os.WriteFile(source, fileText(i), 0o644)
				if err == nil {
					err = m.nodes[0].publish(ctx, fmt.Sprintf("many/%d", i), source)
				}
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	for i := 0; i < n && ctx.Err() == nil; i++ {
		next <- i
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}

var catalogFigure = regexp.MustCompile(`^\s+\w+_test\.go:\d+: (.*)$`)

// measureCatalog quotes the figures that the tests of mesh/catalog print.
func measureCatalog(ctx context.Context, l *lab) ([]figure, error) {
	dir, err := os.MkdirTemp(l.dir, "catalog-")
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, l.tests, "-test.v", "-test.run", "TestAThousandOfAHundredThousand|TestEqualCatalogsCostLittle")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	var figures []figure
	for line := range bytes.SplitSeq(out, []byte("\n")) {
		if m := catalogFigure.FindSubmatch(line); m != nil {
			figures = append(figures, figure{name: "catalog: " + strings.TrimSpace(string(m[1])), quoted: true})
		}
	}
	if len(figures) == 0 {
		return nil, errors.New("the tests of mesh/catalog printed no figure")
	}
	return figures, os.RemoveAll(dir)
}

// measureSizes weighs the programs as they are shipped.
func measureSizes(_ context.Context, l *lab) ([]figure, error) {
	var out []figure
	for path, target := range map[string]float64{l.meshd: 20, l.ctl: 10} {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		out = append(out, figure{name: "stripped " + filepath.Base(path), unit: "MB", values: []float64{float64(info.Size()) / 1e6}, target: target})
	}
	return out, nil
}
