package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"meshd/agent/control"
	"meshd/policies"
)

// ErrRestart is wrapped by a change of settings that a running node can't make.
var ErrRestart = errors.New("takes effect at the next start")

// ReloadPolicy reads the local score in dir again and plays it. One that is faulty is refused, and the one
// in force plays on; dir "" is right for a node that plays the mesh's score, and does nothing.
func (a *Agent) ReloadPolicy(ctx context.Context, dir string) error {
	var was string
	if err := a.loop.do(ctx, func() { was = a.loop.policyDir }); err != nil {
		return err
	}
	if dir == "" {
		if was != "" {
			return fmt.Errorf("play the mesh's score in place of the one in %s: %w", was, ErrRestart)
		}
		return nil
	}
	files, program, err := compileFolder(dir)
	return errors.Join(err, a.loop.do(ctx, func() {
		l := a.loop
		if err != nil {
			a.tally.scoresRefused.Add(1)
			l.log.append(Entry{At: a.cfg.Wall(), Kind: aboutScore, Subject: scoreName, Outcome: stateRefused, Text: err.Error()})
			return
		}
		l.policyDir = dir
		if l.program == nil || l.program.Score().Hash != program.Score().Hash {
			l.playLocal(dir, files, program)
		}
	}))
}

// compileFolder reads the score of --policy; its errors wrap ErrConfig.
func compileFolder(dir string) (map[string][]byte, *policies.Program, error) {
	files, err := ReadFolder(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	program, err := policies.Compile(files)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: score in %s: %w", ErrConfig, dir, err)
	}
	return files, program, nil
}

// playLocal puts the score of --policy in force.
func (l *loop) playLocal(dir string, files map[string][]byte, program *policies.Program) {
	s := scoreState{Semver: program.Score().Version, By: l.a.mesh.Self().String(), Since: l.a.cfg.Wall(), Files: files}
	l.play(program, &s, Cause{Text: "--policy " + dir})
}

// Backend answers operators: it is what the door is made of, for other listeners of this program.
func (a *Agent) Backend() control.Backend { return door{a} }

// healthyWithin is how long the loop may take to answer before the node counts as not ready.
const healthyWithin = 2 * time.Second

// Healthy is nil while the node runs and its loop turns.
func (a *Agent) Healthy() error {
	select {
	case <-a.ready:
	default:
		return errors.New("the node is starting")
	}
	ctx, cancel := context.WithTimeout(context.Background(), healthyWithin)
	defer cancel()
	if err := a.loop.do(ctx, func() {}); err != nil {
		return fmt.Errorf("the loop does not answer: %w", err)
	}
	return nil
}
