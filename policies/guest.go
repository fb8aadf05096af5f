package policies

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// GuestHome is where a guest in a container has its data folder: the volume meshd-NAME.
const GuestHome = "/var/lib/meshd"

const (
	leastMemory = 6 << 20 // what engines insist on
	mostMemory  = 1 << 50
	leastCPUs   = 0.01
	mostCPUs    = 4096
)

// A Mount is a file or folder of the host that a guest in a container sees.
type Mount struct {
	Source   string // absolute, or inside the work folder of the maker
	Target   string // absolute, in the container
	ReadOnly bool
}

// A Port is one that a guest in a container answers at on its host.
type Port struct {
	Addr  string // of the host, "" all
	Host  int
	Guest int
	Proto string // "tcp", "udp"
}

func (ev *evaluator) guest(i instance, vs values) (Spec, error) {
	g := Guest{
		Kind: vs.str("kind"), Name: vs.str("name"), State: vs.str("state"), Tags: vs.dict("tags"),
		Env: vs.dict("env"), RestartOn: ev.resolve(i, i.b.refs["restart_on"]),
	}
	if g.Name == "" {
		g.Name = i.key
	}
	if g.Name == "" {
		g.Name = i.b.name
	}
	if !nodeName(g.Name) {
		return nil, fmt.Errorf("guest name %.80q is no node name: letters, digits, '.', '_', '-', at most 63", g.Name)
	}
	if err := g.contain(vs); err != nil {
		return nil, err
	}
	return g, nil
}

// contain reads what only guests in containers have.
func (g *Guest) contain(vs values) error {
	if g.Kind == "process" {
		for _, name := range []string{"image", "network", "mounts", "ports", "memory", "cpus"} {
			if vs.has(name) {
				return fmt.Errorf(`%s is for guests in containers: say kind = "docker" or "podman"`, name)
			}
		}
		return nil
	}
	g.Image, g.Network = vs.str("image"), vs.str("network")
	if strings.ContainsFunc(g.Image, func(r rune) bool { return r <= ' ' || r == 0x7f }) || g.Image == "" {
		return fmt.Errorf("image %.80q is no name of an image", g.Image)
	}
	for _, text := range vs.strs("mounts") {
		m, err := parseMount(text)
		if err != nil {
			return err
		}
		g.Mounts = append(g.Mounts, m)
	}
	for _, text := range vs.strs("ports") {
		p, err := parsePort(text)
		if err != nil {
			return err
		}
		g.Ports = append(g.Ports, p)
	}
	if len(g.Ports) > 0 && g.Network == "host" {
		return errors.New(`ports clashes with network = "host": there nothing needs to be published`)
	}
	var err error
	if vs.has("memory") {
		if g.Memory, err = parseMemory(vs.str("memory")); err != nil {
			return err
		}
	}
	if vs.has("cpus") {
		g.NanoCPUs, err = parseCPUs(vs.str("cpus"))
	}
	return err
}

// parseMount reads "SOURCE:TARGET" and "SOURCE:TARGET:ro".
func parseMount(s string) (Mount, error) {
	source, rest, ok := strings.Cut(s, ":")
	target, mode, hasMode := strings.Cut(rest, ":")
	m := Mount{Source: source, Target: path.Clean(target), ReadOnly: mode == "ro"}
	switch {
	case !ok || hasMode && mode != "ro" && mode != "rw" || strings.Contains(mode, ":"):
		return m, fmt.Errorf("mount %.80q is not SOURCE:TARGET or SOURCE:TARGET:ro", s)
	case !path.IsAbs(target) || m.Target == "/":
		return m, fmt.Errorf("mount %.80q: the target is an absolute path below /", s)
	case under(GuestHome, m.Target) || under(m.Target, GuestHome):
		return m, fmt.Errorf("mount %.80q hides %s, where the guest keeps its key", s, GuestHome)
	}
	return m, checkPath(source)
}

// parsePort reads "[ADDR:]HOST:GUEST[/tcp|/udp]"; an IPv6 address stands in brackets.
func parsePort(s string) (Port, error) {
	bad := fmt.Errorf("port %.80q is not [ADDR:]HOST:GUEST[/tcp|/udp], such as 8080:80", s)
	text, proto, hasProto := strings.Cut(s, "/")
	if !hasProto {
		proto = "tcp"
	}
	cut := strings.LastIndexByte(text, ':')
	if cut < 0 || !slices.Contains([]string{"tcp", "udp"}, proto) {
		return Port{}, bad
	}
	host, guest := text[:cut], text[cut+1:]
	p := Port{Proto: proto}
	if at := strings.LastIndexByte(host, ':'); at >= 0 {
		addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host[:at], "["), "]"))
		if err != nil {
			return Port{}, bad
		}
		p.Addr, host = addr.String(), host[at+1:]
	}
	for _, side := range []struct {
		text string
		to   *int
	}{{host, &p.Host}, {guest, &p.Guest}} {
		n, err := strconv.ParseUint(side.text, 10, 16)
		if err != nil || n == 0 {
			return Port{}, bad
		}
		*side.to = int(n)
	}
	return p, nil
}

// parseMemory reads bytes as container engines do: "256m" are 256 MiB.
func parseMemory(s string) (int64, error) {
	digits := strings.TrimRight(s, "bBiIkKmMgGtT")
	n, err := strconv.ParseFloat(digits, 64)
	shift := map[string]uint{"": 0, "b": 0, "k": 10, "kb": 10, "kib": 10, "m": 20, "mb": 20, "mib": 20, "g": 30, "gb": 30, "gib": 30, "t": 40, "tb": 40, "tib": 40}
	by, known := shift[strings.ToLower(s[len(digits):])]
	if err != nil || !known || math.IsNaN(n) {
		return 0, fmt.Errorf("memory %.40q is no size (such as 256m or 1g)", s)
	}
	bytes := n * float64(int64(1)<<by)
	if bytes < leastMemory || bytes > mostMemory {
		return 0, fmt.Errorf("memory %.40q: engines take 6m and more", s)
	}
	return int64(bytes), nil
}

// parseCPUs reads how many processors, in billionths.
func parseCPUs(s string) (int64, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || !(n >= leastCPUs && n <= mostCPUs) {
		return 0, fmt.Errorf("cpus %.40q is no number of processors (such as 0.5)", s)
	}
	return int64(math.Round(n * 1e9)), nil
}
