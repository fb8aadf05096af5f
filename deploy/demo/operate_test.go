//go:build linux

package demo

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const kept = `
score "kept" {
  version  = "1.0.0"
  language = 1
}

role "host" { when = tag.kind == "host" }

part "keep" {
  role = "host"
  process "one" { run = ["/bin/sleep", "1000"] }
  process "two" { run = ["/bin/sh", "-c", "sleep 1000; true"] }
  guest "child" {}
}
`

const (
	kills      = 50
	killsShort = 8
	aliveMost  = 600 * time.Millisecond // of a meshd before it is killed: some have a door by then, some no store
)

// leaders are the processes below dir that bear a promise's mark and lead a session: what a node spawned,
// and not what that spawned in turn.
func leaders(t *testing.T, dir string) map[string][]int {
	t.Helper()
	found := map[string][]int{}
	list, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range list {
		env, err := os.ReadFile(path)
		if err != nil {
			continue // it ended, or is somebody else's
		}
		var pid int
		if _, err := fmt.Sscanf(path, "/proc/%d/environ", &pid); err != nil {
			t.Fatal(err)
		}
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			mark, ok := strings.CutPrefix(string(kv), "MESHD_PROMISE="+dir+string(filepath.Separator))
			if !ok {
				continue
			}
			if sid, err := sessionOf(pid); err == nil && sid == pid {
				found[mark] = append(found[mark], pid)
			}
		}
	}
	return found
}

