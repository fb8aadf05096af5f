//go:build !nocontainers

package promise

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"meshd/policies"
)

// Engines opens container engines, each once. Its methods may run at once.
type Engines struct {
	mu     sync.Mutex
	opened map[string]*moby
	closed bool
}

// NewEngines opens nothing yet.
func NewEngines() *Engines { return &Engines{opened: map[string]*moby{}} }

// Open gives the engine of a kind: docker at $DOCKER_HOST, podman at $CONTAINER_HOST, else at the socket
// that each has by default. It says nothing to it yet.
func (e *Engines) Open(kind string) (Engine, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errors.New("the engines are closed")
	}
	if m := e.opened[kind]; m != nil {
		return m, nil
	}
	var opts []client.Opt
	switch kind {
	case "docker":
		opts = []client.Opt{client.FromEnv}
	case "podman":
		opts = []client.Opt{client.WithHost(podmanHost())}
	default:
		return nil, fmt.Errorf("container engine %q: it is \"docker\" or \"podman\"", kind)
	}
	cli, err := client.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", kind, err)
	}
	m := &moby{kind: kind, cli: cli}
	m.events.follow = m.follow
	e.opened[kind] = m
	return m, nil
}

// podmanHost is where podman's service listens.
func podmanHost() string {
	if host := os.Getenv("CONTAINER_HOST"); host != "" {
		return host
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && os.Geteuid() != 0 {
		return "unix://" + filepath.Join(dir, "podman", "podman.sock")
	}
	return "unix:///run/podman/podman.sock"
}

// Close ends the watches and the connections.
func (e *Engines) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	var errs []error
	for _, m := range e.opened {
		m.events.close()
		errs = append(errs, m.cli.Close())
	}
	return errors.Join(errs...)
}

// A moby is an engine with Docker's interface.
type moby struct {
	kind   string
	cli    *client.Client
	events bell
}

var _ Engine = (*moby)(nil)

// told adds what an engine's own words lack.
func (m *moby) told(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsNotFound(err):
		return fmt.Errorf("%s: %w (%v)", what, ErrNoSuch, err)
	case client.IsErrConnectionFailed(err):
		return fmt.Errorf("%s: %s does not answer: start it, or let this user use it (%w)", what, m.kind, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (m *moby) Labelled(ctx context.Context, labels map[string]string) ([]Container, error) {
	f := client.Filters{}
	for _, k := range sortedKeys(labels) {
		f = f.Add("label", k+"="+labels[k])
	}
	list, err := m.cli.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: f})
	if err != nil {
		return nil, m.told("list containers", err)
	}
	var out []Container
	for _, c := range list.Items {
		r, err := m.cli.ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) {
			continue // removed since
		} else if err != nil {
			return nil, m.told("look at container "+c.ID, err)
		}
		out = append(out, m.plain(r.Container))
	}
	return out, nil
}

func (m *moby) plain(r container.InspectResponse) Container {
	c := Container{ID: r.ID, Name: strings.TrimPrefix(r.Name, "/"), ImageID: r.Image}
	if r.Config != nil {
		c.Labels = r.Config.Labels
	}
	if s := r.State; s != nil {
		c.Running, c.Paused, c.ExitCode = s.Running, s.Paused, s.ExitCode
		c.Fresh = s.Status == container.StateCreated
		c.Started, _ = time.Parse(time.RFC3339Nano, s.StartedAt)
		c.Finished, _ = time.Parse(time.RFC3339Nano, s.FinishedAt)
	}
	if h := r.HostConfig; h != nil {
		c.Memory, c.NanoCPUs = h.Memory, h.NanoCPUs
		if h.RestartPolicy.Name != container.RestartPolicyDisabled {
			c.Restarts = string(h.RestartPolicy.Name)
		}
	}
	if r.NetworkSettings != nil {
		for name := range r.NetworkSettings.Networks {
			if m.kind == "podman" && name == "podman" {
				name = "bridge"
			}
			c.Networks = append(c.Networks, name)
		}
		slices.Sort(c.Networks)
	}
	return c
}

