package promise

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// errEngine is the fault of a fakeEngine.
var errEngine = errors.New("the engine says no")

// A fakeEngine is a container engine in maps, with the two faults of every write. It has no lock: one
// keeper uses it, from one goroutine.
type fakeEngine struct {
	images     map[string]string            // name -> id
	volumes    map[string]map[string]string // name -> labels
	joined     map[string]bool              // volumes that hold a certificate
	containers map[string]*fakeContainer    // by id
	watchers   map[*func()]map[string]string
	made       int
	log        []string // writes that were applied

	fault string // the write that fails next
	after bool   // it is applied all the same
	dies  bool   // what is started ends at once
}

type fakeContainer struct {
	Container
	spec  ContainerSpec
	files map[string]string
}

func newEngine() *fakeEngine {
	return &fakeEngine{
		images: map[string]string{"meshd:latest": "sha256:1"}, volumes: map[string]map[string]string{}, joined: map[string]bool{},
		containers: map[string]*fakeContainer{}, watchers: map[*func()]map[string]string{},
	}
}

// write applies do, unless the fault says otherwise.
func (e *fakeEngine) write(op, what string, do func() error) error {
	fault := op == e.fault
	if fault {
		e.fault = ""
	}
	if fault && !e.after {
		return errEngine
	}
	if err := do(); err != nil {
		return err
	}
	e.log = append(e.log, op+" "+what)
	if fault {
		return errEngine
	}
	return nil
}

func (e *fakeEngine) at(id string) (*fakeContainer, error) {
	if c := e.containers[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %s: %w", id, ErrNoSuch)
}

// ring tells the watchers of a container of a change, as the real engine does.
func (e *fakeEngine) ring(c *fakeContainer) {
	for f, labels := range e.watchers {
		mine := true
		for k, v := range labels {
			mine = mine && c.Labels[k] == v
		}
		if mine {
			(*f)()
		}
	}
}

// lose removes a container behind the keeper's back.
func (e *fakeEngine) lose(id string) {
	c := e.containers[id]
	delete(e.containers, id)
	e.ring(c)
}

func (e *fakeEngine) Labelled(_ context.Context, labels map[string]string) ([]Container, error) {
	var out []Container
	for _, c := range e.containers {
		mine := true
		for k, v := range labels {
			mine = mine && c.Labels[k] == v
		}
		if mine {
			out = append(out, c.Container)
		}
	}
	return out, nil
}

func (e *fakeEngine) Create(_ context.Context, s ContainerSpec) (string, error) {
	id := fmt.Sprintf("id-%d", e.made+1)
	return id, e.write("create", s.Name, func() error {
		for _, c := range e.containers {
			if c.Name == s.Name {
				return fmt.Errorf("conflict: the name %s is in use", s.Name)
			}
		}
		image, known := e.images[s.Image]
		if !known || e.volumes[s.Volume] == nil {
			return ErrNoSuch
		}
		e.made++
		e.containers[id] = &fakeContainer{spec: s, files: map[string]string{}, Container: Container{
			ID: id, Name: s.Name, Labels: maps.Clone(s.Labels), ImageID: image, Fresh: true, Memory: s.Memory, NanoCPUs: s.NanoCPUs, Networks: []string{s.Network},
		}}
		return nil
	})
}

func (e *fakeEngine) Exists(_ context.Context, id, path string) (bool, error) {
	c, err := e.at(id)
	return err == nil && path == c.spec.Home+"/node.crt" && e.joined[c.spec.Volume], err
}

func (e *fakeEngine) Copy(_ context.Context, id, path string, content []byte) error {
	return e.write("copy", path, func() error {
		c, err := e.at(id)
		if err == nil {
			c.files[path] = string(content)
		}
		return err
	})
}

// Start plays a meshd that joins by the token it finds, and ends where it has none and no certificate.
func (e *fakeEngine) Start(_ context.Context, id string) error {
	return e.write("start", id, func() error {
		c, err := e.at(id)
		if err != nil {
			return err
		}
		if strings.HasPrefix(c.files[joinPath], "token-") {
			e.joined[c.spec.Volume] = true
		}
		c.Fresh, c.Running, c.Started = false, e.joined[c.spec.Volume] && !e.dies, time.Now()
		if !c.Running {
			c.Finished, c.ExitCode = time.Now(), 78
		}
		return nil
	})
}

func (e *fakeEngine) Stop(_ context.Context, id string, _ time.Duration) error {
	return e.write("stop", id, func() error {
		c, err := e.at(id)
		if err == nil {
			c.Running, c.Paused, c.Finished = false, false, time.Now()
		}
		return err
	})
}

func (e *fakeEngine) Remove(_ context.Context, id string) error {
	return e.write("remove", id, func() error {
		_, err := e.at(id)
		delete(e.containers, id)
		return err
	})
}

func (e *fakeEngine) Tail(context.Context, string) (string, error) {
	return "one\nthe last words\n", nil
}

func (e *fakeEngine) Volume(_ context.Context, name string) (map[string]string, error) {
	if labels := e.volumes[name]; labels != nil {
		return labels, nil
	}
	return nil, ErrNoSuch
}

func (e *fakeEngine) MakeVolume(_ context.Context, name string, labels map[string]string) error {
	return e.write("volume", name, func() error {
		e.volumes[name] = labels
		return nil
	})
}

func (e *fakeEngine) RemoveVolume(_ context.Context, name string) error {
	return e.write("remove-volume", name, func() error {
		for _, c := range e.containers {
			if c.spec.Volume == name {
				return errors.New("the volume is in use")
			}
		}
		delete(e.volumes, name)
		delete(e.joined, name)
		return nil
	})
}

func (e *fakeEngine) Image(_ context.Context, name string) (string, error) {
	if id, ok := e.images[name]; ok {
		return id, nil
	}
	return "", ErrNoSuch
}

func (e *fakeEngine) Watch(labels map[string]string, changed func()) (stop func()) {
	e.watchers[&changed] = labels
	return func() { delete(e.watchers, &changed) }
}

// only is the one container that is there.
func (e *fakeEngine) only() *fakeContainer {
	all := slices.Collect(maps.Values(e.containers))
	if len(all) != 1 {
		return &fakeContainer{Container: Container{ID: fmt.Sprintf("%d containers", len(all))}}
	}
	return all[0]
}
