package promise

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"meshd/policies"
)

const (
	meshPort = 6374    // at which a guest on a bridge listens (SPEC 4)
	joinPath = "/join" // of the invite in a guest's container
)

// A containerKeeper keeps a child node in a container: container and volume are both called meshd-NAME,
// and bear this node's id. What has not that label is never touched.
//
// The volume holds the child's key, so that a container made anew is the same node.
type containerKeeper struct {
	address policies.Address
	spec    policies.Guest
	site    Site
	mounts  []policies.Mount // with absolute sources

	engine  Containers // nil until it was opened
	unwatch func()
	wakes   chan struct{} // capacity 1; carries no data

	pace    pace
	counted string // the end that pace has counted: container and time
}

func newContainer(p policies.Promise, g policies.Guest, s Site) (*containerKeeper, error) {
	k := &containerKeeper{address: p.Address, spec: g, site: s, wakes: make(chan struct{}, 1)}
	k.pace = pace{shortest: defaultBackoffMin, longest: defaultBackoffMax}
	if s.Containers == nil {
		return nil, fmt.Errorf("guest of kind %q: this node has no container engine", g.Kind)
	}
	for _, m := range g.Mounts {
		at, err := newPlace(s, m.Source)
		if err != nil {
			return nil, fmt.Errorf("mounts: %w", err)
		}
		m.Source = at.abs
		k.mounts = append(k.mounts, m)
	}
	return k, nil
}

func (k *containerKeeper) name() string { return "meshd-" + k.spec.Name }

// labels tell this node's guest from all else in the engine.
func (k *containerKeeper) labels() map[string]string {
	return map[string]string{LabelNode: k.site.Node, LabelGuest: k.spec.Name}
}

// open finds the engine, and begins to watch.
func (k *containerKeeper) open() error {
	if k.engine != nil {
		return nil
	}
	engine, err := k.site.Containers(k.spec.Kind)
	if err != nil {
		return err
	}
	k.engine = engine
	k.unwatch = engine.Watch(k.labels(), func() {
		select {
		case k.wakes <- struct{}{}:
		default:
		}
	})
	return nil
}

// A sight is what the engine has of a guest.
type sight struct {
	containers []Container // all that are ours; more than one is drift
	volume     bool        // ours is there
}

// see looks at container and volume. It is an error when the volume's name belongs to somebody else's.
func (k *containerKeeper) see(ctx context.Context) (sight, error) {
	var s sight
	if err := k.open(); err != nil {
		return s, err
	}
	labels, err := k.engine.Volume(ctx, k.name())
	switch {
	case errors.Is(err, ErrNoSuch):
	case err != nil:
		return s, err
	case !maps.Equal(k.labels(), map[string]string{LabelNode: labels[LabelNode], LabelGuest: labels[LabelGuest]}):
		return s, fmt.Errorf("volume %s was not made by this node: remove it, or choose another name for the guest", k.name())
	default:
		s.volume = true
	}
	s.containers, err = k.engine.Labelled(ctx, k.labels())
	slices.SortFunc(s.containers, func(a, b Container) int { return cmp.Compare(a.ID, b.ID) })
	return s, err
}

