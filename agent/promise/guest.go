package promise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"

	"meshd/policies"
)

// nodeName is what SPEC 4 allows a node to be called.
var nodeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// maxLeftovers bounds the processes of a guest that are stopped with it.
const maxLeftovers = 10_000

// A guestKeeper keeps a child node on this machine: meshd itself, with a data folder of its own. It is a
// processKeeper round it, an invite for its first start, and the end of all it leaves.
//
// Beside the folder guests/NAME lies guests/NAME.guest, the address of the promise that made it: a
// folder without it was made by somebody else and is not touched.
type guestKeeper struct {
	spec    policies.Guest
	site    Site
	process *processKeeper
	data    string // the child's data folder
}

func newGuest(p policies.Promise, g policies.Guest, s Site) (Keeper, error) {
	if !nodeName.MatchString(g.Name) {
		return nil, fmt.Errorf("guest name %q: a node is named by a letter or digit and up to 62 more, or . _ -", g.Name)
	}
	state := g.State
	switch state {
	case "", "running":
		state = "running"
	case "stopped":
	case "absent":
		state = "stopped"
	default:
		return nil, fmt.Errorf("state %q: it is \"running\", \"stopped\" or \"absent\"", g.State)
	}
	if g.Kind != "" && g.Kind != "process" {
		return newContainer(p, g, s)
	}
	k := &guestKeeper{spec: g, site: s, data: filepath.Join(s.Data, "guests", g.Name)}
	run := policies.Process{
		Run: []string{s.Exe, "run", "--data-dir", k.data, "--name", g.Name, "--listen", "127.0.0.1:0"},
		Env: g.Env, Dir: s.Data, State: state,
	}
	process, err := newProcess(p, run, s)
	if err != nil {
		return nil, err
	}
	k.process = process.(*processKeeper)
	k.process.args = k.join
	return k, nil
}

func (k *guestKeeper) markFile() string { return k.data + ".guest" }
func (k *guestKeeper) joinFile() string { return k.data + ".join" }

// made reports whether the guest's folder, or the sign that it is ours to make, is there. It is an error
// when the folder is and the sign is not.
func (k *guestKeeper) made() (bool, error) {
	_, err := os.Lstat(k.markFile())
	if err == nil {
		return true, nil
	} else if !isGone(err) {
		return false, err
	}
	_, err = os.Lstat(k.data)
	switch {
	case isGone(err):
		return false, nil
	case err != nil:
		return false, err
	}
	return false, fmt.Errorf("folder %s was not made by this promise (%s is missing): move it away, or choose another name", k.data, k.markFile())
}

// joined reports whether the child has a node: then it needs no invite.
func (k *guestKeeper) joined() bool {
	_, err := os.Lstat(filepath.Join(k.data, "node.crt"))
	return err == nil
}

// join makes the folder and, for a child that is no node yet, an invite that is good for one.
func (k *guestKeeper) join(ctx context.Context) ([]string, error) {
	if _, err := k.made(); err != nil {
		return nil, err
	}
	if rec, err := readContainer(k.site.Memory, k.process.address); err != nil {
		return nil, err
	} else if rec.Kind != "" {
		if err := stopContainer(ctx, policies.Promise{Address: k.process.address}, k.spec, rec.Kind, k.site); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(k.data), 0o700); err != nil {
		return nil, err
	}
	if err := writeOwn(k.markFile(), string(k.process.address)+"\n"); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(k.data, 0o700); err != nil {
		return nil, err
	}
	if k.joined() {
		if err := os.Remove(k.joinFile()); err != nil && !isGone(err) {
			return nil, fmt.Errorf("remove the used invite: %w", err)
		}
		return nil, nil
	}
	token, err := k.site.Mesh.Invite(ctx, k.spec.Name, k.spec.Tags)
	if err != nil {
		return nil, fmt.Errorf("invite guest %q: %w", k.spec.Name, err)
	}
	if err := writeOwn(k.joinFile(), token+"\n"); err != nil {
		return nil, err
	}
	return []string{"--join", "@" + k.joinFile()}, nil
}

