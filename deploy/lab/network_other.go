//go:build !linux

package main

import (
	"context"
	"time"
)

// A host is a namespace of its own; there are none here.
type host struct{ addr string }

func (*host) do(f func() error) error { return f() }

const meshdPort = "6374"

var swarmScenarios = func() []scenario {
	skipped := func(context.Context, *lab) ([]figure, error) {
		return []figure{{name: "shaped links", remark: "they need Linux (network namespaces)"}}, nil
	}
	return []scenario{{"swarm8", time.Minute, skipped}, {"quick", time.Minute, skipped}}
}()
