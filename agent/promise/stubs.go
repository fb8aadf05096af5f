package promise

import (
	"context"

	"meshd/policies"
)

func newFile(p policies.Promise, f policies.File, s Site) (Keeper, error) { panic("not built") }

func newCommand(p policies.Promise, f policies.Command, s Site) (Keeper, error) { panic("not built") }

func newProcess(p policies.Promise, f policies.Process, s Site) (Keeper, error) { panic("not built") }

func newGuest(p policies.Promise, f policies.Guest, s Site) (Keeper, error) { panic("not built") }

func newArtifact(p policies.Promise, f policies.Artifact, s Site) (Keeper, error) { panic("not built") }

func newWant(p policies.Promise, f policies.Want, s Site) (Keeper, error) { panic("not built") }

func shortHash(b []byte) string { panic("not built") }

type reportKeeper struct {
	address policies.Address
	spec    policies.Report
	site    Site
}

func (*reportKeeper) Check(context.Context) (Finding, error)  { panic("not built") }
func (*reportKeeper) Repair(context.Context) (Finding, error) { panic("not built") }
func (*reportKeeper) Watches() []Watch                        { panic("not built") }
func (*reportKeeper) End(context.Context, bool) error         { panic("not built") }

// Real is the Host of the machine itself.
type Real struct{}

// NewReal opens the one watcher of this machine that the agent uses.
func NewReal() (*Real, error) { panic("not built") }

// Close ends the watches and waits for what the Real started; children live on.
func (*Real) Close() error { panic("not built") }

// Sim is a Host of pretence, for tests in a bubble.
type Sim struct{}

// A Program is what a simulated command does.
type Program func(ctx context.Context, c Cmd) (code int, output []byte)

// NewSim makes a machine that knows these programs by their argv[0].
func NewSim(programs map[string]Program) *Sim { panic("not built") }
