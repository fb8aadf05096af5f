//go:build linux

package demo

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const (
	siteDevice = "eth0"
	siteAddr   = "10.76.%d.%d/16" // street, port
)

// A site is a network for the nodes of one fleet: each in a namespace of its own, with a cable to one switch.
type site struct {
	t      *testing.T
	prefix string
	ports  map[string]int // by node: the number of its port, and the last of its address
}

// newSite makes a fleet whose nodes live at a site; the namespaces are gone when the test ends.
func newSite(t *testing.T) (*site, *fleet) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skip: needs root: makes network namespaces")
	}
	for _, tool := range []string{"ip", "nft", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("skip: needs root, ip, nft and nsenter (packages iproute2, nftables, util-linux): %v", err)
		}
	}
	s := &site{t: t, prefix: "meshd-" + strings.ToLower(rand.Text()[:8]) + "-", ports: map[string]int{}}
	s.space("switch")
	s.ip("switch", "link add br0 type bridge")
	s.ip("switch", "link set br0 up")
	f := newFleet(t)
	f.lay = s.lay
	return s, f
}

// space makes a namespace; it is removed after the processes in it have ended.
func (s *site) space(name string) {
	s.t.Helper()
	command(s.t, "ip", "netns", "add", s.prefix+name)
	s.t.Cleanup(func() { command(s.t, "ip", "netns", "delete", s.prefix+name) })
	s.ip(name, "link set lo up")
}

func (s *site) ip(space, args string) {
	s.t.Helper()
	command(s.t, "ip", append([]string{"-n", s.prefix + space}, strings.Fields(args)...)...)
}

// lay gives a node a namespace and a cable to the switch, and returns the command that starts programs there.
func (s *site) lay(name string) (within []string) {
	s.t.Helper()
	s.ports[name] = len(s.ports) + 1
	port := s.port(name)
	s.space(name)
	s.ip(name, "link add "+siteDevice+" type veth peer name "+port+" netns "+s.prefix+"switch")
	s.ip("switch", "link set "+port+" master br0 up")
	s.ip(name, "link set "+siteDevice+" up")
	s.move(name, 1)
	return []string{"nsenter", "--net=/run/netns/" + s.prefix + name}
}

func (s *site) port(name string) string { return fmt.Sprintf("p%d", s.ports[name]) }

// move takes the node's address away and gives it one in another street, which it returns.
func (s *site) move(name string, street int) string {
	s.t.Helper()
	addr := fmt.Sprintf(siteAddr, street, s.ports[name])
	s.ip(name, "addr flush dev "+siteDevice)
	s.ip(name, "addr add "+addr+" dev "+siteDevice)
	host, _, _ := strings.Cut(addr, "/")
	return host
}

// split has the switch drop all between these nodes and the others, without a word to anybody.
func (s *site) split(names ...string) {
	s.t.Helper()
	var here []string
	for _, name := range names {
		here = append(here, s.port(name))
	}
	set := "{ " + strings.Join(here, ", ") + " }"
	s.nft("add table bridge cut; add chain bridge cut forward { type filter hook forward priority 0; policy accept; };" +
		"add rule bridge cut forward iifname " + set + " oifname != " + set + " drop;" +
		"add rule bridge cut forward iifname != " + set + " oifname " + set + " drop")
}

// heal undoes split.
func (s *site) heal() {
	s.t.Helper()
	s.nft("delete table bridge cut")
}

func (s *site) nft(rules string) {
	s.t.Helper()
	command(s.t, "nsenter", "--net=/run/netns/"+s.prefix+"switch", "nft", rules)
}
