package policies

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGuestsInContainersAreReadAsWritten(t *testing.T) {
	p := mustCompile(t, head+`
part "p" {
  guest "whole" {
    kind    = "docker"
    image   = "registry.example:5000/meshd:1.2"
    mounts  = ["shared:/srv/shared/", "/etc/hosts:/etc/hosts:ro"]
    ports   = ["8080:80", "127.0.0.1:5353:53/udp", "[::1]:443:443/tcp"]
    memory  = "1.5g"
    cpus    = 0.5
  }
  guest "plain" {
    kind    = "podman"
    network = "host"
  }
  guest "child" {}
}
`)
	got := played(t, p, world{name: "host"}.env(p), nil)
	for _, want := range []Guest{
		{
			Kind: "docker", Name: "whole", State: "running", Image: "registry.example:5000/meshd:1.2", Network: "bridge",
			Mounts:   []Mount{{"shared", "/srv/shared", false}, {"/etc/hosts", "/etc/hosts", true}},
			Ports:    []Port{{"", 8080, 80, "tcp"}, {"127.0.0.1", 5353, 53, "udp"}, {"::1", 443, 443, "tcp"}},
			Memory:   3 << 29,
			NanoCPUs: 500_000_000,
		},
		{Kind: "podman", Name: "plain", State: "running", Image: "meshd:latest", Network: "host"},
		{Kind: "process", Name: "child", State: "running"},
	} {
		if diff := cmp.Diff(want, got[Address("p.guest."+want.Name)].Spec); diff != "" {
			t.Errorf("%s: -want +got\n%s", want.Name, diff)
		}
	}
}

func TestMemoryIsReadAsEnginesDo(t *testing.T) {
	for text, want := range map[string]int64{
		"8388608": 8 << 20, "8388608b": 8 << 20, "64m": 64 << 20, "64MB": 64 << 20, "64MiB": 64 << 20, "0.5g": 1 << 29, "1T": 1 << 40,
		"": 0, "m": 0, "-1g": 0, "NaNg": 0, "1x": 0, "1mm": 0, "5m": 0, "9999999t": 0, "Inf": 0, "1 g": 0,
	} {
		got, err := parseMemory(text)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("parseMemory(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
}