// writeOwn writes a small file that only this user may read.
func writeOwn(path, text string) error {
	if err := os.Remove(path); err != nil && !isGone(err) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// Check looks at the child's process; for an absent guest also at what it left.
func (k *guestKeeper) Check(ctx context.Context) (Finding, error) {
	made, err := k.made()
	if err != nil {
		return Finding{}, err
	}
	f, err := k.process.Check(ctx)
	if err != nil || !f.OK {
		return f, err
	}
	if k.spec.State == "absent" && made {
		return Finding{Reason: fmt.Sprintf("guest %s is there", k.spec.Name)}, nil
	}
	return f, nil
}

// Repair starts or stops the child. An absent guest loses its identity before its folder, so that a
// crash between the two leaves work to do and not a stray key.
func (k *guestKeeper) Repair(ctx context.Context) (Finding, error) {
	made, err := k.made()
	if err != nil {
		return Finding{}, err
	}
	f, err := k.process.Repair(ctx)
	if err != nil || k.spec.State == "" || k.spec.State == "running" {
		return f, err
	}
	if err := k.stopLeftovers(ctx); err != nil {
		return Finding{}, err
	}
	if k.spec.State != "absent" || !made {
		return f, nil
	}
	if err := k.site.Mesh.Expel(ctx, k.spec.Name); err != nil {
		return Finding{}, fmt.Errorf("retire the identity of guest %q: %w", k.spec.Name, err)
	}
	if err := k.remove(); err != nil {
		return Finding{}, fmt.Errorf("remove guest %q: %w", k.spec.Name, err)
	}
	return Finding{OK: true, Reason: fmt.Sprintf("deleted guest %s and its identity", k.spec.Name)}, nil
}

// remove deletes the folder, then the sign that it was ours.
func (k *guestKeeper) remove() error {
	root, err := os.OpenRoot(filepath.Dir(k.data))
	if isGone(err) {
		return nil
	} else if err != nil {
		return err
	}
	defer root.Close()
	if err := root.RemoveAll(k.spec.Name); err != nil {
		return err
	}
	for _, path := range []string{k.joinFile(), k.markFile()} {
		if err := root.Remove(filepath.Base(path)); err != nil && !isGone(err) {
			return err
		}
	}
	return syncDir(root)
}

// stopLeftovers ends the processes that the child kept: they outlive a meshd by design, and here the
// whole guest is to end. Their marks begin with its data folder; so do those of its own guests.
func (k *guestKeeper) stopLeftovers(ctx context.Context) error {
	for _, mark := range []string{k.data + ":*", k.data + string(filepath.Separator) + "*"} {
		for range maxLeftovers {
			pid, start, err := k.site.Host.Find(mark)
			if errors.Is(err, ErrNotFound) {
				break
			} else if err != nil {
				return fmt.Errorf("look for processes of guest %q: %w", k.spec.Name, err)
			}
			c, err := k.site.Host.Adopt(pid, start)
			if errors.Is(err, ErrNotFound) {
				continue
			} else if err != nil {
				return err
			}
			if err := stopChild(ctx, c, "TERM", defaultGrace); err != nil {
				return err
			}
		}
	}
	return nil
}

// Restart has the child started anew.
func (k *guestKeeper) Restart(ctx context.Context) error { return k.process.Restart(ctx) }

// Yield leaves the child to the next keeper of this address.
func (k *guestKeeper) Yield() { k.process.Yield() }

// Watches: a guest is watched by its Wakes.
func (k *guestKeeper) Watches() []Watch { return nil }

// End stops the guest, unless it is the agent that leaves: only "absent" deletes.
func (k *guestKeeper) End(ctx context.Context, leaving bool) error {
	if leaving {
		return nil
	}
	if err := k.process.End(ctx, false); err != nil {
		return err
	}
	return k.stopLeftovers(ctx)
}
