package demo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"meshd/agent/control"
	"meshd/policies/examples"
)

// testTime bounds every wait of a test; how long things took is printed, not asserted.
const testTime = 30 * time.Second

// A fleet is some real nodes on loopback, started as an operator starts them. All of it is gone when the
// test ends: processes, ports, files.
type fleet struct {
	t     *testing.T
	dir   string
	bin   string  // where its meshd and meshctl are; "": those of all tests
	nodes []*node // the first one founded the mesh and invites the others

	// lay makes a place for a node and returns the command that starts programs there; nil: all live on loopback.
	lay func(name string) (within []string)
}

// A node is one meshd of a fleet.
type node struct {
	f    *fleet
	name string
	dir  string
	args []string // of meshd, besides the data folder and the port
	in   []string // the command that starts programs where the node lives; none: here
	proc *Process // of the last start
}

// newFleet makes an empty fleet. t.TempDir would be too long a path for sockets.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	dir, err := os.MkdirTemp("", "fleet")
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, dir: dir}
	t.Cleanup(f.end)
	return f
}

func (f *fleet) end() {
	if f.t.Failed() {
		for _, n := range f.nodes {
			if n.proc != nil {
				f.t.Logf("the end of %s's log:\n%s", n.name, n.proc.Tail())
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), quitTime)
	defer cancel()
	var stops sync.WaitGroup
	for _, n := range f.nodes {
		if n.proc != nil {
			stops.Go(func() {
				if err := n.proc.Stop(); err != nil {
					f.t.Error(err)
				}
			})
		}
	}
	stops.Wait()
	if err := End(ctx, f.dir, nil); err != nil {
		f.t.Error(err)
	}
	if err := os.RemoveAll(f.dir); err != nil {
		f.t.Error(err)
	}
}

// found makes the mesh with its first node and puts a score in force.
func (f *fleet) found(name, score string, tags ...string) *node {
	f.t.Helper()
	n := f.add(name)
	args := []string{"init", "--data-dir", n.dir, "--name", name}
	for _, tag := range tags {
		args = append(args, "--tag", tag)
	}
	f.run(exec.Command(f.exe("meshd"), args...))
	n.start()
	n.publish(score)
	return n
}

// invited is a new node that has a token and was not started yet.
func (f *fleet) invited(name string, tags ...string) *node {
	f.t.Helper()
	args := []string{"invite", "--name", name}
	for _, tag := range tags {
		args = append(args, "--tag", tag)
	}
	token := strings.TrimSpace(f.nodes[0].ctl(args...))
	n := f.add(name)
	n.args = []string{"--join", token}
	return n
}

// join invites and starts a node.
func (f *fleet) join(name string, tags ...string) *node {
	f.t.Helper()
	n := f.invited(name, tags...)
	n.start()
	return n
}

func (f *fleet) add(name string) *node {
	n := &node{f: f, name: name, dir: filepath.Join(f.dir, name)}
	if f.lay != nil {
		n.in = f.lay(name)
	}
	f.nodes = append(f.nodes, n)
	return n
}

func (f *fleet) exe(name string) string { return filepath.Join(cmp.Or(f.bin, bin), name) }

// run runs a command to its end and returns its standard output; it must succeed and say nothing else.
func (f *fleet) run(cmd *exec.Cmd) string {
	f.t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	timer := time.AfterFunc(testTime, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil || errs.Len() > 0 {
		f.t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args[1:], " "), err, out.String(), errs.String())
	}
	return out.String()
}

// start starts the node and waits until it answers.
func (n *node) start() {
	n.f.t.Helper()
	n.launch()
	n.awake()
}

// launch starts the node and does not wait.
func (n *node) launch() {
	n.f.t.Helper()
	listen := "127.0.0.1:0"
	if n.in != nil {
		listen = "0.0.0.0:6374"
	}
	args := slices.Concat(n.in, []string{n.f.exe("meshd"), "--data-dir", n.dir, "--listen", listen}, n.args)
	var err error
	n.proc, err = Start(args[0], n.dir+".log", args[1:]...)
	if err != nil {
		n.f.t.Fatal(err)
	}
}

// awake waits until the node answers.
func (n *node) awake() {
	n.f.t.Helper()
	ctx, cancel := context.WithTimeout(n.f.t.Context(), testTime)
	defer cancel()
	if err := n.proc.Answers(ctx, n.door()); err != nil {
		n.f.t.Fatal(err)
	}
}

// kill ends the node with no chance to say anything.
func (n *node) kill() {
	n.f.t.Helper()
	if err := n.proc.Kill(); err != nil {
		n.f.t.Fatal(err)
	}
}

// stop ends the node as an operator does; it must end well.
func (n *node) stop() {
	n.f.t.Helper()
	began := time.Now()
	if err := n.proc.Stop(); err != nil {
		n.f.t.Fatal(err)
	}
	if err := n.proc.Err(); err != nil {
		n.f.t.Fatalf("%s ended with %v\n%s", n.name, err, n.proc.Tail())
	}
	n.f.t.Logf("%s ended %v after it was asked to", n.name, round(time.Since(began)))
}

func (n *node) door() *control.Client {
	n.f.t.Helper()
	c, err := control.NewClient("", n.dir)
	if err != nil {
		n.f.t.Fatal(err)
	}
	return c
}

// ctl asks the node with meshctl and returns what it printed.
func (n *node) ctl(args ...string) string {
	n.f.t.Helper()
	return n.f.run(exec.Command(n.f.exe("meshctl"), append([]string{"--data-dir", n.dir}, args...)...))
}

