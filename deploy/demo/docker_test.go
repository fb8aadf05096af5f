package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const dockerTime = 5 * time.Minute // to build, on a machine that does much else

// docker runs a command to its end in this repository; its standard output is returned.
func docker(t *testing.T, env []string, argv ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), dockerTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(argv, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// needDocker skips where there is no engine, and insists at the end that nothing of it is left.
func needDocker(t *testing.T) {
	t.Helper()
	if !thorough() {
		t.Skip("skip: uses docker; MESHD_TEST_ALL=1 runs it")
	}
	if err := exec.Command("docker", "version").Run(); err != nil {
		t.Skip("skip: needs docker")
	}
	list := func() string {
		return docker(t, nil, "docker", "ps", "-aq", "--no-trunc") + docker(t, nil, "docker", "volume", "ls", "-q") +
			docker(t, nil, "docker", "network", "ls", "-q") + docker(t, nil, "docker", "images", "-q")
	}
	before := list()
	t.Cleanup(func() {
		if after := list(); after != before {
			t.Errorf("left in the engine:\n%s\nbefore:\n%s", after, before)
		}
	})
}

// static builds a meshd that runs with nothing beside it.
func static(t *testing.T) {
	t.Helper()
	dir, was := t.TempDir(), bin
	docker(t, []string{"CGO_ENABLED=0"}, "go", "build", "-o", dir+"/", "./cmd/meshd")
	bin = dir
	t.Cleanup(func() { bin = was })
}

func TestDemoWithDocker(t *testing.T) {
	needDocker(t)
	static(t)
	for _, at := range []string{"", "Remove a container"} {
		t.Run("interrupted at "+at, func(t *testing.T) {
			r := playDemo(t, disturbance{at, signals(os.Interrupt)}, nil, "--docker")
			r.nothingLeft(t)
			if at != "" {
				if r.code != 1 || !strings.Contains(r.errs.String(), "interrupted") {
					t.Errorf("exit code %d\n%s\nstderr: %s", r.code, r.out.String(), r.errs.String())
				}
				return
			}
			r.good(t)
			for line := range strings.Lines(r.out.String()) {
				if strings.Contains(line, " ms") || strings.Contains(line, " it took ") {
					t.Log(strings.TrimSpace(line))
				}
			}
			if !strings.Contains(r.out.String(), "was left alone") {
				t.Errorf("no word of the container that is none of its own:\n%s", r.out.String())
			}
		})
	}
}

func TestComposeBringsUpAMeshOfFour(t *testing.T) {
	needDocker(t)
	tag := strings.ToLower(rand.Text()[:8])
	env := []string{"MESHD_IMAGE=meshd:test-" + tag, "COMPOSE_PROJECT_NAME=meshdtest" + tag}
	t.Cleanup(func() { docker(t, env, "docker", "rmi", "meshd:test-"+tag) })
	docker(t, env, "deploy/docker/build", "meshd:test-"+tag)
	t.Cleanup(func() { docker(t, env, "deploy/docker/mesh", "down", "-v") })
	for _, time := range []string{"founded", "started again"} {
		docker(t, env, "deploy/docker/mesh", "up")
		fourAlive(t, env, time)
		docker(t, env, "deploy/docker/mesh", "down")
	}
}

func fourAlive(t *testing.T, env []string, when string) {
	t.Helper()
	var list struct {
		Items []struct{ Name, Status string }
	}
	began := time.Now()
	for time.Since(began) < testTime {
		if err := json.Unmarshal([]byte(docker(t, env, "deploy/docker/mesh", "ctl", "members", "-o", "json")), &list); err != nil {
			t.Fatal(err)
		}
		alive := 0
		for _, m := range list.Items {
			if m.Status == "alive" {
				alive++
			}
		}
		if alive == 4 {
			t.Logf("%s: four nodes alive %v after mesh up", when, time.Since(began))
			return
		}
		time.Sleep(lookTime)
	}
	t.Fatalf("%s: members are %+v", when, list.Items)
}
