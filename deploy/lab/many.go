package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	manyCommands = 1000
	manyReaders  = 50 // files that read the fact, and as many that the role brings
	manyTurns    = 10 // changes of the fact, and flips of the role
	manyLook     = 5 * time.Millisecond
)

// manyScore promises 10,000 files and 1,000 commands; some read a fact that is looked at each second, and some more
// come with a role.
func manyScore(fact string) string {
	keys := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf("%q", fileKey(i)))
		}
		return strings.Join(list, ", ")
	}
	return fmt.Sprintf(`score "many" {
  version  = "1.0.0"
  language = 1
}
role "web" { when = tag.tier == "web" }
fact "load" {
  command = ["cat", %q]
  parse   = "number"
  every   = "1s"
}
locals {
  files    = [%s]
  commands = [%s]
  readers  = [%s]
}
part "all" {
  file "f" {
    for_each = local.files
    path     = "f/${each.key}"
    content  = "this is ${each.key}\n"
  }
  command "c" {
    for_each = local.commands
    run      = ["true"]
    inputs   = ["f/${each.key}"]
  }
  file "load" {
    for_each = local.readers
    path     = "load/${each.key}"
    content  = "load ${fact.load}\n"
  }
}
part "web" {
  role = "web"
  file "w" {
    for_each = local.readers
    path     = "web/${each.key}"
    content  = "here\n"
  }
}
`, fact, keys(watchedFiles-manyReaders), keys(manyCommands), keys(manyReaders))
}

// measureMany has one node keep 10,000 files and 1,000 commands from nothing, then changes a fact and flips a role.
func measureMany(ctx context.Context, l *lab) (_ []figure, err error) {
	m, err := l.newMesh(ctx, "host")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	fact := m.path("load")
	if err := os.WriteFile(fact, []byte("0\n"), 0o644); err != nil {
		return nil, err
	}
	text := manyScore(fact)
	check, err := l.checked(ctx, m.path("checked"), text)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := m.publishScore(ctx, text); err != nil {
		return nil, err
	}
	if err := m.allKept(ctx); err != nil {
		return nil, err
	}
	made := time.Since(began)
	spent, err := cpuOf(m.nodes[0].PID())
	if err != nil {
		return nil, err
	}
	facts, err := m.turns(ctx, func(i int) (string, string, error) {
		return m.path("host", "work", "load"), fmt.Sprintf("load %d\n", i), os.WriteFile(fact, fmt.Appendf(nil, "%d\n", i), 0o644)
	})
	if err != nil {
		return nil, err
	}
	web := m.path("host", "work", "web")
	flips, err := m.turns(ctx, func(int) (string, string, error) {
		if _, err := m.nodes[0].door.SetTags(ctx, map[string]string{"tier": "none"}); err != nil {
			return "", "", err
		}
		if err := os.RemoveAll(web); err != nil {
			return "", "", err
		}
		_, err := m.nodes[0].door.SetTags(ctx, map[string]string{"tier": "web"})
		return web, "here\n", err
	})
	if err != nil {
		return nil, err
	}
	total, _, err := rssOf(m.nodes[0].PID())
	if err != nil {
		return nil, err
	}
	instances, err := inotifies(m.nodes[0].PID())
	name := "10,000 files and 1,000 commands: "
	return []figure{
		single(name+"policy check, whole program", "ms", check.Seconds()*1000, 0),
		single(name+"made from nothing", "s", made.Seconds(), 0),
		single("  CPU of it", "s", spent.Seconds(), 0),
		{name: name + "a fact, read each second, to 50 files", unit: "ms", values: facts},
		{name: name + "a role that flips to 50 files", unit: "ms", values: flips},
		single(name+"RSS", "MiB", total/mebi, 0),
		single(name+"inotify instances", "", float64(instances), 1),
	}, err
}

// turns has do change something, and returns how long it took until every reader's file below a folder holds a text (ms).
func (m *mesh) turns(ctx context.Context, do func(i int) (dir, text string, err error)) (values []float64, err error) {
	for i := 1; i <= manyTurns; i++ {
		dir, text, err := do(i)
		if err != nil {
			return nil, err
		}
		began := time.Now()
		err = until(ctx, "all below "+dir+" hold "+text, manyLook, func() (bool, error) {
			for n := range manyReaders {
				if b, err := os.ReadFile(filepath.Join(dir, fileKey(n))); err != nil || !bytes.Equal(b, []byte(text)) {
					return false, nil // not there yet, or not yet right
				}
			}
			return true, nil
		})
		if err != nil {
			return nil, err
		}
		values = append(values, time.Since(began).Seconds()*1000)
	}
	return values, nil
}

// checked has meshctl read a score, and returns how long that took.
func (l *lab) checked(ctx context.Context, dir, text string) (time.Duration, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	if err := os.WriteFile(filepath.Join(dir, "score.hcl"), []byte(text), 0o644); err != nil {
		return 0, err
	}
	began := time.Now()
	out, err := exec.CommandContext(ctx, l.ctl, "policy", "check", dir).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("meshctl policy check: %w\n%s", err, out)
	}
	return time.Since(began), nil
}

// inotifies counts the inotify instances of a process.
func inotifies(pid int) (n int, err error) {
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return 0, err
	}
	for _, path := range list {
		if to, err := os.Readlink(path); err == nil && strings.Contains(to, "inotify") {
			n++
		}
	}
	return n, nil
}