// promised is the container that there should be.
func (k *containerKeeper) promised() (ContainerSpec, error) {
	c := ContainerSpec{
		Name: k.name(), Image: k.spec.Image, Labels: k.labels(), Network: k.spec.Network, Volume: k.name(), Home: policies.GuestHome,
		Mounts: k.mounts, Ports: k.spec.Ports, Memory: k.spec.Memory, NanoCPUs: k.spec.NanoCPUs,
	}
	for _, name := range sortedKeys(k.spec.Env) {
		c.Env = append(c.Env, name+"="+k.spec.Env[name])
	}
	var hosts []string
	lonely := true
	for _, hostPort := range k.site.Addrs() {
		host, _, err := net.SplitHostPort(hostPort)
		if err != nil {
			continue
		}
		ip, err := netip.ParseAddr(host)
		lonely = lonely && err == nil && ip.IsLoopback()
		hosts = append(hosts, host)
	}
	listen := ":" + strconv.Itoa(meshPort)
	switch {
	case k.spec.Network == "host" && lonely:
		listen = "127.0.0.1:0"
	case k.spec.Network == "host":
		listen = ":0"
	case lonely:
		return c, errors.New(`this node listens on loopback alone, where a container on a bridge can't reach it: start meshd with --listen :6374, or promise network = "host"`)
	}
	c.Args = []string{"run", "--data-dir", policies.GuestHome, "--name", k.spec.Name, "--listen", listen, "--join", "@" + joinPath}
	if port := k.published(); port != 0 {
		slices.Sort(hosts)
		for _, host := range slices.Compact(hosts) {
			c.Args = append(c.Args, "--advertise", net.JoinHostPort(host, strconv.Itoa(port)))
		}
	}
	text, err := json.Marshal(c)
	if err != nil {
		return c, err
	}
	c.Labels[labelSpec], c.Labels[labelPromise] = shortHash(text), string(k.address)
	return c, nil
}

// published is the port of the host at which the guest answers the mesh; 0 where it is not published for
// both TCP and UDP.
func (k *containerKeeper) published() int {
	at := map[string]int{}
	for _, p := range k.spec.Ports {
		if p.Guest == meshPort && p.Addr == "" {
			at[p.Proto] = p.Host
		}
	}
	if at["tcp"] != at["udp"] {
		return 0
	}
	return at["tcp"]
}

// drift says how the containers that are there differ from the one promised; "" if they don't.
func (k *containerKeeper) drift(ctx context.Context, s sight, want ContainerSpec) (string, error) {
	if len(s.containers) > 1 {
		return fmt.Sprintf("there are %d containers of it", len(s.containers)), nil
	}
	c := s.containers[0]
	image, err := k.engine.Image(ctx, want.Image)
	if err != nil && !errors.Is(err, ErrNoSuch) {
		return "", err
	}
	switch {
	case c.Labels[labelSpec] != want.Labels[labelSpec]:
		return "the promise changed", nil
	case !s.volume:
		return "its volume is gone", nil
	case c.Name != want.Name:
		return fmt.Sprintf("its container was renamed to %s", c.Name), nil
	case image != "" && c.ImageID != image:
		return fmt.Sprintf("image %s is another one now", want.Image), nil
	case c.Memory != want.Memory:
		return fmt.Sprintf("its memory is %s, promised %s", limit(c.Memory, "bytes"), limit(want.Memory, "bytes")), nil
	case c.NanoCPUs != want.NanoCPUs:
		return fmt.Sprintf("its processors are %s, promised %s", limit(c.NanoCPUs, "billionths"), limit(want.NanoCPUs, "billionths")), nil
	case c.Restarts != "":
		return fmt.Sprintf("the engine was told to restart it (%s)", c.Restarts), nil
	case !slices.Equal(c.Networks, []string{want.Network}):
		return fmt.Sprintf("its networks are [%s], promised %s", strings.Join(c.Networks, " "), want.Network), nil
	case c.Paused:
		return "it is paused", nil
	}
	return "", nil
}

func limit(n int64, unit string) string {
	if n == 0 {
		return "without limit"
	}
	return fmt.Sprintf("%d %s", n, unit)
}

// Check asks the engine.
func (k *containerKeeper) Check(ctx context.Context) (Finding, error) {
	f, err := k.check(ctx)
	if k.engine != nil {
		f.Wakes = k.wakes
	}
	return f, err
}

