package demo

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meshd/agent/control"
)

// These tests give real nodes what no honest operator, peer or disk gives them: it is refused, clearly, and
// what was there goes on unharmed.

// The exit codes of SPEC 4 and 10.
const (
	codeFailed      = 1
	codeUsage       = 2
	codeUnreachable = 3
	codeConfig      = 78
)

const maxSaid = 4 << 10 // of an error: more is a flood, not an explanation

// refused runs a command that must fail with that exit code, nothing on stdout, and an error that has all of
// the words and does not flood.
func (f *fleet) refused(code int, words []string, exe string, args ...string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), testTime)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, f.exe(exe), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	shown := exe + " " + strings.Join(args, " ")
	shown = shown[:min(len(shown), 200)]
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		f.t.Fatalf("%s: %v", shown, err)
	}
	said := errs.String()
	if got := cmd.ProcessState.ExitCode(); got != code {
		f.t.Errorf("%s: exit code %d, want %d\n%.1000s", shown, got, code, said)
	}
	if out.Len() > 0 {
		f.t.Errorf("%s: stdout is not empty: %.300s", shown, out.String())
	}
	for _, word := range words {
		if !strings.Contains(said, word) {
			f.t.Errorf("%s: stderr lacks %q: %.1000s", shown, word, said)
		}
	}
	if len(said) > maxSaid || strings.Contains(said, "goroutine ") {
		f.t.Errorf("%s: stderr of %d bytes: %.1000s", shown, len(said), said)
	}
}

