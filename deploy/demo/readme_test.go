//go:build unix

package demo

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A snippet is one code block of the README: what is typed into one terminal, and what is shown below it.
type snippet struct {
	who   string // alice, bob, or both
	typed string
	shown string // "" where the README shows no output
}

var fence = regexp.MustCompile("(?ms)^```(sh|text) (alice|bob|both)\n(.*?)^```$")

// snippets reads the quick start: blocks marked "sh NAME", and the "text NAME" that may follow one.
func snippets(t *testing.T) []snippet {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var out []snippet
	for _, m := range fence.FindAllStringSubmatch(string(readme), -1) {
		if m[1] == "sh" {
			out = append(out, snippet{who: m[2], typed: m[3]})
			continue
		}
		if len(out) == 0 || out[len(out)-1].who != m[2] {
			t.Fatalf("README.md: the output of %s follows no block of %s:\n%s", m[2], m[2], m[3])
		}
		out[len(out)-1].shown = m[3]
	}
	if len(out) < 5 {
		t.Fatalf("README.md: %d blocks of the quick start found, want at least 5", len(out))
	}
	return out
}

// A terminal is a shell into which blocks are typed. It stops at the first command that fails.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.Writer
	lines  chan string
	errors bytes.Buffer
	blocks int
}

func openTerminal(t *testing.T, home string, argv ...string) *terminal {
	t.Helper()
	term := &terminal{t: t, lines: make(chan string, 1000)}
	term.cmd = exec.Command(argv[0], argv[1:]...)
	term.cmd.Dir = filepath.Join("..", "..")
	term.cmd.Stderr = &term.errors
	term.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cache, err := exec.Command("go", "env", "GOMODCACHE", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	settings, err := os.UserConfigDir() // go's own
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Fields(string(cache))
	term.cmd.Env = []string{
		"HOME=" + home, "XDG_CONFIG_HOME=" + settings, "GOBIN=" + filepath.Join(home, "bin"), "GOMODCACHE=" + dirs[0], "GOCACHE=" + dirs[1],
		"PATH=" + filepath.Join(home, "bin") + string(filepath.ListSeparator) + os.Getenv("PATH"),
	}
	if term.in, err = term.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := term.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := term.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(term.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			term.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-term.cmd.Process.Pid, syscall.SIGKILL) // the shell, and a meshd that a failed test left
		for range term.lines {                                   // until the last of them closed it
		}
		_ = term.cmd.Wait()
	})
	_, _ = io.WriteString(term.in, "set -euo pipefail\n")
	return term
}

// run types a block and returns what it printed on standard output.
func (term *terminal) run(block string) string {
	term.t.Helper()
	term.blocks++
	mark := fmt.Sprintf("--- end of block %d", term.blocks)
	if _, err := fmt.Fprintf(term.in, "%s\necho; echo '%s'\n", block, mark); err != nil {
		term.t.Fatalf("the shell is gone (%v) before\n%s\nit said on stderr:\n%s", err, block, term.errors.String())
	}
	var said []string
	limit := time.NewTimer(2 * time.Minute) // the first block may compile
	defer limit.Stop()
	for {
		select {
		case line, ok := <-term.lines:
			switch {
			case !ok:
				_ = term.cmd.Wait()
				term.t.Fatalf("a command of this block failed:\n%s\nit printed\n%s\nand on stderr\n%s", block, strings.Join(said, "\n"), term.errors.String())
			case line == mark:
				return strings.Join(said, "\n")
			}
			said = append(said, line)
		case <-limit.C:
			term.t.Fatalf("this block did not end in time:\n%s\nit printed\n%s", block, strings.Join(said, "\n"))
		}
	}
}

// until types a block again and again until its output satisfies ok: what a reader's eyes do.
func (term *terminal) until(block string, ok func(said string) bool) {
	term.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	defer cancel()
	for {
		said := term.run("{ ( " + strings.TrimSpace(block) + "\n) 2>&1 || true; }")
		if ok(said) {
			return
		}
		select {
		case <-ctx.Done():
			term.t.Fatalf("after %v this still does not show what README.md says:\n%s\nit shows\n%s", testTime, block, said)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// words are what two runs have in common: no numbers, hashes, addresses, paths, no "-" for nothing.
func words(line string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(line), func(w string) bool {
		return w == "-" || strings.ContainsAny(w, "0123456789/")
	}), " ")
}

func shows(shown string) func(said string) bool {
	return func(said string) bool {
		var got []string
		for line := range strings.Lines(said) {
			got = append(got, words(line))
		}
		for line := range strings.Lines(shown) {
			if !slices.Contains(got, words(line)) {
				return false
			}
		}
		return true
	}
}

// answers says whether the table of meshctl version has a line of the daemon.
func answers(said string) bool { return strings.Contains(said, "\nmeshd ") }

// play types the quick start into two terminals; drop is the line that the reader leaves out.
func play(t *testing.T, home, drop string, terminals map[string]*terminal) {
	for _, s := range snippets(t) {
		var kept []string
		for line := range strings.Lines(s.typed) {
			if drop == "" || !strings.Contains(line, drop) {
				kept = append(kept, line)
			}
		}
		block := strings.Join(kept, "")
		for _, who := range []string{"alice", "bob"} {
			term := terminals[who]
			switch {
			case s.who != who && s.who != "both":
			case s.shown != "":
				term.until(block, shows(s.shown))
			default:
				term.run(block)
				if strings.HasSuffix(strings.TrimSpace(block), "&") {
					term.until("meshctl version", answers)
				}
			}
		}
	}
	for _, who := range []string{"alice", "bob"} {
		log, err := os.ReadFile(filepath.Join(home, who+".log"))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(log, []byte("level=ERROR")) {
			t.Errorf("the log of %s tells of an error:\n%s", who, log)
		}
	}
}

func readmeHome(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("skip: needs bash, which README.md's blocks are written for")
	}
	home, err := os.MkdirTemp("", "readme") // t.TempDir is too long a path for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(home); err != nil {
			t.Error(err)
		}
	})
	return home
}

