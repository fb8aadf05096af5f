//go:build unix

package demo

import (
	"bytes"
	"context"
	"fmt"
	"maps"
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

// examplesOf returns the examples of each command of meshd whose help has some, from what --help prints.
func examplesOf(t *testing.T, args ...string) map[string][]string {
	t.Helper()
	help, err := exec.CommandContext(t.Context(), filepath.Join(bin, "meshd"), append(args, "--help")...).Output()
	if err != nil {
		t.Fatalf("meshd %s --help: %v", strings.Join(args, " "), err)
	}
	sections := map[string][]string{}
	title := ""
	for line := range strings.Lines(string(help)) {
		switch line = strings.TrimRight(line, "\n"); {
		case strings.HasSuffix(line, ":") && !strings.HasPrefix(line, " "):
			title = strings.TrimSuffix(line, ":")
		case strings.HasPrefix(line, "  ") && title != "":
			sections[title] = append(sections[title], strings.TrimSpace(line))
		case line == "":
			title = ""
		}
	}
	found := map[string][]string{}
	if list := sections["Examples"]; len(list) > 0 {
		found[strings.Join(append([]string{"meshd"}, args...), " ")] = list
	}
	for _, line := range sections["Available Commands"] {
		name := strings.Fields(line)[0]
		if name == "help" || name == "completion" {
			continue
		}
		for of, list := range examplesOf(t, append(slices.Clone(args), name)...) {
			found[of] = list
		}
	}
	return found
}

// A pasting is somebody who pastes examples into a shell, line by line, in a folder of their own, which also stands for
// /tmp. What goes on for ever runs on until all are pasted.
type pasting struct {
	t    *testing.T
	dir  string
	goes []*exec.Cmd
	logs []*bytes.Buffer
}

var dataDir = regexp.MustCompile(`--data-dir (\S+)`)

func (p *pasting) shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "bash")
	cmd.Dir, cmd.Stdin = p.dir, strings.NewReader(line) // typed: no process has the line as its arguments
	cmd.Env = []string{
		"PATH=" + bin + string(filepath.ListSeparator) + os.Getenv("PATH"), "HOME=" + p.dir, "TMPDIR=" + p.dir,
		"MESHD_LISTEN=127.0.0.1:0", // as if port 6374 were free
	}
	return cmd
}

// run pastes a line that ends, and wants exit 0.
func (p *pasting) run(line string) (stdout string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := p.shell(ctx, line)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		p.t.Fatalf("%s: %v\n%s%s", line, err, out.String(), errs.String())
	}
	return out.String()
}

// goOn pastes a line that starts a node, and waits until it answers.
func (p *pasting) goOn(line string) {
	p.t.Helper()
	cmd, log := p.shell(context.WithoutCancel(p.t.Context()), "exec "+line), new(bytes.Buffer)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.goes, p.logs = append(p.goes, cmd), append(p.logs, log)
	eventually(p.t, line+" answers", func() (bool, string) {
		out, err := p.shell(p.t.Context(), "meshctl --data-dir "+dataDir.FindStringSubmatch(line)[1]+" version").CombinedOutput()
		return err == nil && answers(string(out)), string(out)
	})
}

// end interrupts the nodes that go on; each must end well.
func (p *pasting) end() {
	for i, cmd := range p.goes {
		_ = cmd.Process.Signal(syscall.SIGINT)
		if err := cmd.Wait(); err != nil {
			p.t.Errorf("interrupted, %v ended with %v\n%s", cmd.Args, err, p.logs[i].String())
		}
	}
}

// paste runs an example, or says why it can't be run here.
func (p *pasting) paste(line string) (ran bool) {
	p.t.Helper()
	engine, uses := "", strings.Contains(line, "--docker") || strings.Contains(line, "meshd image")
	if uses {
		engine = "docker"
	}
	if strings.Contains(line, "podman") {
		engine = "podman"
	}
	switch {
	case !thorough() && (engine != "" || strings.Contains(line, "meshd demo")):
		p.t.Logf("%s: MESHD_TEST_ALL=1 runs it", line)
		return false
	case engine != "" && exec.Command(engine, "version").Run() != nil:
		p.t.Logf("%s: there is no %s", line, engine)
		return false
	}
	if strings.Contains(line, "@token") {
		p.run("meshctl --data-dir " + p.dir + "/m invite --name web-1 --tag tier=web > token")
	}
	switch {
	case regexp.MustCompile(`^meshd (run )?--data-dir`).MatchString(line):
		p.goOn(line)
	case strings.Contains(line, "--keep"):
		said := p.run(line)
		end := regexp.MustCompile(`kill \$\(pgrep -f \S+\)`).FindString(said)
		if end == "" {
			p.t.Fatalf("%s does not say how to end what it keeps:\n%s", line, said)
		}
		p.run(end) // an example of its own
	default:
		p.run(line)
	}
	if strings.Contains(line, "meshd image") {
		name := append(strings.Fields(line), "meshd:latest")[2]
		p.run(engine + " rmi " + strings.TrimPrefix(name, "--engine"))
	}
	return true
}

// Each example of each command's help works when pasted, in the order in which help shows them.
func TestExamplesOfMeshdWorkWhenPasted(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("skip: needs bash")
	}
	if thorough() {
		static(t) // as the examples that make images want it
		docker(t, []string{"CGO_ENABLED=0"}, "go", "build", "-o", bin+"/", "./cmd/meshctl")
	}
	found, ran := examplesOf(t), 0
	for _, command := range slices.Sorted(maps.Keys(found)) {
		t.Run(command, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "help") // t.TempDir is too long a path for sockets
			if err != nil {
				t.Fatal(err)
			}
			p := &pasting{t: t, dir: dir}
			defer func() {
				p.end()
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			}()
			if command == "meshd run" {
				p.run("meshd init --data-dir " + dir + "/m --name host")
			}
			for _, line := range found[command] {
				if p.paste(strings.ReplaceAll(line, "/tmp/", dir+"/")) {
					ran++
				}
			}
		})
	}
	if ran < 8 {
		t.Errorf("%d examples were run, of %v", ran, fmt.Sprint(found))
	}
}
