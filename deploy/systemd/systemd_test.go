//go:build linux

package systemd

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	maxExposure = 2.5 // of the hardened unit, as systemd-analyze security judges it
	packageTime = 10 * time.Minute
)

var units = []string{"meshd.service", "meshd-system.service"}

func needs(t *testing.T, program, option string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skip("skip: needs " + program)
	}
	if option == "" {
		return
	}
	help, err := exec.CommandContext(t.Context(), program, "--help").Output()
	if err != nil || !strings.Contains(string(help), option) {
		t.Skipf("skip: needs %s with %s", program, option)
	}
}

// planted copies a unit and has it name a program that is there.
func planted(t *testing.T, unit string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), unit)
	text := strings.ReplaceAll(string(b), "/usr/bin/meshd", exe)
	if text == string(b) {
		t.Fatalf("%s does not start /usr/bin/meshd", unit)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUnitsVerify(t *testing.T) {
	needs(t, "systemd-analyze", "")
	for _, unit := range units {
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", planted(t, unit)).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

func TestTheUnprivilegedUnitIsHardened(t *testing.T) {
	needs(t, "systemd-analyze", "--offline")
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", planted(t, units[0])).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no exposure level in\n%s", out)
	}
	exposure, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("exposure %.1f", exposure)
	if exposure > maxExposure {
		t.Errorf("exposure %.1f, want at most %.1f\n%s", exposure, maxExposure, out)
	}
}

// What a node keeps running must outlive it, and a faulty configuration must not be tried for ever.
func TestUnitsLeaveProcessesAlone(t *testing.T) {
	for _, unit := range units {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(b), "\n")
		for _, want := range []string{"KillMode=process", "Type=notify", "RestartPreventExitStatus=2 78", "WatchdogSec=60"} {
			if !slices.Contains(lines, want) {
				t.Errorf("%s lacks %s", unit, want)
			}
		}
	}
}

// build makes a deb of that version for this machine.
func build(ctx context.Context, t *testing.T, dir, version string) string {
	t.Helper()
	cmd := exec.CommandContext(ctx, filepath.Join("..", "package"), "-v", version, "-o", dir, "linux/"+runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("deploy/package: %v\n%s", err, out)
	}
	found, err := filepath.Glob(filepath.Join(dir, "meshd_"+version+"_*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("deb packages of %s: %v, %v", version, found, err)
	}
	rpms, err := filepath.Glob(filepath.Join(dir, "meshd-"+version+"*.rpm"))
	if err != nil || len(rpms) != 1 {
		t.Fatalf("rpm packages of %s: %v, %v", version, rpms, err)
	}
	whole(ctx, t, rpms[0])
	return found[0]
}

// whole has rpm check a package, and looks for what must be in it.
func whole(ctx context.Context, t *testing.T, path string) {
	t.Helper()
	if _, err := exec.LookPath("rpm"); err != nil {
		t.Log("no rpm on this machine: the package was not looked into")
		return
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(ctx, "rpm", append(args, path)...).CombinedOutput()
		if err != nil {
			t.Fatalf("rpm %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("--checksig", "--nosignature")
	files := strings.Fields(run("--query", "--list", "--package"))
	for _, want := range []string{
		"/usr/bin/meshd", "/usr/bin/meshctl", "/usr/lib/systemd/system/meshd.service", "/usr/lib/systemd/system/meshd-system.service",
		"/usr/lib/sysusers.d/meshd.conf", "/usr/lib/tmpfiles.d/meshd.conf", "/etc/meshd/meshd.hcl", "/usr/share/man/man1/meshctl.1.gz",
	} {
		if !slices.Contains(files, want) {
			t.Errorf("%s lacks %s", filepath.Base(path), want)
		}
	}
	if scripts := run("--query", "--scripts", "--package"); !strings.Contains(scripts, "systemctl try-restart") || !strings.Contains(scripts, "MESHD_PROMISE") {
		t.Errorf("%s does not restart on an upgrade, or leaves processes when it is removed:\n%s", filepath.Base(path), scripts)
	}
}

// The package is installed, started, upgraded with its processes adopted, removed and purged, in a copy of
// this machine's files and namespaces of its own, with a stand-in for systemd.
func TestThePackageLivesItsLife(t *testing.T) {
	if !thorough() {
		t.Skip("skip: builds two releases; MESHD_TEST_ALL=1 runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("skip: needs root")
	}
	for _, program := range []string{"dpkg", "unshare", "chroot", "setpriv", "runuser", "pgrep"} {
		needs(t, program, "")
	}
	if err := exec.CommandContext(t.Context(), "unshare", "--mount", "--pid", "--net", "--fork", "true").Run(); err != nil {
		t.Skipf("skip: needs namespaces (%v)", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), packageTime)
	defer cancel()
	nfpm := strings.Fields(os.Getenv("NFPM"))
	if len(nfpm) == 0 {
		nfpm = []string{"go", "run", "github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0"}
	}
	if out, err := exec.CommandContext(ctx, nfpm[0], append(nfpm[1:], "--version")...).CombinedOutput(); err != nil {
		t.Skipf("skip: needs nfpm, or a network to fetch it, or NFPM to name it: %v\n%s", err, out)
	}
	dir := t.TempDir()
	before, after := build(ctx, t, dir, "1.0.0"), build(ctx, t, dir, "1.1.0")
	mount := t.TempDir()
	out, err := exec.CommandContext(ctx, "unshare", "--mount", "--pid", "--net", "--fork", "--kill-child",
		"sh", filepath.Join("testdata", "deb.sh"), mount, before, after, "1.1.0").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"started: process ", "upgraded: the same process ", "removed: nothing runs", "purged: nothing is left"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it did not say %q\n%s", want, out)
		}
	}
}

// thorough reports whether the tests that take minutes, or use an engine of containers, run too: .ci/run says so.
func thorough() bool { return os.Getenv("MESHD_TEST_ALL") != "" }