func sessionOf(pid int) (int, error) {
	sid, _, errno := syscall.Syscall(syscall.SYS_GETSID, uintptr(pid), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(sid), nil
}

// meshd dies without a word again and again, at any moment of its life; what it keeps running lives on.
func TestProcessesAndGuestsOutliveKilledAgents(t *testing.T) {
	rounds := kills
	if !thorough() {
		rounds = killsShort
	}
	f := newFleet(t)
	host := f.found("host", kept, "kind=host")
	f.settled()
	host.alive(2)
	dir, err := filepath.EvalSymlinks(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	before := leaders(t, dir)
	if len(before) != 3 {
		t.Fatalf("marked processes: %v, want three", before)
	}
	random := rand.New(rand.NewPCG(1, 50))
	began := time.Now()
	host.kill()
	for range rounds - 1 {
		host.launch()
		timer := time.NewTimer(time.Duration(random.Int64N(int64(aliveMost))))
		select {
		case <-timer.C:
		case <-host.proc.Done():
			t.Fatalf("meshd ended by itself: %v\n%s", host.proc.Err(), host.proc.Tail())
		}
		host.kill()
	}
	host.start()
	f.settled()
	host.alive(2)
	t.Logf("%d kills in %v", rounds, round(time.Since(began)))
	if after := leaders(t, dir); !maps.EqualFunc(before, after, slices.Equal) {
		t.Errorf("processes by promise: %v before, %v after %d kills", before, after, rounds)
	}
	for _, p := range host.promises() {
		if p.Repairs > 0 {
			t.Errorf("%s was repaired %d times by the last meshd", p.Address, p.Repairs)
		}
	}
}

// config writes the node's configuration file.
func (n *node) config(format string, args ...any) {
	n.f.t.Helper()
	if err := os.WriteFile(n.dir+".hcl", fmt.Appendf(nil, format, args...), 0o644); err != nil {
		n.f.t.Fatal(err)
	}
}

// says waits until the node's log says text once more than before.
func (n *node) says(text string, times int) {
	n.f.t.Helper()
	eventually(n.f.t, "the log says "+text, func() (bool, string) {
		b, err := os.ReadFile(n.dir + ".log")
		return err == nil && bytes.Count(b, []byte(text)) >= times, n.proc.Tail()
	})
}

const local = `
score "local" {
  version  = "%s"
  language = 1
}
part "p" {
  file "a" {
    path = "a.txt"
    %s   = "%s"
  }
}
`

func TestHangupReadsSettingsAgainAndNeverEndsTheNode(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", kept[:strings.Index(kept, "part")])
	host.stop()
	score := filepath.Join(f.dir, "local")
	play := func(version, name, content string) {
		if err := os.MkdirAll(score, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(score, "score.hcl"), fmt.Appendf(nil, local, version, name, content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	hangup := func() {
		if err := syscall.Kill(host.proc.PID(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	play("1.0.0", "content", "one")
	host.config("policy = %q\nlog-level = \"info\"\n", score)
	host.args = []string{"--config", host.dir + ".hcl"}
	host.start()
	pid := host.proc.PID()
	holds(t, host.work("a.txt"), "one")

	play("1.1.0", "contend", "two")
	hangup()
	host.says("the new settings are refused", 1)
	host.config("log-levle = \"debug\"\n")
	hangup()
	host.says("did you mean", 2)
	if got := readFile(t, host.work("a.txt")); got != "one" {
		t.Errorf("after two refusals a.txt holds %q", got)
	}
	play("1.2.0", "content", "three")
	host.config("policy = %q\nlog-level = \"debug\"\nname = \"other\"\n", score)
	hangup()
	holds(t, host.work("a.txt"), "three")
	host.says("level=DEBUG", 1)
	host.says("take effect at the next start", 1)
	if v, err := host.door().Version(t.Context()); err != nil || v.PID != pid {
		t.Errorf("pid %d answers, want %d (%v)", v.PID, pid, err)
	}
}

func TestFaultyConfigurationEndsWith78(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "meshd.hcl")
	if err := os.WriteFile(path, []byte("\nlissten = \":1\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "meshd"), "--data-dir", dir, "--config", path)
	out, _ := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 78 || !strings.Contains(string(out), `meshd.hcl:2: unknown name "lissten" (did you mean "listen"?)`) {
		t.Errorf("exit %d: %s", code, out)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func TestHealthAndMetricsAreServed(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", kept[:strings.Index(kept, "part")])
	host.stop()
	addr := freeAddr(t)
	host.args = []string{"--http", addr}
	host.start()
	get := func(path, name string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = name
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	eventually(t, "it is ready", func() (bool, string) { code, body := get("/readyz", addr); return code == http.StatusOK, body })
	if code, _ := get("/healthz", addr); code != http.StatusOK {
		t.Errorf("/healthz: %d", code)
	}
	for _, want := range []string{"meshd_members{status=\"alive\"} 1\n", "meshd_gossip_member_joins_total 1\n", "go_goroutines ", "meshd_refused_total{reason=\"packet_forged\"} 0\n"} {
		// The node is ready before its ring has told of itself.
		eventually(t, "/metrics has "+want, func() (bool, string) {
			code, body := get("/metrics", addr)
			return code == http.StatusOK && strings.Contains(body, want), body
		})
	}
	if code, _ := get("/metrics", "evil.example"); code == http.StatusOK {
		t.Error("a foreign host name is answered")
	}
}

func TestOnceEndsByItself(t *testing.T) {
	f := newFleet(t)
	f.found("host", `
score "card" {
  version  = "1.0.0"
  language = 1
}
part "p" {
  file "card" {
    path    = "card.txt"
    content = node.name
  }
  artifact "card" {
    name = "card/${node.name}"
    from = "card.txt"
  }
}
`)
	phone := f.invited("phone")
	phone.args = append(phone.args, "--once")
	began := time.Now()
	phone.launch()
	select {
	case <-phone.proc.Done():
	case <-time.After(testTime):
		t.Fatalf("it goes on\n%s", phone.proc.Tail())
	}
	t.Logf("join, sync, converge, leave: %v", round(time.Since(began)))
	if err := phone.proc.Err(); err != nil {
		t.Errorf("it ended with %v\n%s", err, phone.proc.Tail())
	}
	if f.nodes[0].offered("card/phone").Name == "" || readFile(t, phone.work("card.txt")) != "phone" {
		t.Error("the peer does not know the card, or it is not there")
	}
}
