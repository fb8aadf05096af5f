package demo

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"meshd/agent/promise"
)

const removeTime = 30 * time.Second // for the engine to take away what the demo made

// boxed is what a demo with Docker has in the engine.
type boxed struct {
	engines *promise.Engines
	engine  promise.Engine
	image   string
	gateway string
	parent  string // the node id that the parent's containers bear; "" before it is known
	foreign string // id of a container that the parent did not make
}

// filter is the label of all that the parent made, as docker takes it.
func (b *boxed) filter() string { return promise.LabelNode + "=" + b.parent }

// openDocker finds the engine and makes the image.
func (d *demo) openDocker() error {
	engines := promise.NewEngines()
	engine, err := engines.Open("docker")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), stepTime)
	defer cancel()
	b := &boxed{engines: engines, engine: engine, image: "meshd:demo-" + strings.ToLower(rand.Text()[:8])}
	if b.gateway, err = engine.Gateway(ctx); err == nil {
		err = engine.Import(ctx, b.image, d.Exe)
	}
	if err != nil {
		return errors.Join(err, engines.Close())
	}
	d.boxed = b
	d.steps = []step{
		{"start a mesh of one", d.start},
		{"the parent spawns containers, each signs a postcard, the parent ties them", d.pipeline},
		{"edit one job slip", d.edit},
		{"remove a container", d.removeContainer},
		{"change a container", d.changeContainer},
		{"damage a result", d.damage},
		{"the mesh as it stands", d.show},
		{"clean up, as the article does", d.dismiss},
	}
	return nil
}

// boxScore has the postcards' guests live in containers, beside one that is none of them.
func (d *demo) boxScore(ctx context.Context) error {
	members, err := d.host.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range members {
		if m.Self {
			d.boxed.parent = m.ID
		}
	}
	if d.boxed.parent == "" {
		return errors.New("the parent does not tell its node id")
	}
	d.boxed.foreign, err = d.boxed.stranger(ctx)
	if err != nil {
		return err
	}
	return d.rewrite("guest \"child\" {", fmt.Sprintf("guest \"child\" {\n    kind   = \"docker\"\n    image  = %q\n    memory = \"256m\"", d.boxed.image))
}

// rewrite changes one place of the score.
func (d *demo) rewrite(old, now string) error {
	path := d.path("score", "postcards", "score.hcl")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if strings.Count(string(b), old) != 1 {
		return fmt.Errorf("the score says %q not once", old)
	}
	return os.WriteFile(path, []byte(strings.Replace(string(b), old, now, 1)), 0o644)
}

// stranger makes a container of the same image that another node seems to have made.
func (b *boxed) stranger(ctx context.Context) (string, error) {
	name := strings.ReplaceAll(b.image, ":", "-")
	if err := b.engine.MakeVolume(ctx, name, nil); err != nil {
		return "", err
	}
	return b.engine.Create(ctx, promise.ContainerSpec{
		Name: name, Image: b.image, Args: []string{"version"}, Network: "bridge", Volume: name, Home: "/var/lib/meshd",
		Labels: map[string]string{promise.LabelNode: "another", promise.LabelGuest: jobs[0]},
	})
}

// container is the one of that guest; ok is false while it does not run as promised.
func (d *demo) container(ctx context.Context, guest string) (c promise.Container, ok bool, err error) {
	list, err := d.boxed.engine.Labelled(ctx, map[string]string{promise.LabelNode: d.boxed.parent, promise.LabelGuest: guest})
	if err != nil || len(list) != 1 {
		return promise.Container{}, false, err
	}
	return list[0], list[0].Running && list[0].Memory == 256<<20, nil
}

func (d *demo) removeContainer(ctx context.Context) error {
	return d.anew(ctx, "container_2", "removed", func(c promise.Container) error {
		return d.boxed.engine.Remove(ctx, c.ID)
	})
}

func (d *demo) changeContainer(ctx context.Context) error {
	return d.anew(ctx, "container_3", "halved the memory of", func(c promise.Container) error {
		// As people do it: the engine's own command.
		out, err := exec.CommandContext(ctx, "docker", "update", "--memory", "128m", "--memory-swap", "256m", c.ID).CombinedOutput()
		if err != nil {
			return fmt.Errorf("docker update: %w: %s", err, out)
		}
		return nil
	})
}

