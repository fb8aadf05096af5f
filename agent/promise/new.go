package promise

import (
	"fmt"
	"net/url"
	"path/filepath"

	"meshd/policies"
)

// New makes the keeper of p. It touches nothing: that is for Check and Repair.
func New(p policies.Promise, s Site) (Keeper, error) {
	var k Keeper
	var err error
	switch spec := p.Spec.(type) {
	case nil:
		return nil, fmt.Errorf("promise %s: not evaluated: %s", p.Address, p.Problem)
	case policies.File:
		k, err = newFile(p, spec, s)
	case policies.Command:
		k, err = newCommand(p, spec, s)
	case policies.Process:
		k, err = newProcess(p, spec, s)
	case policies.Guest:
		k, err = newGuest(p, spec, s)
	case policies.Artifact:
		k, err = newArtifact(p, spec, s)
	case policies.Want:
		k, err = newWant(p, spec, s)
	case policies.Report:
		k = &reportKeeper{address: p.Address, spec: spec, site: s}
	default:
		return nil, fmt.Errorf("promise %s: type %q is not yet supported by this version", p.Address, p.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("promise %s: %w", p.Address, err)
	}
	return k, nil
}

// maxLogName keeps a log's name, with its suffix, under the 255 bytes that file systems allow.
const maxLogName = 200

// LogPath is the file that holds what the command, process or guest at a printed: at most 1 MiB, and as
// much again in the file of the same name with ".1" behind it.
func LogPath(data string, a policies.Address) string {
	name := url.PathEscape(string(a))
	if len(name) > maxLogName {
		name = name[:maxLogName] + "-" + shortHash([]byte(a))
	}
	return filepath.Join(data, "logs", name+".log")
}
