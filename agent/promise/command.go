package promise

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"meshd/policies"
)

// Limits of a command promise.
const (
	defaultCommandTimeout = 10 * time.Minute // POLICY.md
	maxRuns               = 5                // in one repair, while the inputs go on changing
)

// A commandKeeper makes outputs from inputs, by content: what ran with the same key is not run again.
//
// Memory holds, under ADDRESS 0x00 "command", the key of the last success and the outputs it left:
// version byte 1, key (32), sum of outputs (32).
type commandKeeper struct {
	address         policies.Address
	spec            policies.Command
	site            Site
	inputs, outputs []glob
	seen            snapshots
}

const commandRecord = 1 // version byte

func newCommand(p policies.Promise, c policies.Command, s Site) (Keeper, error) {
	k := &commandKeeper{address: p.Address, spec: c, site: s, seen: snapshots{site: s}}
	if (len(c.Run) == 0) == (c.Shell == "") {
		return nil, errors.New("command needs one of run and shell")
	}
	if c.Timeout <= 0 {
		k.spec.Timeout = defaultCommandTimeout
	}
	if len(c.OK) == 0 {
		k.spec.OK = []int{0}
	}
	for _, text := range c.Inputs {
		g, err := newGlob(s, text)
		if err != nil {
			return nil, fmt.Errorf("inputs: %w", err)
		}
		k.inputs = append(k.inputs, g)
	}
	for _, text := range c.Outputs {
		g, err := newGlob(s, text)
		if err != nil {
			return nil, fmt.Errorf("outputs: %w", err)
		}
		if g.plain {
			if err := k.isInput(g.folder()); err != nil {
				return nil, err
			}
		}
		k.outputs = append(k.outputs, g)
	}
	if c.Dir != "" {
		if _, err := newPlace(s, c.Dir); err != nil {
			return nil, fmt.Errorf("dir: %w", err)
		}
	}
	return k, nil
}

// isInput is the error that an output is its own input: it would run for ever.
func (k *commandKeeper) isInput(path string) error {
	for _, g := range k.inputs {
		if g.covers(path) {
			return fmt.Errorf("output %s is also an input, by %q: an output may not be its own input", path, g.text)
		}
	}
	return nil
}

func (k *commandKeeper) memoryKey() string { return string(k.address) + "\x00command" }

// byContent reports whether inputs or outputs decide when the command runs.
func (k *commandKeeper) byContent() bool { return len(k.inputs)+len(k.outputs) > 0 }

// key is the action key: all that the result depends on.
func (k *commandKeeper) key(in snapshot) [sha256.Size]byte {
	h := sha256.New()
	field := func(parts ...string) {
		writeField(h, binary.BigEndian.AppendUint64(nil, uint64(len(parts))))
		for _, p := range parts {
			writeField(h, []byte(p))
		}
	}
	field("meshd command 1", runtime.GOOS, runtime.GOARCH)
	field(k.spec.Run...)
	field(k.spec.Shell, k.spec.Dir, k.spec.User)
	for _, name := range sortedKeys(k.spec.Env) {
		field(name, k.spec.Env[name])
	}
	for _, code := range k.spec.OK {
		field(fmt.Sprint(code))
	}
	h.Write(in.sum[:])
	var key [sha256.Size]byte
	h.Sum(key[:0])
	return key
}

// state is what is there: the key it calls for and the outputs. why says what is missing of these.
func (k *commandKeeper) state(ctx context.Context) (key, out [sha256.Size]byte, why string, err error) {
	in, err := k.seen.take(ctx, k.inputs)
	if none, ok := errors.AsType[errNoMatch](err); ok {
		return key, out, "", &WaitingError{For: "input " + none.pattern}
	} else if err != nil {
		return key, out, "", fmt.Errorf("read inputs: %w", err)
	}
	key = k.key(in)
	left, err := k.seen.take(ctx, k.outputs)
	if none, ok := errors.AsType[errNoMatch](err); ok {
		return key, out, fmt.Sprintf("output %s is missing", none.pattern), nil
	} else if err != nil {
		return key, out, "", fmt.Errorf("read outputs: %w", err)
	}
	for path := range left.paths {
		if _, both := in.paths[path]; both {
			return key, out, "", k.isInput(path)
		}
	}
	k.seen.forget(in, left)
	return key, left.sum, "", nil
}