// publish puts a score in force, typed as an operator does.
func (n *node) publish(score string) {
	n.f.t.Helper()
	dir := filepath.Join(n.f.dir, "score")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		n.f.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "score.hcl"), []byte(score), 0o644); err != nil {
		n.f.t.Fatal(err)
	}
	n.policy("publish", dir)
}

// policy runs meshctl policy, which may warn on its standard error.
func (n *node) policy(command, dir string) {
	n.f.t.Helper()
	ctx, cancel := context.WithTimeout(n.f.t.Context(), testTime)
	defer cancel()
	if err := Command(ctx, n.f.exe("meshctl"), "--data-dir", n.dir, "policy", command, dir); err != nil {
		n.f.t.Fatal(err)
	}
}

// work is a path in the node's work folder.
func (n *node) work(parts ...string) string {
	return filepath.Join(append([]string{n.dir, "work"}, parts...)...)
}

// items asks the node with meshctl -o json.
func items[T any](n *node, args ...string) []T {
	n.f.t.Helper()
	out := n.ctl(append(args, "-o", "json")...)
	var doc struct {
		APIVersion string `json:"apiVersion"`
		Items      []T    `json:"items"`
	}
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil || doc.APIVersion != control.APIVersion {
		n.f.t.Fatalf("meshctl %s on %s: %v in %s", strings.Join(args, " "), n.name, err, out)
	}
	return doc.Items
}

// promise is one promise of the node as it stands.
func (n *node) promise(address string) control.Promise {
	n.f.t.Helper()
	for _, p := range n.promises() {
		if p.Address == address {
			return p
		}
	}
	n.f.t.Fatalf("%s has no promise %s", n.name, address)
	return control.Promise{}
}

// promises asks at the node's door, which is cheaper than a meshctl where a test looks often.
func (n *node) promises() []control.Promise {
	n.f.t.Helper()
	list, err := n.door().Promises(n.f.t.Context(), "", "", false)
	if err != nil {
		n.f.t.Fatal(err)
	}
	return list
}

// story is what the node's journal tells.
func (n *node) story() []control.StoryItem {
	n.f.t.Helper()
	list, err := n.door().Story(n.f.t.Context(), 0, nil)
	if err != nil {
		n.f.t.Fatal(err)
	}
	return list
}

// offered is the latest version of an artifact as the node knows it; the zero Artifact if there is none.
func (n *node) offered(name string) (latest control.Artifact) {
	n.f.t.Helper()
	list, err := n.door().Artifacts(n.f.t.Context(), name, false)
	if err != nil {
		n.f.t.Fatal(err)
	}
	for _, a := range list {
		if a.Counter > latest.Counter {
			latest = a
		}
	}
	return latest
}

// alive waits until the node sees that many live members, and no other number.
func (n *node) alive(want int) time.Duration {
	n.f.t.Helper()
	return eventually(n.f.t, fmt.Sprintf("%s sees %d alive", n.name, want), func() (bool, string) {
		list, err := n.door().Members(n.f.t.Context())
		if err != nil {
			return false, err.Error()
		}
		got := 0
		for _, m := range list {
			if m.Status == "alive" {
				got++
			}
		}
		return got == want, fmt.Sprintf("%d of %d are alive", got, len(list))
	})
}

// settled waits until all nodes that run keep all promises, want lists artifacts that they all must have
// heard of, and nothing is left to do anywhere.
func (f *fleet) settled(want ...string) time.Duration {
	f.t.Helper()
	return eventually(f.t, "all promises of all nodes are kept", func() (bool, string) {
		for _, n := range f.running() {
			for _, name := range want {
				if n.offered(name).Name == "" {
					return false, fmt.Sprintf("%s has not heard of %s", n.name, name)
				}
			}
			list := n.promises()
			if len(list) == 0 {
				return false, n.name + " has no promises yet"
			}
			for _, p := range list {
				if p.Outcome != "kept" && p.Outcome != "repaired" {
					return false, fmt.Sprintf("%s on %s is %s: %s", p.Address, n.name, p.Outcome, p.Reason)
				}
			}
		}
		return true, ""
	})
}

// running are the nodes whose process was started and did not end.
func (f *fleet) running() []*node {
	return slices.DeleteFunc(slices.Clone(f.nodes), func(n *node) bool {
		if n.proc == nil {
			return true
		}
		select {
		case <-n.proc.Done():
			return true
		default:
			return false
		}
	})
}

// eventually looks until look is content and returns how long that took.
func eventually(t *testing.T, what string, look func() (ok bool, why string)) time.Duration {
	t.Helper()
	began := time.Now()
	ticker := time.NewTicker(lookTime)
	defer ticker.Stop()
	for {
		ok, why := look()
		if ok {
			return time.Since(began)
		}
		if time.Since(began) > testTime {
			t.Fatalf("%s: not in %v: %s", what, testTime, why)
		}
		select {
		case <-ticker.C:
		case <-t.Context().Done():
			t.Fatalf("%s: the test ended: %s", what, why)
		}
	}
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// byHand is the postcard score for children that people start: without the part that spawns them.
func byHand(t *testing.T) string {
	t.Helper()
	b, err := examples.Postcards.ReadFile("postcards/score.hcl")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	begin := strings.Index(text, "part \"children\" {\n")
	if begin < 0 {
		t.Fatal("the postcard score has no part children")
	}
	length := strings.Index(text[begin:], "\n}\n")
	return text[:begin] + text[begin+length+len("\n}\n"):]
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// holds waits until the file at path holds text.
func holds(t *testing.T, path, text string) time.Duration {
	t.Helper()
	return eventually(t, path+" holds "+text, func() (bool, string) {
		b, err := os.ReadFile(path)
		if err != nil {
			return false, err.Error()
		}
		return strings.Contains(string(b), text), "it holds " + string(b)
	})
}