// folder writes files into a fresh folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const goodScore = `score "good" {
  version  = "1.0.0"
  language = 1
}
role "keeper" { when = node.name == "host" }
part "p" {
  role = "keeper"
  file "kept" {
    path    = "kept.txt"
    content = "kept\n"
  }
}
`

// unharmed fails the test unless the node keeps the good score's file, damaged or not, and its version.
func (n *node) unharmed() {
	n.f.t.Helper()
	holds(n.f.t, n.work("kept.txt"), "kept")
	damage(n.f.t, n.work("kept.txt"), false)
	if s := items[control.Score](n, "policy", "show")[0]; s.Version != "1.0.0" || s.State != "in force" {
		n.f.t.Errorf("score %s is %s, want 1.0.0 in force", s.Version, s.State)
	}
}

func TestBadScoresAreRefusedAndTheLastGoodOnePlaysOn(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", goodScore)
	spare := filepath.Join(f.dir, "spare")
	f.run(exec.Command(f.exe("meshd"), "init", "--data-dir", spare, "--name", "spare"))
	newer := strings.Replace(goodScore, "1.0.0", "1.1.0", 1)
	tests := []struct {
		name, score string
		want        []string
	}{
		{"syntax error", newer + "part \"x\" {\n", []string{"score.hcl:"}},
		{"unknown attribute", strings.Replace(newer, "content =", "contents =", 1), []string{"score.hcl:10:", "contents", `"content"`}},
		{"misspelt role", strings.Replace(newer, `role = "keeper"`, `role = "keper"`, 1), []string{"score.hcl:7:", "keper", "keeper"}},
		{"cycle", newer + "role \"a\" { when = role.b }\nrole \"b\" { when = role.a }\n", []string{"score.hcl:1", "circle", "a -> b"}},
		{"open brackets", newer + "locals {\n  x = " + strings.Repeat("[", 100_000) + "\n}\n", []string{"score.hcl:", "64"}},
		{"a path that leaves", strings.Replace(newer, `"kept.txt"`, `"../../kept.txt"`, 1), []string{"score.hcl:9:", ".."}},
		{"no score", "locals { x = 1 }\n", []string{"score"}},
		{"not text", "\x00\xff\xfe garbage", []string{"score.hcl:1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := folder(t, map[string]string{"score.hcl": tt.score})
			f.refused(codeFailed, tt.want, "meshctl", "policy", "check", dir)
			f.refused(codeFailed, tt.want, "meshctl", "--data-dir", host.dir, "policy", "publish", dir)
			f.refused(codeConfig, tt.want, "meshd", "--data-dir", spare, "--listen", "127.0.0.1:0", "--policy", dir)
			host.unharmed()
		})
	}
	f.refused(codeConfig, []string{"nosuch"}, "meshd", "--data-dir", spare, "--listen", "127.0.0.1:0", "--policy", filepath.Join(f.dir, "nosuch"))
	host.stop()
	host.start()
	host.unharmed()
}

func TestAnEndlessLoopFailsItsPromiseAndTheRestPlaysOn(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", goodScore+`
locals { n = split("", join("", [for i in ["a", "b"] : "`+strings.Repeat("x", 100)+`"])) }
part "q" {
  file "endless" {
    path    = "endless.txt"
    content = join(",", flatten([for a in local.n : [for b in local.n : [for c in local.n : [for d in local.n : "x"]]]]))
  }
}
`)
	eventually(t, "q.file.endless fails", func() (bool, string) {
		p := host.promise("q.file.endless")
		return p.Outcome == "failed" && strings.Contains(p.Reason, "fuel"), p.Outcome + ": " + p.Reason
	})
	host.unharmed()
	host.stop()
	host.start()
	host.unharmed()
	if p := host.promise("q.file.endless"); p.Outcome != "failed" {
		t.Errorf("after a restart the loop is %s: %s", p.Outcome, p.Reason)
	}
}

func TestBadTokensAreRefused(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", goodScore)
	token := func(args ...string) string {
		t.Helper()
		return strings.TrimSpace(host.ctl(append([]string{"invite"}, args...)...))
	}
	join := func(code int, token string, words ...string) {
		t.Helper()
		dir := t.TempDir()
		f.refused(code, words, "meshd", "--data-dir", dir, "--name", "guest", "--listen", "127.0.0.1:0", "--join", token)
		for _, file := range []string{"node.crt", "charter", "state.db"} {
			if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
				t.Errorf("a refused join left %s", file)
			}
		}
	}
	good := token("--name", "guest")
	prefix, _, _ := strings.Cut(good, ".")
	for _, length := range []int{1, len(prefix), len(prefix) + 5, len(good) / 2, len(good) - 1} {
		join(codeConfig, good[:length], "cut short", "copy all of it")
	}
	for _, bad := range []string{" ", "nonsense", strings.Repeat("A", 100_000), good + "AAAA", strings.ToUpper(good)} {
		join(codeConfig, bad, "token", "meshctl invite")
	}
	join(codeConfig, "", "--join")
	join(codeConfig, "@"+f.dir, "read the token", f.dir)
	join(codeConfig, "@"+filepath.Join(f.dir, "nosuch"), "read the token", "nosuch")
	// Not the first eight characters, which say how long the token is: changed, they may tell of a cut.
	for _, at := range []int{len(prefix) + 12, len(prefix) + 40, len(good) - 10} {
		changed := []byte(good)
		changed[at] ^= 1
		join(codeConfig, string(changed), "malformed")
	}
	raw, err := base64.RawURLEncoding.DecodeString(good[len(prefix)+1:])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1 // the secret, behind the sponsor's signature: only the checksum sees it
	join(codeConfig, prefix+"."+base64.RawURLEncoding.EncodeToString(raw), "malformed")

	short := token("--ttl", "1s")
	used := token("--name", "once")
	once := f.add("once")
	once.args = []string{"--join", used}
	once.start()
	join(codeFailed, used, "refused", "used", "meshctl invite")
	f.refused(codeFailed, []string{"once", "--replace"}, "meshctl", "--data-dir", host.dir, "invite", "--name", "once")
	time.Sleep(2 * time.Second) // until the short one has expired, by the sponsor's clock: seconds count
	join(codeFailed, short, "refused", "expired", "meshctl invite")

	// Of another mesh: to a folder that has a node of this one.
	other := newFleet(t)
	foreign := strings.TrimSpace(other.found("else", strings.Replace(goodScore, "host", "else", 1)).ctl("invite"))
	once.stop()
	f.refused(codeConfig, []string{"another mesh", "--data-dir"}, "meshd", "--data-dir", once.dir, "--listen", "127.0.0.1:0", "--join", foreign)
	f.refused(codeConfig, []string{"cut short"}, "meshd", "--data-dir", once.dir, "--listen", "127.0.0.1:0", "--join", good[:50])
	once.start() // with the token that it used up: not needed any more, and no harm
	// The good one was not spent by all this.
	guest := f.add("guest")
	guest.args = []string{"--join", good}
	guest.start()
	host.alive(3)
	host.unharmed()
}

func TestFoldersAndPortsThatCannotBeHad(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", goodScore)
	start := func(code int, words []string, args ...string) {
		t.Helper()
		f.refused(code, words, "meshd", args...)
	}
	spare := filepath.Join(f.dir, "spare")
	f.run(exec.Command(f.exe("meshd"), "init", "--data-dir", spare, "--name", "spare"))

	start(codeFailed, []string{host.dir, "in use by another meshd", "--data-dir"}, "--data-dir", host.dir, "--listen", "127.0.0.1:0")
	start(codeConfig, []string{host.dir, "already has a node"}, "init", "--data-dir", host.dir, "--name", "again")
	start(codeConfig, []string{"no node", "meshd init", "--join"}, "--data-dir", filepath.Join(f.dir, "none"))
	file := filepath.Join(f.dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	start(codeConfig, []string{file, "not a directory"}, "init", "--data-dir", file, "--name", "x")

	// A key of one mesh, a charter of another.
	foreign := filepath.Join(f.dir, "foreign")
	if err := os.CopyFS(foreign, os.DirFS(spare)); err != nil {
		t.Fatal(err)
	}
	charter, err := os.ReadFile(filepath.Join(host.dir, "charter"))
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []error{os.Chmod(filepath.Join(foreign, "node.key"), 0o600), os.WriteFile(filepath.Join(foreign, "charter"), charter, 0o600)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	start(codeConfig, []string{foreign, "not of the mesh"}, "--data-dir", foreign, "--listen", "127.0.0.1:0")

	key := filepath.Join(spare, "node.key")
	for _, mode := range []os.FileMode{0o640, 0o604} {
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		start(codeConfig, []string{key, "others read the key", "chmod 600"}, "--data-dir", spare, "--listen", "127.0.0.1:0")
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	start(codeFailed, []string{l.Addr().String(), "in use", "--listen"}, "--data-dir", spare, "--listen", l.Addr().String())
	for _, listen := range []string{"nonsense", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:-1"} {
		start(codeUsage, []string{"--listen", listen, "ADDR:PORT"}, "--data-dir", spare, "--listen", listen)
	}
	for _, tag := range []string{"kind", "=x", ""} {
		start(codeUsage, []string{"--tag", "KEY=VALUE"}, "--data-dir", spare, "--tag", tag)
		start(codeUsage, []string{"--tag", "KEY=VALUE"}, "init", "--data-dir", filepath.Join(f.dir, "none"), "--name", "x", "--tag", tag)
	}
	start(codeUsage, []string{"--bogus", "--help"}, "--bogus")
	start(codeUsage, []string{"bogus", "--help"}, "bogus")
	for _, name := range []string{"../x", "a b", ".x", strings.Repeat("x", 64), "ü"} {
		start(codeConfig, []string{"node name", "63"}, "init", "--data-dir", filepath.Join(f.dir, "none"), "--name", name)
	}
	for _, peer := range []string{"###", "host", "xyz@127.0.0.1:1"} {
		start(codeUsage, []string{"--peer", peer, "HOST:PORT"}, "--data-dir", spare, "--listen", "127.0.0.1:0", "--peer", peer)
	}
	start(codeUsage, []string{"--advertise", "no port", "HOST:PORT"}, "--data-dir", spare, "--listen", "127.0.0.1:0", "--advertise", "no port")
	if _, err := os.Stat(filepath.Join(f.dir, "none")); err == nil {
		t.Error("what was refused left a data folder")
	}
	host.unharmed()
}
