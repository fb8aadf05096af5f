package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/agent/control"
)

const (
	tillFiles    = 300
	tillCommands = 10
	tillBoots    = 5
)

// tillScore is what a till in a shop promises: files, commands, a process, what it publishes, and what it wants
// from the office.
func tillScore() string {
	keys := func(n int, prefix string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "%q, ", fmt.Sprintf("%s%03d", prefix, i))
		}
		return b.String()
	}
	return fmt.Sprintf(`score "till" {
  version = "1.0.0"
}
locals {
  files    = [%s]
  commands = [%s]
}
role "till" { when = tag.kind == "till" }
part "local" {
  role = "till"
  file "page" {
    for_each = local.files
    path     = "pages/${each.key}"
    content  = "this is ${each.key}"
  }
  command "made" {
    for_each = local.commands
    run      = ["/bin/sh", "-c", "cat pages/f000 > made-${each.key}"]
    outputs  = ["made-${each.key}"]
    needs    = [file.page]
  }
  process "register" { run = ["/bin/sleep", "1000"] }
  artifact "receipts" {
    name  = "receipts"
    from  = "pages/f001"
    needs = [file.page]
  }
  want "prices" {
    name  = "prices"
    place = "prices.txt"
  }
}
`, keys(tillFiles, "f"), keys(tillCommands, "c"))
}

// boot starts the node as it starts on a machine that has no network at all, not even a loopback that is up.
func (n *node) boot() {
	n.f.t.Helper()
	var err error
	n.proc, err = Start("unshare", n.dir+".log", append([]string{"--net", n.f.exe("meshd"), "--data-dir", n.dir, "--listen", "127.0.0.1:0"}, n.args...)...)
	if err != nil {
		n.f.t.Fatal(err)
	}
}

// A till that knows of others is started with no network: everything it promises is kept, from its store alone,
// whether the disk is as it was or its work folder is empty. What is new comes on a stick.
func TestOfflineReboot(t *testing.T) {
	if !thorough() {
		t.Skip("skip: uses a network namespace; MESHD_TEST_ALL=1 runs it")
	}
	if _, err := exec.LookPath("unshare"); err != nil || os.Geteuid() != 0 {
		t.Skip("skip: needs root and unshare: starts meshd in a network namespace of its own")
	}
	f := newFleet(t)
	office := f.found("office", tillScore())
	prices := filepath.Join(f.dir, "prices")
	if err := os.WriteFile(prices, []byte("bread 3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	office.ctl("publish", "prices", prices)
	till := f.join("till", "kind=till")
	promised := tillFiles + tillCommands + 3
	kept := func() (bool, string) {
		list, err := till.door().Promises(t.Context(), "", "", false)
		if err != nil {
			return false, err.Error()
		}
		for _, p := range list {
			if p.Outcome != "kept" && p.Outcome != "repaired" {
				return false, fmt.Sprintf("%s is %s: %s", p.Address, p.Outcome, p.Reason)
			}
		}
		return len(list) == promised, fmt.Sprintf("%d of %d promises", len(list), promised)
	}
	eventually(t, "the till keeps all", kept)
	eventually(t, "the office has the receipts", func() (bool, string) { return office.offered("receipts").Name != "", "no" })

	for _, emptied := range []bool{false, true} {
		var took []time.Duration
		for range tillBoots {
			till.stop()
			ctx, cancel := context.WithTimeout(t.Context(), testTime)
			err := End(ctx, till.dir, nil) // a machine that was off has no processes
			cancel()
			if err != nil {
				t.Fatal(err)
			}
			if emptied {
				if err := os.RemoveAll(till.work()); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			till.boot()
			eventually(t, "with no network the till keeps all", kept)
			took = append(took, round(time.Since(began)))
			if got := readFile(t, till.work("prices.txt")); got != "bread 3\n" {
				t.Fatalf("the prices are %q", got)
			}
			if status := till.statusOf("office"); status == "alive" {
				t.Fatal("the office is alive: this is no test without a network")
			}
		}
		slices.Sort(took)
		t.Logf("%d promises with no network, work folder emptied %v: all kept %v after the start (median of %d, %v to %v); target 2s",
			promised, emptied, took[len(took)/2], len(took), took[0], took[len(took)-1])
	}

	// What the office published meanwhile comes on a stick, and an altered stick is refused.
	if err := os.WriteFile(prices, []byte("bread 4\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	office.ctl("publish", "prices", prices)
	stick := filepath.Join(f.dir, "stick")
	office.ctl("bundle", "export", "prices", stick)
	b := []byte(readFile(t, stick))
	b[len(b)/2] ^= 1
	if err := os.WriteFile(stick+".bad", b, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(f.exe("meshctl"), "--data-dir", till.dir, "bundle", "import", stick+".bad").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "nothing was taken in") {
		t.Errorf("an altered stick: %v, %s", err, out)
	}
	for range 2 {
		till.ctl("bundle", "import", stick)
	}
	t.Logf("placed %v after the import", round(holds(t, till.work("prices.txt"), "bread 4")))
	for _, item := range items[control.Member](till, "members") {
		if item.Name == "office" && (item.AbsentSince.IsZero() || item.Score != "1.0.0") {
			t.Errorf("of the office the till tells %+v", item)
		}
	}
}

// statusOf is how the node lists another.
func (n *node) statusOf(name string) string {
	n.f.t.Helper()
	list, err := n.door().Members(n.f.t.Context())
	if err != nil {
		n.f.t.Fatal(err)
	}
	for _, m := range list {
		if m.Name == name {
			return m.Status
		}
	}
	return ""
}