// anew spoils a guest's container and waits for another in its place, and for the same node in it.
func (d *demo) anew(ctx context.Context, guest, did string, spoil func(promise.Container) error) error {
	before, ok, err := d.container(ctx, guest)
	if err != nil || !ok {
		return errors.Join(err, fmt.Errorf("the container of %s is not as promised to begin with", guest))
	}
	start := time.Now()
	if err := spoil(before); err != nil {
		return err
	}
	d.tell("fault", "%s the container of %s", did, guest)
	err = d.until(ctx, "the container is made anew", func() (bool, string, error) {
		now, ok, err := d.container(ctx, guest)
		return ok && now.ID != before.ID, "it is not there yet", err
	})
	if err != nil {
		return err
	}
	d.tell("figure", "the container of %s was back after %d ms", guest, time.Since(start).Milliseconds())
	if err := d.until(ctx, "four nodes are alive", func() (bool, string, error) { return d.alive(ctx, 4) }); err != nil {
		return err
	}
	return d.until(ctx, "every promise is kept", func() (bool, string, error) { return d.allKept(ctx) })
}

// dismiss has the score say that there shall be no children: containers, volumes and identities go.
func (d *demo) dismiss(ctx context.Context) error {
	if d.Keep {
		d.tell("kept", "the children stay: --keep")
		return d.untouched(ctx)
	}
	err := errors.Join(d.rewrite("role.cleanup ? \"absent\" : \"running\"", "\"absent\""), d.rewrite("= \"1.0.0\"", "= \"1.0.1\""))
	if err != nil {
		return err
	}
	if _, err := PublishScore(ctx, d.host, d.path("score", "postcards")); err != nil {
		return err
	}
	err = d.until(ctx, "the containers are gone", func() (bool, string, error) {
		list, err := d.boxed.engine.Labelled(ctx, map[string]string{promise.LabelNode: d.boxed.parent})
		if err != nil || len(list) > 0 {
			return false, fmt.Sprintf("%d are left", len(list)), err
		}
		for _, job := range jobs {
			if _, err := d.boxed.engine.Volume(ctx, "meshd-"+job); !errors.Is(err, promise.ErrNoSuch) {
				return false, "volume meshd-" + job + " is left", err
			}
		}
		return true, "", nil
	})
	if err != nil {
		return err
	}
	d.tell("check", "the score wants no children any more: their containers, volumes and identities are gone")
	return d.untouched(ctx)
}

// untouched checks that the stranger's container is as it was made.
func (d *demo) untouched(ctx context.Context) error {
	list, err := d.boxed.engine.Labelled(ctx, map[string]string{promise.LabelNode: "another", promise.LabelGuest: jobs[0]})
	if err != nil {
		return err
	}
	for _, c := range list {
		if c.ID == d.boxed.foreign && c.Fresh {
			d.tell("check", "a container that the parent did not make was left alone")
			return nil
		}
	}
	return errors.New("a container that the parent did not make was touched")
}

// remove takes away all that this demo made in the engine, whatever step it came to.
func (b *boxed) remove() error {
	ctx, cancel := context.WithTimeout(context.Background(), removeTime)
	defer cancel()
	var errs []error
	gone := func(err error) {
		if !errors.Is(err, promise.ErrNoSuch) {
			errs = append(errs, err)
		}
	}
	name := strings.ReplaceAll(b.image, ":", "-")
	if b.foreign != "" {
		gone(b.engine.Remove(ctx, b.foreign))
	}
	gone(b.engine.RemoveVolume(ctx, name))
	if b.parent != "" {
		list, err := b.engine.Labelled(ctx, map[string]string{promise.LabelNode: b.parent})
		errs = append(errs, err)
		for _, c := range list {
			gone(b.engine.Remove(ctx, c.ID))
		}
		for _, job := range jobs {
			labels, err := b.engine.Volume(ctx, "meshd-"+job)
			if err == nil && labels[promise.LabelNode] == b.parent {
				gone(b.engine.RemoveVolume(ctx, "meshd-"+job))
			}
		}
	}
	gone(b.engine.RemoveImage(ctx, b.image))
	return errors.Join(errs...)
}