func (k *containerKeeper) check(ctx context.Context) (Finding, error) {
	s, err := k.see(ctx)
	if err != nil {
		return Finding{}, err
	}
	switch k.spec.State {
	case "absent":
		if len(s.containers) > 0 || s.volume {
			return Finding{Reason: fmt.Sprintf("guest %s is there", k.spec.Name)}, nil
		}
		return Finding{OK: true}, nil
	case "stopped":
		if slices.ContainsFunc(s.containers, func(c Container) bool { return c.Running }) {
			return Finding{Reason: "it runs"}, nil
		}
		return Finding{OK: true}, nil
	}
	if len(s.containers) == 0 {
		return Finding{Reason: "it has no container"}, nil
	}
	want, err := k.promised()
	if err != nil {
		return Finding{}, err
	}
	if why, err := k.drift(ctx, s, want); err != nil || why != "" {
		return Finding{Reason: why}, err
	}
	c := s.containers[0]
	if !c.Running {
		why := k.noteEnd(ctx, c)
		return Finding{Reason: why, Again: k.pace.wait(time.Now())}, nil
	}
	rec, err := k.readRecord()
	if err == nil && rec.Restart {
		return Finding{Reason: "a restart was asked for"}, nil
	}
	return Finding{OK: true}, err
}

// noteEnd counts the end of a container once, and says how it ended.
func (k *containerKeeper) noteEnd(ctx context.Context, c Container) string {
	if c.Fresh {
		return "it was never started"
	}
	end := c.ID + c.Finished.String()
	if k.counted == end {
		return k.pace.why
	}
	k.counted = end
	k.pace.ended(time.Now(), c.Finished.Sub(c.Started))
	k.pace.why = fmt.Sprintf("it ended with exit status %d", c.ExitCode)
	if tail, err := k.engine.Tail(ctx, c.ID); err == nil && c.ExitCode != 0 {
		lines := strings.Split(strings.TrimSpace(tail), "\n")
		if last := lines[len(lines)-1]; last != "" {
			k.pace.why += ": " + last
		}
	}
	return k.pace.why
}

// Repair makes, starts, stops or deletes.
func (k *containerKeeper) Repair(ctx context.Context) (Finding, error) {
	f, err := k.repair(ctx)
	if k.engine != nil {
		f.Wakes = k.wakes
	}
	return f, err
}

func (k *containerKeeper) repair(ctx context.Context) (Finding, error) {
	s, err := k.see(ctx)
	if err != nil {
		return Finding{}, err
	}
	switch k.spec.State {
	case "absent":
		return k.delete(ctx, s)
	case "stopped":
		return Finding{OK: true, Reason: "stopped"}, k.stop(ctx, s)
	}
	want, err := k.promised()
	if err != nil {
		return Finding{}, err
	}
	if err := k.succeed(ctx); err != nil {
		return Finding{}, err
	}
	why := "it had none"
	if len(s.containers) > 0 {
		if why, err = k.drift(ctx, s, want); err != nil {
			return Finding{}, err
		}
		if why == "" {
			return k.startAgain(ctx, s.containers[0])
		}
	}
	if err := k.makeable(ctx, want); err != nil {
		return Finding{}, err
	}
	if err := k.stop(ctx, s); err != nil {
		return Finding{}, err
	}
	for _, c := range s.containers {
		if err := k.engine.Remove(ctx, c.ID); err != nil && !errors.Is(err, ErrNoSuch) {
			return Finding{}, err
		}
	}
	if !s.volume {
		if err := k.engine.MakeVolume(ctx, want.Volume, k.labels()); err != nil {
			return Finding{}, err
		}
	}
	id, err := k.engine.Create(ctx, want)
	if err != nil {
		return Finding{}, err
	}
	if err := k.start(ctx, id); err != nil {
		return Finding{}, err
	}
	return Finding{OK: true, Reason: fmt.Sprintf("made container %s anew: %s", want.Name, why)}, nil
}

// makeable looks for what a new container needs before an old one is given up for it.
func (k *containerKeeper) makeable(ctx context.Context, want ContainerSpec) error {
	if _, err := k.engine.Image(ctx, want.Image); errors.Is(err, ErrNoSuch) {
		return fmt.Errorf("image %s is not on this machine: make it with meshd image %s, or pull it", want.Image, want.Image)
	} else if err != nil {
		return err
	}
	for _, m := range want.Mounts {
		if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) {
			return &WaitingError{For: m.Source + ", which is to be mounted"}
		} else if err != nil {
			return err
		}
	}
	return nil
}