func TestReadmeWorksOnOneMachine(t *testing.T) {
	home := readmeHome(t)
	play(t, home, "", map[string]*terminal{
		"alice": openTerminal(t, home, "bash"), "bob": openTerminal(t, home, "bash"),
	})
}

// Two machines are two network namespaces with a cable between them; files stand for the token carried over.
func TestReadmeWorksOnTwoMachines(t *testing.T) {
	home := readmeHome(t)
	if os.Geteuid() != 0 {
		t.Skip("skip: needs root: lays a cable between two network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("skip: needs root and ip (package iproute2)")
	}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	a, b := fmt.Sprintf("meshd-a-%d", os.Getpid()), fmt.Sprintf("meshd-b-%d", os.Getpid())
	for _, ns := range []string{a, b} {
		ip("netns", "add", ns)
		t.Cleanup(func() { ip("netns", "delete", ns) })
		ip("-n", ns, "link", "set", "lo", "up")
	}
	ip("-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b)
	for ns, addr := range map[string]string{a: "10.63.74.1/24", b: "10.63.74.2/24"} {
		ip("-n", ns, "address", "add", addr, "dev", "cable")
		ip("-n", ns, "link", "set", "cable", "up")
	}
	play(t, home, "MESHD_LISTEN", map[string]*terminal{
		"alice": openTerminal(t, home, "ip", "netns", "exec", a, "bash"), "bob": openTerminal(t, home, "ip", "netns", "exec", b, "bash"),
	})
}

// later has, for each word of a score that README.md says is not yet supported, a score that uses it; a
// semicolon stands for a new line.
var later = map[string]string{
	"pick":    `role "r" {; when = true; pick = 1; }`,
	"share":   `part "p" {; command "c" {; run = ["true"]; share = "one"; }; }`,
	"rollout": `part "p" {; want "w" {; name = "x"; place = "x"; rollout {}; }; }`,
	"proven":  `part "p" {; want "w" {; name = "x"; place = "x"; proven = ["y"]; }; }`,
	"unpack":  `part "p" {; want "w" {; name = "x"; place = "x"; unpack = true; }; }`,
	"method":  `method "m" {}`,
	"use":     `part "p" {; use "m" {; as = "x"; }; }`,
	"param":   `part "p" {; report "r" {; message = param.x; }; }`,
	"test":    `test "t" {}`,
	"package": `part "p" {; package "vim" {; state = "present"; }; }`,
	"service": `part "p" {; service "sshd" {; state = "running"; }; }`,
}

var (
	laterBullet = regexp.MustCompile("(?m)^- (in scores|meshd|meshctl|meshctl policy): ((?:.+\n)(?:  .+\n)*)")
	quoted      = regexp.MustCompile("`([^`]+)`")
)

// What README.md says is refused is refused by name, and what is not any more must leave the list.
func TestReadmeNamesWhatIsRefused(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	for _, m := range laterBullet.FindAllStringSubmatch(string(readme), -1) {
		for _, word := range quoted.FindAllStringSubmatch(m[2], -1) {
			said++
			var args []string
			switch m[1] {
			case "in scores":
				dir := t.TempDir()
				text := "score \"s\" { version = \"1.0.0\" }\n" + strings.ReplaceAll(later[word[1]], ";", "\n")
				if err := os.WriteFile(filepath.Join(dir, "score.hcl"), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				args = []string{"meshctl", "policy", "check", dir}
			case "meshd":
				args = append([]string{"meshd"}, strings.Fields(word[1])...)
			default:
				args = append(strings.Fields(m[1]), append(strings.Fields(word[1]), "x")...)
			}
			cmd := exec.CommandContext(t.Context(), filepath.Join(bin, args[0]), args[1:]...)
			cmd.Env = []string{"MESHD_DATA_DIR=" + t.TempDir()}
			out, err := cmd.CombinedOutput()
			words := strings.Fields(word[1])
			if name := words[len(words)-1]; err == nil || !strings.Contains(string(out), name) || !strings.Contains(string(out), "not yet supported") {
				t.Errorf("README.md says that %s (%s) is refused as not yet supported; it was told: %s", word[1], m[1], out)
			}
		}
	}
	if said < len(later) {
		t.Errorf("%d words found that README.md says are not yet supported, want %d or more", said, len(later))
	}
}
