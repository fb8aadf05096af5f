package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshd/agent/control"
)

func TestABarIsForATerminalAlone(t *testing.T) {
	addr := newDaemon(t)
	src := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(src, []byte("text"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tty := range []bool{true, false} {
		stdout, stderr, code := runIn(t, &app{errTTY: tty}, "publish", "app", src, "--addr", addr)
		if code != 0 || !strings.HasPrefix(stdout, "NAME ") {
			t.Fatalf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
		}
		if drawn := strings.Contains(stderr, "publish app"); drawn != tty {
			t.Errorf("publish, terminal %v, bar drawn %v: %q", tty, drawn, stderr)
		}
	}
	for _, tty := range []bool{true, false} {
		to := filepath.Join(t.TempDir(), "got")
		stdout, stderr, code := runIn(t, &app{errTTY: tty}, "get", "app", to, "--addr", addr)
		if code != 0 || stdout != "" {
			t.Fatalf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
		}
		if b, err := os.ReadFile(to); err != nil || string(b) != "text" {
			t.Errorf("it got %q, %v", b, err)
		}
		if drawn := strings.Contains(stderr, "get app"); drawn != tty {
			t.Errorf("terminal %v, bar drawn %v: %q", tty, drawn, stderr)
		}
	}
	stdout, _, code := runIn(t, &app{errTTY: true}, "get", "app", filepath.Join(t.TempDir(), "got"), "--addr", addr, "-o", "ndjson")
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if code != 0 || len(lines) != 3 || lines[2] != `{"type":"progress","done_bytes":2097152,"total_bytes":2097152}` {
		t.Errorf("exit %d, with -o ndjson:\n%s", code, stdout)
	}
}

// What this program sends and writes itself is counted, at most every meterRest, and never beyond what was told.
func TestAMeterCountsWhatPassesThroughIt(t *testing.T) {
	var shown bytes.Buffer
	clock := noon
	m := newMeter(&app{format: "ndjson", stdout: &shown}, "publish app")
	m.now = func() time.Time { clock = clock.Add(meterRest / 2); return clock }
	src := bytes.Repeat([]byte("0123456789"), 100)
	got, err := io.ReadAll(iotest.OneByteReader(m.sending(bytes.NewReader(src), 900)))
	if err != nil || !bytes.Equal(got, src) {
		t.Fatalf("%d bytes passed, %v", len(got), err)
	}
	var done []int64
	for line := range strings.Lines(shown.String()) {
		var l control.Line
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Type != control.LineProgress || l.TotalBytes != 900 {
			t.Fatalf("%q, %v", line, err)
		}
		done = append(done, l.DoneBytes)
	}
	if len(done) < 2 || !slices.IsSorted(done) || done[0] > 10 || done[len(done)-1] != 900 {
		t.Errorf("told of %d bytes, ... %d: %d lines", done[0], done[len(done)-1], len(done))
	}

	var out, bar bytes.Buffer
	m = newMeter(&app{errTTY: true, stderr: &bar}, "get app")
	m.progress(control.Line{Type: control.LineProgress, DoneBytes: 4096, TotalBytes: 4096})
	if _, err := m.receiving(&out, "write copy").Write(make([]byte, 2048)); err != nil || out.Len() != 2048 {
		t.Fatal(out.Len(), err)
	}
	if m.what != "write copy" || m.bar.Current() != 2048 {
		t.Errorf("the bar of %q stands at %d", m.what, m.bar.Current())
	}
	m.clear()
}

func TestABundleHasABarAndIsNotForATerminal(t *testing.T) {
	addr := newDaemon(t)
	for _, tty := range []bool{true, false} {
		path := filepath.Join(t.TempDir(), "stick")
		for _, args := range [][]string{{"export", path}, {"import", path}} {
			_, stderr, code := runIn(t, &app{errTTY: tty}, append([]string{"bundle", "--addr", addr}, args...)...)
			if drawn := strings.Contains(stderr, args[0]+" stick"); code != 0 || drawn != tty {
				t.Errorf("%s, terminal %v: exit %d, bar drawn %v: %q", args[0], tty, code, drawn, stderr)
			}
		}
	}
	stdout, stderr, code := runIn(t, &app{outTTY: true}, "bundle", "export", "-", "--addr", addr)
	if code != control.Usage || stdout != "" || !strings.Contains(stderr, "not for a terminal") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestAScreenfulOverwritesAndKeepsTheFirstLinesInSight(t *testing.T) {
	const text = "A\nb\nc\nd\n"
	for height, want := range map[int]string{
		0: "\x1b[HA\x1b[K\nb\x1b[K\nc\x1b[K\nd\x1b[K\n\x1b[J",
		5: "\x1b[HA\x1b[K\nb\x1b[K\nc\x1b[K\nd\x1b[K\n\x1b[J",
		4: "\x1b[HA\x1b[K\nb\x1b[K\nand 2 more\x1b[K\n\x1b[J",
	} {
		if diff := cmp.Diff(want, string(screenful([]byte(text), height))); diff != "" {
			t.Errorf("height %d: %s", height, diff)
		}
	}
}

func TestCompletionOffersLiveNames(t *testing.T) {
	addr := newDaemon(t)
	for command, want := range map[string]string{
		"why":                  "package postcard/container_1 prepare.file.feed[\"container_1\"] harvest.command.package later.want.app container_1 evil\\x1b[2J\\nname host",
		"pause":                "prepare.file.feed[\"container_1\"] harvest.command.package later.want.app",
		"logs -f":              "prepare.file.feed[\"container_1\"] harvest.command.package later.want.app",
		"get":                  "package postcard/container_1",
		"revoke":               "container_1 evil\\x1b[2J\\nname host",
		"forget":               "container_1",
		"tag set":              "a= kind=",
		"tag set a=x":          "kind=",
		"promises --node":      "container_1 evil\\x1b[2J\\nname host",
		"policy rollback --to": "0.9.0 1.0.0 1.2.0 odd",
		"members -o":           "table wide json ndjson name",
		"policy":               "check diff fmt publish rollback show story",
	} {
		args := append([]string{"__completeNoDesc", "--addr", addr}, append(strings.Fields(command), "")...)
		stdout, _, code := runIn(t, &app{}, args...)
		lines := strings.Split(strings.TrimSpace(stdout), "\n")
		got := strings.Join(lines[:len(lines)-1], " ")
		if code != 0 || got != want {
			t.Errorf("%s: exit %d, offers %q, want %q", command, code, got, want)
		}
	}
}

// The scripts that shells read are read by the shells that are there.
func TestCompletionScriptsParse(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script, _, code := runIn(t, &app{}, "completion", shell)
		if code != 0 || !strings.Contains(script, "meshctl") {
			t.Fatalf("%s: exit %d", shell, code)
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("no %s on this machine: its script was not parsed", shell)
			continue
		}
		cmd := exec.CommandContext(t.Context(), path, "-n")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s does not parse its script: %v\n%s", shell, err, out)
		}
	}
}

// A shell starts meshctl for each completion: it must not be felt. Both programs are started in turns, so that a busy
// machine slows both alike. The time is printed; the size is kept.
func TestMeshctlStartsFastAndIsSmall(t *testing.T) {
	if testing.Short() || runtime.GOOS != "linux" {
		t.Skip("it builds two programs")
	}
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.go")
	if err := os.WriteFile(empty, []byte("package main\n\nfunc main() {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	build := func(name, from string) string {
		out := filepath.Join(dir, name)
		cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, from)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", name, err, text)
		}
		return out
	}
	none, ours := build("empty", empty), build("meshctl", ".")
	var base, help []time.Duration
	for range startPairs {
		base = append(base, timed(t, none))
		help = append(help, timed(t, ours, "--help"))
	}
	slices.Sort(base)
	slices.Sort(help)
	info, err := os.Stat(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("an empty program: %v best, %v median; meshctl --help: %v, %v; %.1f times (best), wanted 2; %.1f MB",
		base[0], base[startPairs/2], help[0], help[startPairs/2], float64(help[0])/float64(base[0]), float64(info.Size())/1e6)
	if info.Size() > 10e6 {
		t.Errorf("meshctl has %d bytes, more than 10 MB", info.Size())
	}
}

const startPairs = 50

func timed(t *testing.T, path string, args ...string) time.Duration {
	t.Helper()
	begin := time.Now()
	if err := exec.CommandContext(t.Context(), path, args...).Run(); err != nil {
		t.Fatal(err)
	}
	return time.Since(begin)
}

func TestRollbackChoosesTheScoreBeforeAndAVersionAboveAll(t *testing.T) {
	kept := func(versions ...string) (list []control.Artifact) {
		for _, v := range versions {
			list = append(list, control.Artifact{Name: "score", Version: v})
		}
		return list
	}
	in := func(v string) control.Score { return control.Score{State: "in force", Version: v} }
	for _, tt := range []struct {
		name       string
		now        control.Score
		kept       []control.Artifact
		to         string
		from, next string
		code       control.Code
	}{
		{"the one before", in("1.1.0"), kept("0.9.0", "1.0.0", "1.1.0"), "", "1.0.0", "1.1.1", 0},
		{"twice undoes itself", in("1.1.1"), kept("1.0.0", "1.1.0", "1.1.1"), "", "1.1.0", "1.1.2", 0},
		{"above a refused one", in("1.1.0"), kept("1.0.0", "1.1.0", "2.0.0"), "", "1.0.0", "2.0.1", 0},
		{"above a first try", in("1.1.0-rc.1"), kept("1.0.0", "1.1.0-rc.1"), "", "1.0.0", "1.1.0", 0},
		{"chosen", in("1.2.0"), kept("1.0.0", "1.1.0", "1.2.0"), "1.0.0", "1.0.0", "1.2.1", 0},
		{"chosen, not kept", in("1.2.0"), kept("1.1.0", "1.2.0"), "1.0.0", "", "", control.NotFound},
		{"none before", in("1.0.0"), kept("1.0.0"), "", "", "", control.NotFound},
		{"none at all", control.Score{State: "none"}, nil, "", "", "", control.NotFound},
	} {
		from, next, err := chooseRollback(tt.now, tt.kept, tt.to)
		if from != tt.from || next != tt.next || control.CodeOf(err) != tt.code {
			t.Errorf("%s: %q as %q, %v", tt.name, from, next, err)
		}
	}
}

func TestDrawingsAreSafeAndStable(t *testing.T) {
	flows := []flow{
		{FromRole: "parent", FromNodes: []string{"ho\"st"}, Artifact: "feed/*", ToRole: "*", ToNodes: []string{"a\x1b", "b"}, Have: 1, Want: 2, Waiting: []string{"b"}},
		{FromRole: "*", FromNodes: []string{"a\x1b", "b"}, Artifact: "card", ToRole: ""},
	}
	for name, d := range map[string]drawing{"drawing.dot": {dot: true}, "drawing.mermaid": {mermaid: true}} {
		got := d.draw(flows)
		if bytes.ContainsRune(got, '\x1b') {
			t.Errorf("%s: a name reached the drawing unescaped", name)
		}
		golden(t, name, string(got))
	}
}