// startAgain starts a container that is as promised and ended, or was asked to begin anew.
func (k *containerKeeper) startAgain(ctx context.Context, c Container) (Finding, error) {
	if c.Running {
		if err := k.engine.Stop(ctx, c.ID, defaultGrace); err != nil {
			return Finding{}, err
		}
		return Finding{OK: true, Reason: "restarted container " + c.Name}, k.start(ctx, c.ID)
	}
	why := k.noteEnd(ctx, c)
	if wait := k.pace.wait(time.Now()); wait > 0 {
		return Finding{Again: wait}, fmt.Errorf("%s, %d times soon after its start: next start in %s", why, k.pace.quick, wait.Round(time.Millisecond))
	}
	return Finding{OK: true, Reason: fmt.Sprintf("started container %s: %s", c.Name, why)}, k.start(ctx, c.ID)
}

// start gives a child that is no node yet an invite, good for one, and starts it.
func (k *containerKeeper) start(ctx context.Context, id string) error {
	joined, err := k.engine.Exists(ctx, id, policies.GuestHome+"/node.crt")
	if err != nil {
		return err
	}
	if !joined {
		token, err := k.site.Mesh.Invite(ctx, k.spec.Name, k.spec.Tags)
		if err != nil {
			return fmt.Errorf("invite guest %q: %w", k.spec.Name, err)
		}
		if err := k.engine.Copy(ctx, id, joinPath, []byte(token+"\n")); err != nil {
			return err
		}
	}
	if err := k.engine.Start(ctx, id); err != nil {
		return err
	}
	return k.writeRecord(containerRecord{Kind: k.spec.Kind})
}

// stop ends all containers of the guest and leaves them.
func (k *containerKeeper) stop(ctx context.Context, s sight) error {
	for _, c := range s.containers {
		if !c.Running {
			continue
		}
		if err := k.engine.Stop(ctx, c.ID, defaultGrace); err != nil && !errors.Is(err, ErrNoSuch) {
			return err
		}
	}
	return nil
}

// delete retires the identity before the key goes, so that a crash between the two leaves work to do and
// not a stray key.
func (k *containerKeeper) delete(ctx context.Context, s sight) (Finding, error) {
	if len(s.containers) == 0 && !s.volume {
		return Finding{OK: true}, nil
	}
	if err := k.stop(ctx, s); err != nil {
		return Finding{}, err
	}
	if err := k.site.Mesh.Expel(ctx, k.spec.Name); err != nil {
		return Finding{}, fmt.Errorf("retire the identity of guest %q: %w", k.spec.Name, err)
	}
	for _, c := range s.containers {
		if err := k.engine.Remove(ctx, c.ID); err != nil && !errors.Is(err, ErrNoSuch) {
			return Finding{}, err
		}
	}
	if s.volume {
		if err := k.engine.RemoveVolume(ctx, k.name()); err != nil && !errors.Is(err, ErrNoSuch) {
			return Finding{}, err
		}
	}
	if err := k.writeRecord(containerRecord{}); err != nil {
		return Finding{}, err
	}
	return Finding{OK: true, Reason: fmt.Sprintf("deleted guest %s, its volume and its identity", k.spec.Name)}, nil
}

// Restart has the child started anew at the next Repair, also when this program ends before that.
func (k *containerKeeper) Restart(context.Context) error {
	if k.spec.State == "stopped" || k.spec.State == "absent" {
		return nil
	}
	return k.writeRecord(containerRecord{Kind: k.spec.Kind, Restart: true})
}

// Watches: a container is watched by its Wakes.
func (k *containerKeeper) Watches() []Watch { return nil }

// Yield leaves the container to the next keeper of this address.
func (k *containerKeeper) Yield() {
	if k.unwatch != nil {
		k.unwatch()
	}
	k.engine, k.unwatch = nil, nil
}

// End stops the guest, unless it is the agent that leaves: only "absent" deletes.
func (k *containerKeeper) End(ctx context.Context, leaving bool) error {
	defer k.Yield()
	if leaving {
		return nil
	}
	s, err := k.see(ctx)
	if err != nil {
		return err
	}
	return k.stop(ctx, s)
}