// Check runs nothing.
func (k *commandKeeper) Check(ctx context.Context) (Finding, error) {
	key, out, why, err := k.state(ctx)
	if err != nil {
		return Finding{}, err
	}
	last, err := k.site.Memory.Get(k.memoryKey())
	if err != nil {
		return Finding{}, fmt.Errorf("read what ran last: %w", err)
	}
	switch {
	case len(last) != 1+2*sha256.Size || last[0] != commandRecord:
		why = "it has not run yet"
	case [sha256.Size]byte(last[1:]) != key:
		why = "its inputs or the promise changed since it ran"
	case why != "":
	case [sha256.Size]byte(last[1+sha256.Size:]) != out:
		why = "its outputs were changed by something else"
	}
	return Finding{OK: why == "", Reason: why}, nil
}

// Repair runs the command, and again while its inputs change under it.
func (k *commandKeeper) Repair(ctx context.Context) (Finding, error) {
	found, err := k.Check(ctx)
	if err != nil || found.OK {
		return found, err
	}
	for range maxRuns {
		before, _, _, err := k.state(ctx)
		if err != nil {
			return Finding{}, err
		}
		if err := k.run(ctx); err != nil {
			return Finding{}, err
		}
		key, out, why, err := k.state(ctx)
		if err != nil {
			return Finding{}, err
		}
		if key != before {
			continue
		}
		if why != "" {
			return Finding{}, fmt.Errorf("%s ran well, but %s", k.name(), why)
		}
		rec := slices.Concat([]byte{commandRecord}, key[:], out[:])
		if err := k.site.Memory.Put(k.memoryKey(), rec); err != nil {
			return Finding{}, fmt.Errorf("remember that %s ran: %w", k.name(), err)
		}
		return Finding{OK: true, Reason: "ran: " + found.Reason}, nil
	}
	return Finding{}, fmt.Errorf("the inputs of %s changed during each of %d runs", k.name(), maxRuns)
}

func (k *commandKeeper) name() string {
	if k.spec.Shell != "" {
		return "the shell command"
	}
	return fmt.Sprintf("%q", k.spec.Run[0])
}

func (k *commandKeeper) run(ctx context.Context) error {
	argv := k.spec.Run
	if k.spec.Shell != "" {
		argv = shellArgv(k.spec.Shell)
	}
	code, tail, err := k.site.Host.Exec(ctx, Cmd{
		Argv: argv, Env: environ(k.spec.Env), Dir: workDir(k.site, k.spec.Dir), User: k.spec.User,
		LogPath: LogPath(k.site.Data, k.address),
	}, k.spec.Timeout)
	if err != nil {
		return fmt.Errorf("%w%s", err, printed(tail))
	}
	if !slices.Contains(k.spec.OK, code) {
		return fmt.Errorf("%s ended with exit code %d%s", k.name(), code, printed(tail))
	}
	return nil
}

// printed is the end of the output, as a reason shows it.
func printed(tail []byte) string {
	if len(tail) == 0 {
		return ""
	}
	return ": " + oneLine(tail)
}

// workDir is where a program of the score runs.
func workDir(s Site, dir string) string {
	if filepath.IsAbs(dir) {
		return dir
	}
	return filepath.Join(s.Work, dir)
}

func shellArgv(script string) []string {
	if runtime.GOOS == "windows" {
		return []string{"cmd", "/C", script}
	}
	return []string{"/bin/sh", "-c", script}
}

// Restart forgets the last success of a command that no content decides.
func (k *commandKeeper) Restart(context.Context) error {
	if k.byContent() {
		return nil
	}
	return k.site.Memory.Put(k.memoryKey(), nil)
}

// Watches: inputs settle, since people and programs edit them. Outputs don't: they are the command's own,
// and those who need it would wait for the look that follows its own writes.
func (k *commandKeeper) Watches() []Watch {
	var w []Watch
	for _, g := range k.inputs {
		w = append(w, Watch{Path: g.folder(), Recursive: true, Settle: true})
	}
	for _, g := range k.outputs {
		w = append(w, Watch{Path: g.folder(), Recursive: true})
	}
	return w
}

// End has nothing to stop: the agent ends ctx of a Repair that runs.
func (k *commandKeeper) End(context.Context, bool) error { return nil }
