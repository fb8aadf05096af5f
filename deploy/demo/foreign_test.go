//go:build linux

package demo

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

const greeting = `
score "greeting" {
  version  = "1.0.0"
  language = 1
}
role "writer" { when = tag.kind == "writer" }
role "reader" { when = tag.kind == "reader" }
part "write" {
  role = "writer"
  file "card" {
    path    = "card.txt"
    content = "Greetings from ${fact.arch}"
  }
  artifact "card" { from = "card.txt" }
}
part "read" {
  role = "reader"
  want "card" {
    name  = "card"
    place = "card.txt"
  }
}
`

// foreign builds meshd and meshctl for another processor and puts in dir what runs them here.
func foreign(t *testing.T, dir, emulator, arch, arm string) {
	t.Helper()
	qemu := ""
	for _, name := range []string{emulator + "-static", emulator} {
		if path, err := exec.LookPath(name); err == nil {
			qemu = path
		}
	}
	if qemu == "" {
		t.Skip("skip: needs qemu-user (" + emulator + ")")
	}
	real := filepath.Join(dir, "real")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", real+string(filepath.Separator), "meshd/cmd/meshd", "meshd/cmd/meshctl")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "GOARM="+arm, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build for %s: %v\n%s", arch, err, out)
	}
	for _, name := range []string{"meshd", "meshctl"} {
		script := fmt.Sprintf("#!/bin/sh\nexec %s %s \"$@\"\n", qemu, filepath.Join(real, name))
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// Two nodes, both on a processor that this machine does not have: an artifact goes from one to the other.
func TestTwoNodesOnForeignProcessors(t *testing.T) {
	if !thorough() {
		t.Skip("skip: builds for other processors; MESHD_TEST_ALL=1 runs it")
	}
	tests := []struct{ name, emulator, arch, arm string }{
		{"armv6", "qemu-arm", "arm", "6"},
		{"arm64", "qemu-aarch64", "arm64", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOARCH == tt.arch {
				t.Skip("skip: this is such a processor")
			}
			f := newFleet(t)
			f.bin = filepath.Join(f.dir, "bin")
			foreign(t, f.bin, tt.emulator, tt.arch, tt.arm)
			f.found("alice", greeting, "kind=writer")
			bob := f.join("bob", "kind=reader")
			took := holds(t, bob.work("card.txt"), "Greetings from "+tt.arch)
			f.settled("card")
			bob.alive(2)
			t.Logf("the card was there after %v", round(took))
			bob.stop()
		})
	}
}
