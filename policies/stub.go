package policies

import (
	"time"

	"github.com/zclconf/go-cty/cty"
)

// NameTime is the changed name that stands for the clock: pass it to Expand when Edge has passed.
const NameTime = "time"

func Compile(files map[string][]byte) (*Program, error) { panic("not built") }
// Vet is the check; Check is the noun of process.
func Vet(files map[string][]byte) Diagnostics { panic("not built") }
func (*Program) Score() Score { panic("not built") }
func (*Program) RoleNames() []string { panic("not built") }
func (*Program) RoleWhy(name string) string { panic("not built") }
func (*Program) RoleHold(name string) time.Duration { panic("not built") }
func (*Program) Role(name string, e Env) (holds cty.Value, because []string) { panic("not built") }
func (*Program) Expand(e Env, changed []string) ([]Group, error) { panic("not built") }
func (*Program) Facts() []Fact { panic("not built") }
func (*Program) Allows(right, artifact, publisher string, holds func(role string) bool) (ok bool, why string) {
	panic("not built")
}
func (*Program) NextEdge(at time.Time) time.Time { panic("not built") }
func (*Program) Story() string { panic("not built") }
func (*Program) Graph() []Edge { panic("not built") }
func MatchName(pattern, name string) bool { panic("not built") }
