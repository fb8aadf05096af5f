package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	watchedFiles = 10_000
	damages      = 100
	kills        = 20
	repairTime   = 10 * time.Second
	spinTime     = 100 * time.Microsecond // between two looks at a file
)

// filesScore promises n files below "f" of a node's work folder, looked at every `every`.
func filesScore(n int, every string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "score \"files\" {\n  version = \"1.0.0\"\n  language = 1\n  why = \"Many files\"\n}\n\nlocals {\n  keys = [")
	for i := range n {
		fmt.Fprintf(&b, "%q, ", fileKey(i))
	}
	fmt.Fprintf(&b, "]\n}\n\npart \"many\" {\n  file \"f\" {\n    for_each = local.keys\n    every = %q\n    jitter = \"0%%\"\n", every)
	fmt.Fprintf(&b, "    path = \"f/${each.key}\"\n    content = \"this is ${each.key}\\n\"\n  }\n}\n")
	return b.String()
}

func fileKey(i int) string { return fmt.Sprintf("k%05d", i) }

func fileText(i int) []byte { return []byte("this is " + fileKey(i) + "\n") }

// newFiles starts a node that finds n promised files kept already.
func (l *lab) newFiles(ctx context.Context, n int, every string) (m *mesh, err error) {
	if m, err = l.newMesh(ctx, "host"); err != nil {
		return nil, err
	}
	// It has a work folder now, and plays nothing yet: stop it, fill the folder, start it with the score.
	if err := m.nodes[0].Stop(); err != nil {
		return nil, errors.Join(err, m.close())
	}
	m.nodes = nil
	folder := m.path("host", "work", "f")
	err = os.MkdirAll(folder, 0o755)
	for i := 0; i < n && err == nil; i++ {
		err = os.WriteFile(filepath.Join(folder, fileKey(i)), fileText(i), 0o644)
	}
	score := m.path("score")
	if err == nil {
		err = os.MkdirAll(score, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(score, "score.hcl"), []byte(filesScore(n, every)), 0o644)
	}
	if err == nil {
		_, err = m.start(ctx, "host", "--policy", score)
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// settled waits until a node has used next to no processor for a while and returns what it used till then.
func (n *node) settled(ctx context.Context) (time.Duration, error) {
	const look, quiet, calm = 100 * time.Millisecond, 5 * time.Millisecond, 5
	last, err := cpuOf(n.PID())
	still := 0
	for still < calm && err == nil {
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%s does not come to rest: %w", n.name, ctx.Err())
		case <-time.After(look):
		}
		var now time.Duration
		if now, err = cpuOf(n.PID()); err != nil {
			break
		}
		if still++; now-last > quiet {
			still = 0
		}
		last = now
	}
	return last, err
}

// measureDamage overwrites promised files, one after the other, and waits until each is whole again.
func measureDamage(ctx context.Context, l *lab) (_ []figure, err error) {
	m, err := l.newFiles(ctx, watchedFiles, "1h")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	if _, err := m.nodes[0].settled(ctx); err != nil {
		return nil, err
	}
	if err := m.allKept(ctx); err != nil {
		return nil, err
	}
	var values []float64
	order := rand.New(rand.NewPCG(1, 2))
	for range damages {
		i := order.IntN(watchedFiles)
		took, err := damage(ctx, m.path("host", "work", "f", fileKey(i)), fileText(i))
		if err != nil {
			return nil, err
		}
		values = append(values, took)
	}
	name := "damage to repair, a file among 10,000 watched"
	return []figure{
		{name: name + ", p50", unit: "ms", values: values, target: 5},
		{name: name + ", p95", unit: "ms", values: values, at: 0.95, target: 5},
	}, nil
}

// damage returns how long a file stayed wrong (ms).
func damage(ctx context.Context, path string, want []byte) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, repairTime)
	defer cancel()
	began := time.Now()
	if err := os.WriteFile(path, []byte("vandals were here\n"), 0o644); err != nil {
		return 0, err
	}
	err := until(ctx, path+" is repaired", spinTime, func() (bool, error) {
		got, err := os.ReadFile(path)
		return bytes.Equal(got, want), err
	})
	took := time.Since(began).Seconds() * 1000
	// The next damage begins from rest.
	select {
	case <-ctx.Done():
	case <-time.After(30 * time.Millisecond):
	}
	return took, err
}

// measureProcess kills promised processes, each once, and waits for the successor's word.
func measureProcess(ctx context.Context, l *lab) (_ []figure, err error) {
	m, err := l.newMesh(ctx, "host")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	pids := m.path("pids")
	if err := os.MkdirAll(pids, 0o755); err != nil {
		return nil, err
	}
	if err := m.publishScore(ctx, processScore(pids)); err != nil {
		return nil, err
	}
	var values []float64
	for i := range kills {
		took, err := killed(ctx, filepath.Join(pids, fileKey(i)))
		if err != nil {
			return nil, err
		}
		values = append(values, took)
	}
	return []figure{{name: "kill -9 to a new process", unit: "ms", values: values, target: 100}}, nil
}

func processScore(pids string) string {
	var keys []string
	for i := range kills {
		keys = append(keys, strconv.Quote(fileKey(i)))
	}
	return fmt.Sprintf(`score "processes" {
  version  = "1.0.0"
  language = 1
  why      = "Processes that tell who they are"
}

part "many" {
  process "p" {
    for_each        = [%s]
    run             = ["sh", "-c", "echo $$ > %s/$1; exec sleep 600", "sh", each.key]
    stop_with_agent = true
  }
}
`, strings.Join(keys, ", "), pids)
}

// killed ends the process that wrote its pid to a file and returns how long the next one took (ms).
func killed(ctx context.Context, file string) (float64, error) {
	pid := 0
	writes := func(other int) error {
		return until(ctx, file+" names a new process", spinTime, func() (bool, error) {
			b, err := os.ReadFile(file)
			if errors.Is(err, os.ErrNotExist) {
				return false, nil
			}
			pid, _ = strconv.Atoi(strings.TrimSpace(string(b))) // half written: 0
			return pid != 0 && pid != other, err
		})
	}
	if err := writes(0); err != nil {
		return 0, err
	}
	began := time.Now()
	p, err := os.FindProcess(pid)
	if err != nil {
		return 0, err
	}
	if err := p.Kill(); err != nil {
		return 0, err
	}
	err = writes(pid)
	return time.Since(began).Seconds() * 1000, err
}