func (m *moby) Create(ctx context.Context, c ContainerSpec) (string, error) {
	ports, bound := network.PortSet{}, network.PortMap{}
	for _, p := range c.Ports {
		port, err := network.ParsePort(strconv.Itoa(p.Guest) + "/" + p.Proto)
		if err != nil {
			return "", err
		}
		b := network.PortBinding{HostPort: strconv.Itoa(p.Host)}
		if p.Addr != "" {
			if b.HostIP, err = netip.ParseAddr(p.Addr); err != nil {
				return "", err
			}
		}
		ports[port] = struct{}{}
		bound[port] = append(bound[port], b)
	}
	mounts := []mount.Mount{{Type: mount.TypeVolume, Source: c.Volume, Target: c.Home}}
	for _, mt := range c.Mounts {
		mounts = append(mounts, mount.Mount{Type: mount.TypeBind, Source: mt.Source, Target: mt.Target, ReadOnly: mt.ReadOnly})
	}
	grace := int(defaultGrace / time.Second)
	r, err := m.cli.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name:   c.Name,
		Config: &container.Config{Image: c.Image, Cmd: c.Args, Env: c.Env, Labels: c.Labels, ExposedPorts: ports, StopTimeout: &grace},
		HostConfig: &container.HostConfig{
			NetworkMode: container.NetworkMode(c.Network), PortBindings: bound, Mounts: mounts,
			SecurityOpt: []string{"no-new-privileges"},
			LogConfig:   m.logs(),
			Resources:   container.Resources{Memory: c.Memory, NanoCPUs: c.NanoCPUs},
		},
	})
	return r.ID, m.told("create container "+c.Name, err)
}

// logs bounds what the engine keeps of a guest's output.
func (m *moby) logs() container.LogConfig {
	if m.kind == "podman" {
		return container.LogConfig{} // its own default rotates
	}
	return container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "1m", "max-file": "2"}}
}

func (m *moby) Exists(ctx context.Context, id, path string) (bool, error) {
	_, err := m.cli.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: path})
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, m.told("look for "+path+" in container "+id, err)
}

func (m *moby) Copy(ctx context.Context, id, file string, content []byte) error {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	err := t.WriteHeader(&tar.Header{Name: path.Base(file), Mode: 0o600, Size: int64(len(content)), Typeflag: tar.TypeReg})
	if err == nil {
		_, err = t.Write(content)
	}
	if err = errors.Join(err, t.Close()); err != nil {
		return err
	}
	_, err = m.cli.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: path.Dir(file), Content: &b})
	return m.told("copy "+file+" into container "+id, err)
}

func (m *moby) Start(ctx context.Context, id string) error {
	_, err := m.cli.ContainerStart(ctx, id, client.ContainerStartOptions{})
	return m.told("start container "+id, err)
}

func (m *moby) Stop(ctx context.Context, id string, grace time.Duration) error {
	seconds := int(grace / time.Second)
	_, err := m.cli.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &seconds})
	return m.told("stop container "+id, err)
}

func (m *moby) Remove(ctx context.Context, id string) error {
	_, err := m.cli.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true})
	return m.told("remove container "+id, err)
}

// Tail strips the 8 bytes that the engine puts before each piece of output.
func (m *moby) Tail(ctx context.Context, id string) (string, error) {
	r, err := m.cli.ContainerLogs(ctx, id, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: "5"})
	if err != nil {
		return "", m.told("read the output of container "+id, err)
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(io.LimitReader(r, 2*maxTailBytes))
	if err != nil {
		return "", err
	}
	var out []byte
	for len(b) >= 8 {
		n := int(b[4])<<24 | int(b[5])<<16 | int(b[6])<<8 | int(b[7])
		b = b[8:]
		n = min(max(n, 0), len(b))
		out = append(out, b[:n]...)
		b = b[n:]
	}
	return string(out[max(0, len(out)-maxTailBytes):]), nil
}

func (m *moby) Volume(ctx context.Context, name string) (map[string]string, error) {
	v, err := m.cli.VolumeInspect(ctx, name, client.VolumeInspectOptions{})
	return v.Volume.Labels, m.told("look at volume "+name, err)
}

func (m *moby) MakeVolume(ctx context.Context, name string, labels map[string]string) error {
	_, err := m.cli.VolumeCreate(ctx, client.VolumeCreateOptions{Name: name, Labels: labels})
	return m.told("make volume "+name, err)
}

