//go:build unix

package promise

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// outputWait is how long Exec waits, after its program ended, for others that hold its output open.
const outputWait = time.Second

// command prepares c: its own program, user and environment, nothing inherited.
func command(c Cmd) (*exec.Cmd, error) {
	if len(c.Argv) == 0 {
		return nil, errors.New("no program is named")
	}
	path, err := lookPath(c.Argv[0], c.Env, c.Dir)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{Path: path, Args: c.Argv, Env: c.Env, Dir: c.Dir, SysProcAttr: &syscall.SysProcAttr{}}
	if c.User == "" {
		return cmd, nil
	}
	cred, home, err := credential(c.User)
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr.Credential = cred
	cmd.Env = append(append([]string{}, c.Env...), "HOME="+home, "USER="+c.User)
	return cmd, nil
}

func credential(name string) (*syscall.Credential, string, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, "", fmt.Errorf("user %q is not known on this machine", name)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, "", fmt.Errorf("user %q has no number", name)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, "", fmt.Errorf("user %q has no group number", name)
	}
	cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if os.Geteuid() == int(uid) {
		cred.NoSetGroups = true // who we are already: no right is needed
		return cred, u.HomeDir, nil
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, "", fmt.Errorf("groups of user %q: %w", name, err)
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			cred.Groups = append(cred.Groups, uint32(n))
		}
	}
	return cred, u.HomeDir, nil
}

// Exec runs c in a process group of its own and kills that whole group when time is up. Programs that it
// leaves in the background after a good end are theirs to keep.
func (r *Real) Exec(ctx context.Context, c Cmd, timeout time.Duration) (code int, tail []byte, err error) {
	cmd, err := command(c)
	if err != nil {
		return 0, nil, err
	}
	out, err := newOutput(c.LogPath)
	if err != nil {
		return 0, nil, fmt.Errorf("open the log: %w", err)
	}
	defer out.close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr.Setpgid = true
	cmd.WaitDelay = outputWait
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	r.ran.Add(1)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	var cut error
	select {
	case err = <-ended:
	case <-timer.C:
		cut = fmt.Errorf("%q ran longer than its timeout of %s and was killed with its children", c.Argv[0], timeout)
	case <-ctx.Done():
		cut = fmt.Errorf("%q was stopped: %w", c.Argv[0], context.Cause(ctx))
	}
	if cut != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended // at most outputWait later: the group is dead
		return 0, out.last(), cut
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 0, out.last(), fmt.Errorf("%q was ended by %s", c.Argv[0], exit)
		}
		return exit.ExitCode(), out.last(), nil
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return 0, out.last(), err
	}
	return 0, out.last(), nil
}

// signals are those a score may name.
func signalOf(name string) (syscall.Signal, error) {
	switch strings.TrimPrefix(strings.ToUpper(name), "SIG") {
	case "TERM":
		return syscall.SIGTERM, nil
	case "KILL":
		return syscall.SIGKILL, nil
	case "INT":
		return syscall.SIGINT, nil
	case "HUP":
		return syscall.SIGHUP, nil
	case "QUIT":
		return syscall.SIGQUIT, nil
	case "USR1":
		return syscall.SIGUSR1, nil
	case "USR2":
		return syscall.SIGUSR2, nil
	}
	return 0, fmt.Errorf("signal %q: use TERM, KILL, INT, HUP, QUIT, USR1 or USR2", name)
}

// Spawn starts c as the leader of a session, its output appended to the log, its input empty.
func (r *Real) Spawn(c Cmd) (Child, error) {
	cmd, err := command(c)
	if err != nil {
		return nil, err
	}
	if c.LogPath != "" {
		log, _, err := openLog(c.LogPath)
		if err != nil {
			return nil, fmt.Errorf("open the log: %w", err)
		}
		defer log.Close()
		cmd.Stdout, cmd.Stderr = log, log
	}
	cmd.SysProcAttr.Setsid = true
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errors.New("the host is closed")
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	pid := cmd.Process.Pid
	_ = cmd.Process.Release() // follow reaps it
	start, _, err := processStat(pid)
	if err != nil {
		start = 0 // a system that doesn't tell, or ended already: never adopted by pid
	}
	return r.follow(pid, start), nil
}

// Adopt takes up a process by pid and start time. The one it was may have ended, and another have its pid.
func (r *Real) Adopt(pid int, start uint64) (Child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.living[pid]; c != nil && c.start == start {
		return c, nil
	}
	now, ended, err := processStat(pid)
	switch {
	case err != nil:
		return nil, err
	case ended || now != start || start == 0:
		return nil, ErrNotFound
	case r.closed:
		return nil, errors.New("the host is closed")
	}
	return r.follow(pid, start), nil
}
