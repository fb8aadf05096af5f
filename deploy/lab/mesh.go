package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"meshd/agent/control"
	"meshd/deploy/demo"
	"meshd/policies/examples"
)

const (
	lookTime = 2 * time.Millisecond // between two looks at a node
	readTime = 5 * time.Millisecond
	endTime  = 10 * time.Second // for what nodes left running
	listen   = "127.0.0.1:0"
)

// A mesh is a few nodes below one folder.
type mesh struct {
	l     *lab
	dir   string
	hosts map[string]*host // where nodes run, by name; those that are not in it run where this program does
	nodes []*node
	doors []*control.Client // of guests
}

type node struct {
	*demo.Process
	name string
	door *control.Client
}

// newMesh founds a mesh: its first node runs, with flags.
func (l *lab) newMesh(ctx context.Context, name string, flags ...string) (*mesh, error) {
	return l.newMeshOn(ctx, nil, name, flags...)
}

// newMeshOn is newMesh with nodes on hosts.
func (l *lab) newMeshOn(ctx context.Context, hosts map[string]*host, name string, flags ...string) (*mesh, error) {
	dir, err := os.MkdirTemp(l.dir, "mesh-")
	if err != nil {
		return nil, err
	}
	m := &mesh{l: l, dir: dir, hosts: hosts}
	err = demo.Command(ctx, l.meshd, "init", "--data-dir", m.path(name), "--name", name, "--tag", "kind=parent")
	if err == nil {
		_, err = m.start(ctx, name, flags...)
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *mesh) path(parts ...string) string {
	return filepath.Join(append([]string{m.dir}, parts...)...)
}

func (m *mesh) start(ctx context.Context, name string, flags ...string) (*node, error) {
	door, err := control.NewClient("", m.path(name))
	if err != nil {
		return nil, err
	}
	addr, at := listen, m.hosts[name]
	if at != nil {
		addr = at.addr + ":" + meshdPort
	}
	args := append([]string{"run", "--data-dir", m.path(name), "--listen", addr}, flags...)
	var p *demo.Process
	err = at.do(func() (err error) {
		p, err = demo.Start(m.l.meshd, m.path(name+".log"), args...)
		return err
	})
	if err != nil {
		return nil, err
	}
	n := &node{Process: p, name: name, door: door}
	m.nodes = append(m.nodes, n)
	return n, p.Answers(ctx, door)
}

// join admits a node by the first one's invite and waits until both see each other.
func (m *mesh) join(ctx context.Context, name string) (*node, error) {
	first := m.nodes[0]
	token, err := first.door.Invite(ctx, control.InviteRequest{Name: name, TTLSeconds: 600, Uses: 1})
	if err != nil {
		return nil, err
	}
	n, err := m.start(ctx, name, "--name", name, "--join", token)
	if err != nil {
		return nil, err
	}
	want := len(m.nodes)
	return n, until(ctx, name+" is in the ring", lookTime, func() (bool, error) {
		for _, each := range m.nodes {
			if alive, err := countAlive(ctx, each.door); err != nil || alive < want {
				return false, err
			}
		}
		return true, nil
	})
}

func countAlive(ctx context.Context, door *control.Client) (int, error) {
	members, err := door.Members(ctx)
	alive := 0
	for _, m := range members {
		if m.Status == "alive" {
			alive++
		}
	}
	return alive, err
}

// publishScore puts a score of one file in force.
func (m *mesh) publishScore(ctx context.Context, text string) error {
	dir, err := os.MkdirTemp(m.dir, "score-")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "score.hcl"), []byte(text), 0o644); err != nil {
		return err
	}
	_, err = demo.PublishScore(ctx, m.nodes[0].door, dir)
	return err
}

// close ends all nodes, what they left running, and the folder.
func (m *mesh) close() error {
	var errs []error
	for _, n := range m.nodes {
		errs = append(errs, n.Stop())
	}
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	return errors.Join(append(errs, demo.End(ctx, m.dir, m.doors), os.RemoveAll(m.dir))...)
}

// until looks again and again until look is content.
func until(ctx context.Context, what string, every time.Duration, look func() (bool, error)) error {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		ok, err := look()
		if ok && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: not in time (%v)", what, err)
		case <-ticker.C:
		}
		if err != nil && !isPassing(err) {
			return fmt.Errorf("waiting until %s: %w", what, err)
		}
	}
}

// isPassing reports an error that a node mends by itself: it starts, or does not know a thing yet.
func isPassing(err error) bool {
	e, ok := errors.AsType[*control.Error](err)
	return ok && (e.Code == control.Unreachable || e.Code == control.NotFound)
}

// allKept waits until every promise of every node that the first one can ask is kept.
func (m *mesh) allKept(ctx context.Context) error {
	return until(ctx, "every promise is kept", 20*time.Millisecond, func() (bool, error) {
		list, err := m.nodes[0].door.Promises(ctx, "", "", true)
		for _, p := range list {
			if p.Outcome != "kept" && p.Outcome != "repaired" {
				return false, err
			}
		}
		return len(list) > 0, err
	})
}

var children = []string{"container_1", "container_2", "container_3"}

// newPostcards starts the parent of the postcard pipeline, which spawns three children, and waits until all
// is kept.
func (l *lab) newPostcards(ctx context.Context) (*mesh, error) {
	m, err := l.newMesh(ctx, "host")
	if err != nil {
		return nil, err
	}
	if err := m.playPostcards(ctx); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *mesh) playPostcards(ctx context.Context) error {
	for _, c := range children {
		door, err := control.NewClient("", m.path("host", "guests", c))
		if err != nil {
			return err
		}
		m.doors = append(m.doors, door)
	}
	score, err := examples.Postcards.ReadFile("postcards/score.hcl")
	if err != nil {
		return err
	}
	if err := m.publishScore(ctx, string(score)); err != nil {
		return err
	}
	err = until(ctx, "four nodes are alive and the package is tied", 20*time.Millisecond, func() (bool, error) {
		alive, err := countAlive(ctx, m.nodes[0].door)
		if err != nil || alive < 1+len(children) {
			return false, err
		}
		list, err := m.nodes[0].door.Artifacts(ctx, "package", false)
		return len(list) > 0, err
	})
	if err != nil {
		return err
	}
	return m.allKept(ctx)
}

// pids of all nodes, guests too.
func (m *mesh) pids(ctx context.Context) ([]int, error) {
	var pids []int
	for _, n := range m.nodes {
		pids = append(pids, n.PID())
	}
	for _, d := range m.doors {
		v, err := d.Version(ctx)
		if err != nil {
			return nil, err
		}
		pids = append(pids, v.PID)
	}
	return pids, nil
}

// exists waits for a file.
func exists(ctx context.Context, path string) error {
	return until(ctx, path+" is there", readTime, func() (bool, error) {
		_, err := os.Stat(path)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	})
}