func (m *moby) RemoveVolume(ctx context.Context, name string) error {
	_, err := m.cli.VolumeRemove(ctx, name, client.VolumeRemoveOptions{})
	return m.told("remove volume "+name, err)
}

func (m *moby) Image(ctx context.Context, name string) (string, error) {
	r, err := m.cli.ImageInspect(ctx, name)
	return r.ID, m.told("look for image "+name, err)
}

func (m *moby) Import(ctx context.Context, name string, programs ...string) error {
	if len(programs) == 0 {
		return errors.New("make an image: no program is named")
	}
	for _, p := range programs {
		if err := checkStatic(p); err != nil {
			return fmt.Errorf("make image %s: %w", name, err)
		}
	}
	r, w := io.Pipe()
	packed := make(chan struct{})
	go func() {
		defer close(packed)
		w.CloseWithError(packImage(w, programs))
	}()
	defer func() {
		_ = r.Close()
		<-packed
	}()
	port := strconv.Itoa(meshPort)
	reply, err := m.cli.ImageImport(ctx, client.ImageImportSource{Source: r, SourceName: "-"}, name, client.ImageImportOptions{
		Message: "made by meshd", Changes: []string{
			`ENTRYPOINT ["/` + filepath.Base(programs[0]) + `"]`, "ENV PATH=/", "ENV MESHD_DATA_DIR=" + policies.GuestHome,
			"WORKDIR /", "EXPOSE " + port + "/tcp", "EXPOSE " + port + "/udp",
		},
	})
	if err != nil {
		return m.told("make image "+name, err)
	}
	_, err = io.Copy(io.Discard, reply)
	return m.told("make image "+name, errors.Join(err, reply.Close()))
}

func (m *moby) RemoveImage(ctx context.Context, name string) error {
	_, err := m.cli.ImageRemove(ctx, name, client.ImageRemoveOptions{PruneChildren: true})
	return m.told("remove image "+name, err)
}

func (m *moby) Gateway(ctx context.Context) (string, error) {
	name := "bridge"
	if m.kind == "podman" {
		name = "podman"
	}
	n, err := m.cli.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
	if err != nil {
		return "", m.told("look at network "+name, err)
	}
	for _, c := range n.Network.IPAM.Config {
		if c.Gateway.Is4() {
			return c.Gateway.String(), nil
		}
	}
	// An engine that was given its bridge's address tells no gateway: ask the bridge.
	bridge, err := net.InterfaceByName(cmp.Or(n.Network.Options["com.docker.network.bridge.name"], "docker0"))
	if err != nil {
		return "", fmt.Errorf("look at network %s: it has no gateway on this machine: %w", name, err)
	}
	addrs, err := bridge.Addrs()
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil {
			return ip.IP.String(), nil
		}
	}
	return "", errors.Join(err, fmt.Errorf("look at network %s: its bridge %s has no IPv4 address", name, bridge.Name))
}

func (m *moby) Watch(labels map[string]string, changed func()) (stop func()) {
	return m.events.watch(labels, changed)
}

// follow reads changes until ctx ends or the engine goes away.
func (m *moby) follow(ctx context.Context, begun func(), heard func(labels map[string]string)) {
	if _, err := m.cli.Ping(ctx, client.PingOptions{}); err != nil {
		return // those who watch are told once it answers
	}
	ctx, cancel := context.WithCancel(ctx)
	r := m.cli.Events(ctx, client.EventsListOptions{Filters: client.Filters{}.Add("type", "container", "network")})
	defer func() {
		cancel()
		for range r.Err { // closed when the reader has ended
		}
	}()
	begun()
	for {
		select {
		case e := <-r.Messages:
			action := string(e.Action)
			switch {
			case e.Type == "network" && (action == "connect" || action == "disconnect"):
				heard(nil) // such an event has no labels
			case e.Type == "container" && !quiet(action):
				heard(e.Actor.Attributes)
			}
		case <-r.Err:
			return
		}
	}
}

// quiet are the things that befall a container and leave it as it was.
func quiet(action string) bool {
	name, _, _ := strings.Cut(action, ":")
	return strings.HasPrefix(name, "exec_") || slices.Contains([]string{"health_status", "top", "attach", "detach", "resize", "create", "copy", "archive-path", "extract-to-dir"}, name)
}
