package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zclconf/go-cty/cty"

	"meshd/agent/control"
	"meshd/agent/promise"
	"meshd/mesh/link"
	"meshd/mesh/trust"
	"meshd/store"
)

// A fleet is a few whole nodes in one synctest bubble: real link, ring, catalog, swarm, store and agent,
// over a simulated network and simulated programs.
type fleet struct {
	t      *testing.T
	seed   uint64
	rand   *rand.Rand
	net    *link.Memory
	dir    string
	nodes  map[string]*simNode
	parent *simNode
	setUp  func(*Config) // changes how the next nodes start; nil: as they are
}

// A simNode is one machine: its disk and its programs outlive the agent that runs on it.
type simNode struct {
	name, addr, dir string
	host            *promise.Sim
	node            *Node
	agent           *Agent
	stop            context.CancelFunc
	done            chan error
}

func newFleet(t *testing.T, seed uint64) *fleet {
	f := &fleet{
		t: t, seed: seed, rand: rand.New(rand.NewPCG(seed, 1)), net: link.NewMemory(seed), dir: t.TempDir(), nodes: map[string]*simNode{},
	}
	f.net.Delay(time.Millisecond, 20*time.Millisecond)
	return f
}

// seeded is a reader of key material that a seed decides.
func seeded(seed uint64, what string) io.Reader {
	var key [32]byte
	copy(key[:], fmt.Sprintf("%016x%s", seed, what))
	return rand.NewChaCha8(key)
}

func (f *fleet) machine(name string, n int) *simNode {
	m := &simNode{
		name: name, addr: fmt.Sprintf("10.0.0.%d:6374", n), dir: filepath.Join(f.dir, name),
		host: promise.NewSim(map[string]promise.Program{"tar": simTar}),
	}
	f.nodes[name] = m
	return m
}

// simTar writes what the folder's files hold into package.tgz, in order: what tar does, as far as a
// pipeline can tell.
func simTar(_ context.Context, c promise.Cmd) (int, []byte) {
	var out bytes.Buffer
	err := fs.WalkDir(os.DirFS(c.Dir), "results", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(c.Dir, path))
		fmt.Fprintf(&out, "%s %d\n%s", path, len(b), b)
		return err
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(c.Dir, "package.tgz"), out.Bytes(), 0o644)
	}
	if err != nil {
		return 1, []byte(err.Error())
	}
	return 0, nil
}

// found makes the mesh with its first node.
func (f *fleet) found(name string, tags map[string]string) *simNode {
	m := f.machine(name, 1)
	root, err := trust.NewKey(seeded(f.seed, "root"))
	if err != nil {
		f.t.Fatal(err)
	}
	if m.node, err = Found(m.dir, root, seeded(f.seed, name), name, tags, time.Now()); err != nil {
		f.t.Fatal(err)
	}
	if err := m.node.save(); err != nil {
		f.t.Fatal(err)
	}
	f.parent = m
	f.start(m)
	return m
}

// join admits a node with a token of the first one.
func (f *fleet) join(name string, n int, tags map[string]string) *simNode {
	m := f.machine(name, n)
	token, err := door{f.parent.agent}.Invite(f.t.Context(), control.InviteRequest{Name: name, Tags: tags, TTLSeconds: 3600, Uses: 1})
	if err != nil {
		f.t.Fatal(err)
	}
	if m.node, err = JoinNode(f.t.Context(), m.dir, token, name, f.net.Host(m.addr), time.Now()); err != nil {
		f.t.Fatal(err)
	}
	f.start(m)
	return m
}

func (f *fleet) start(m *simNode) {
	f.t.Helper()
	if err := f.tryStart(m); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) tryStart(m *simNode) error {
	a, err := f.make(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.agent, m.stop, m.done = a, cancel, make(chan error, 1)
	go func() { m.done <- a.Run(ctx) }()
	return nil
}

// made is the node's agent before it runs.
func (f *fleet) made(m *simNode) *Agent {
	a, err := f.make(m)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func (f *fleet) make(m *simNode) (*Agent, error) {
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("MESHD_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", m.name)
	}
	node, err := LoadNode(m.dir)
	if err != nil {
		return nil, err
	}
	m.node = node
	cfg := Config{
		Node: node, WorkDir: filepath.Join(m.dir, "work"), Listen: m.addr, Advertise: []string{m.addr},
		Network: f.net.Host(m.addr), Host: m.host, Exe: "meshd", Wall: time.Now, Seed: f.seed, Log: log, Version: "test",
		Builtin: func(context.Context, string) map[string]cty.Value {
			return map[string]cty.Value{"os": cty.StringVal("simulated"), "work_dir": cty.StringVal(m.dir)}
		},
	}
	if f.setUp != nil {
		f.setUp(&cfg)
	}
	return New(cfg)
}

// halt stops a node; crash says whether the network is torn away first, so that it can't say goodbye.
func (f *fleet) halt(m *simNode, crash bool) {
	if m.stop == nil {
		return
	}
	if crash {
		f.net.Crash(m.addr)
	}
	m.stop()
	if err := <-m.done; err != nil && !errors.Is(err, context.Canceled) {
		f.t.Errorf("%s ended: %v", m.name, err)
	}
	m.stop = nil
}

func (f *fleet) end() {
	for _, name := range slices.Sorted(maps.Keys(f.nodes)) {
		f.halt(f.nodes[name], false)
	}
	time.Sleep(memberlistRest)
}

// memberlistRest is how long memberlist's probes and suspicions outlive their Shutdown; a bubble's clock
// stands still once the test has returned.
const memberlistRest = 40 * time.Second

// publishScore puts a score in force as an operator does.
func (f *fleet) publishScore(text string) {
	f.t.Helper()
	if err := f.tryScore(text); err != nil {
		f.t.Fatal(err)
	}
}

// packed is a folder as meshctl sends it.
func packed(t *testing.T, dir string) io.Reader {
	var b bytes.Buffer
	if err := control.Pack(&b, dir, nil); err != nil {
		t.Fatal(err)
	}
	return &b
}

func addPath(path string) store.AddOptions { return store.AddOptions{Path: path} }

// until waits at most limit of virtual time.
func (f *fleet) until(what string, limit time.Duration, ok func() (bool, string)) time.Duration {
	f.t.Helper()
	begin := time.Now()
	for {
		good, why := ok()
		if good {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			f.t.Fatalf("seed %d: %s: not within %v: %s\n%s", f.seed, what, limit, why, f.report())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// report tells every promise that is not kept, for a failing test.
func (f *fleet) report() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(f.nodes)) {
		m := f.nodes[name]
		if m.stop == nil {
			fmt.Fprintf(&b, "%s is down\n", name)
			continue
		}
		list, err := m.agent.ownPromises(f.t.Context(), "")
		fmt.Fprintf(&b, "%s: %d promises, %d alive %v; catalog %s, knows", name, len(list), len(m.agent.mesh.Alive()), err, m.agent.mesh.Catalog().Root().Short())
		for _, o := range m.agent.supply.offers("") {
			fmt.Fprintf(&b, " %s@%d %s", o.ref.Name, o.body.Counter, o.ref.Tree.Short()[:4])
		}
		fmt.Fprintln(&b)
		for _, p := range list {
			if p.Outcome != "kept" && p.Outcome != "repaired" {
				fmt.Fprintf(&b, "  %s %s: %s\n", p.Address, p.Outcome, p.Reason)
			}
		}
	}
	return b.String()
}

// allKept says whether every running node has promises and keeps them all.
func (f *fleet) allKept() (bool, string) {
	for _, name := range slices.Sorted(maps.Keys(f.nodes)) {
		m := f.nodes[name]
		if m.stop == nil {
			continue
		}
		list, err := m.agent.ownPromises(f.t.Context(), "")
		if err != nil || len(list) == 0 {
			return false, fmt.Sprintf("%s has %d promises, %v", name, len(list), err)
		}
		for _, p := range list {
			if p.Outcome != "kept" && p.Outcome != "repaired" {
				return false, fmt.Sprintf("%s on %s: %s", p.Address, name, p.Reason)
			}
		}
	}
	return true, ""
}

func (m *simNode) read(path string) string {
	b, err := os.ReadFile(filepath.Join(m.agent.cfg.WorkDir, path))
	if err != nil {
		return ""
	}
	return string(b)
}

// edit appends a line to a file and tells the machine's watches, as a person with an editor does.
func (f *fleet) edit(m *simNode, path, line string) {
	full := filepath.Join(m.agent.cfg.WorkDir, path)
	if err := os.WriteFile(full, []byte(m.read(path)+line+"\n"), 0o644); err != nil {
		f.t.Fatal(err)
	}
	m.host.Touch(filepath.Dir(full), filepath.Base(full))
}

// state is what must not depend on order and faults: the bytes of the work folders, and for each name the
// hash of the newest artifact.
func (f *fleet) state() map[string]string {
	out := map[string]string{}
	for name, m := range f.nodes {
		root := m.agent.cfg.WorkDir
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			sum := sha256.Sum256(b)
			rel, _ := filepath.Rel(root, path)
			out[name+":"+rel] = hex.EncodeToString(sum[:8])
			return err
		})
		if err != nil {
			f.t.Fatal(err)
		}
		for _, o := range m.agent.supply.offers("") {
			if o.ref.Name != scoreName {
				out[name+" knows "+o.ref.Name] = o.ref.Tree.String() // the newest comes last
			}
		}
	}
	return out
}
