package agent

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"meshd/agent/control"
	"meshd/agent/promise"
	"meshd/mesh"
	"meshd/mesh/id"
	"meshd/policies"
)

const noteScore = `part "p" {
  file "note" {
    path    = "note.txt"
    content = "as promised"
  }
  file "other" {
    path    = "other.txt"
    content = "as promised"
  }
}
role "night" { when = tag.shift == "night" }
part "night" {
  role = "night"
  file "lamp" {
    path    = "lamp.txt"
    content = "on"
  }
}`

func TestAPauseKeepsHandsOffUntilItsEndAcrossARestart(t *testing.T) {
	solo(t, noteScore, func(f *fleet, m *simNode) {
		f.waitGood(m, "p.file.note")
		f.waitGood(m, "p.file.other")
		if err := (door{m.agent}).Pause(f.t.Context(), "p.file.note", time.Hour); err != nil {
			t.Fatal(err)
		}
		f.until("the pause is told", time.Minute, func() (bool, string) {
			outcome, reason := f.outcome(m, "p.file.note")
			return outcome == "kept" && strings.HasPrefix(reason, "paused until "), outcome + ": " + reason
		})
		work := m.agent.cfg.WorkDir
		damage := func() {
			for _, name := range []string{"note.txt", "other.txt"} {
				if err := os.WriteFile(filepath.Join(work, name), []byte("edited"), 0o644); err != nil {
					t.Fatal(err)
				}
				m.host.Touch(work, name)
			}
		}
		damage()
		if why := f.waitOutcome(m, "p.file.note", "drifted"); !strings.HasPrefix(why, "paused until ") {
			t.Errorf("drifted with the reason %q", why)
		}
		f.until("the other is repaired", time.Minute, func() (bool, string) { return m.read("other.txt") == "as promised", m.read("other.txt") })
		f.halt(m, true)
		f.start(m)
		f.waitOutcome(m, "p.file.note", "drifted")
		time.Sleep(30 * time.Minute)
		if got := m.read("note.txt"); got != "edited" {
			t.Fatalf("half an hour into the pause the file is %q", got)
		}
		f.until("the pause is over", 31*time.Minute, func() (bool, string) { return m.read("note.txt") == "as promised", m.read("note.txt") })
		if outcome, reason := f.outcome(m, "p.file.note"); strings.Contains(reason, "paused") {
			t.Errorf("after the pause it is %s: %s", outcome, reason)
		}
	})
}

func TestAPauseOfAllEndsWhenToldTo(t *testing.T) {
	solo(t, noteScore, func(f *fleet, m *simNode) {
		f.waitGood(m, "p.file.note")
		d := door{m.agent}
		if err := d.Pause(f.t.Context(), "p.file.nosuch", time.Hour); control.CodeOf(err) != control.NotFound {
			t.Errorf("a pause of nothing: %v", err)
		}
		if err := d.Pause(f.t.Context(), "", 0); control.CodeOf(err) != control.NotFound {
			t.Errorf("the end of no pause: %v", err)
		}
		if err := d.Pause(f.t.Context(), "", time.Hour); err != nil {
			t.Fatal(err)
		}
		troubles, err := d.Doctor(f.t.Context()) // the clock, which a bubble sets to the year 2000, and both promises
		if err != nil || len(troubles) != 3 || !strings.HasPrefix(troubles[1].Text, "paused until") {
			t.Errorf("right after, the doctor says %v, %v", troubles, err)
		}
		if err := os.Remove(filepath.Join(m.agent.cfg.WorkDir, "note.txt")); err != nil {
			t.Fatal(err)
		}
		m.host.Touch(m.agent.cfg.WorkDir, "note.txt")
		f.waitOutcome(m, "p.file.note", "drifted")
		if err := d.Pause(f.t.Context(), "", 0); err != nil {
			t.Fatal(err)
		}
		f.until("it is repaired", time.Minute, func() (bool, string) { return m.read("note.txt") == "as promised", m.read("note.txt") })
		story, err := d.Story(f.t.Context(), 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		told := ""
		for _, s := range story {
			if s.Subject == "all promises" {
				told += s.Text + ";"
			}
		}
		if !strings.Contains(told, "paused until") || !strings.Contains(told, "the pause is ended") {
			t.Errorf("the story tells %q of the pause", told)
		}
	})
}

func TestTagsThatAreSetMakeRolesAtOnceAndLast(t *testing.T) {
	solo(t, noteScore, func(f *fleet, m *simNode) {
		f.waitGood(m, "p.file.note")
		all, err := door{m.agent}.SetTags(f.t.Context(), map[string]string{"shift": "night"})
		if err != nil || all["shift"] != "night" {
			t.Fatalf("tags %v, %v", all, err)
		}
		f.waitGood(m, "night.file.lamp")
		f.halt(m, true)
		f.start(m)
		f.waitGood(m, "night.file.lamp")
		if _, err := (door{m.agent}).SetTags(f.t.Context(), map[string]string{"shift": ""}); err != nil {
			t.Fatal(err)
		}
		f.until("the part ends", time.Minute, func() (bool, string) {
			outcome, _ := f.outcome(m, "night.file.lamp")
			return outcome == "", outcome
		})
		f.until("the others are told", time.Minute, func() (bool, string) {
			members, err := door{m.agent}.Members(f.t.Context())
			return err == nil && members[0].Tags["shift"] == "", "still there"
		})
	})
}

func TestTagsThatCannotBeSetAreRefusedWithTheReason(t *testing.T) {
	solo(t, noteScore, func(f *fleet, m *simNode) {
		m.agent.attested = map[string]string{"kind": "parent"}
		long := strings.Repeat("x", maxTagText)
		many := map[string]string{}
		for _, k := range strings.Split("abcdefghijklmnopq", "") {
			many[k] = "1"
		}
		for _, tt := range []struct {
			tags map[string]string
			code control.Code
			say  string
		}{
			{map[string]string{"kind": "child"}, control.Failed, "attested"},
			{map[string]string{"a.b": "c"}, control.Usage, "want 1 to 63"},
			{map[string]string{"a": long + "x"}, control.Usage, "the limit is 128"},
			{map[string]string{"a": long, "b": long, "c": long, "d": long}, control.Failed, "the limits are"},
			{many, control.Failed, "the limits are"},
		} {
			_, err := door{m.agent}.SetTags(f.t.Context(), tt.tags)
			if control.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.say) {
				t.Errorf("%v: %v", tt.tags, err)
			}
		}
		if n, err := LoadNode(m.dir); err != nil || len(n.Tags) != 0 {
			t.Errorf("after refusals the node keeps %v, %v", n.Tags, err)
		}
	})
}

func TestAForgottenNodeIsListedAgainWhenItReturns(t *testing.T) {
	solo(t, noteScore, func(f *fleet, m *simNode) {
		gone := f.join("gone", 2, nil)
		d := door{m.agent}
		status := func() string {
			members, err := d.Members(f.t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range members {
				if n.Name == "gone" {
					return n.Status
				}
			}
			return "unlisted"
		}
		wait := func(want string) {
			t.Helper()
			f.until("gone is "+want, 2*time.Minute, func() (bool, string) { return status() == want, status() })
		}
		wait("alive")
		if err := d.Forget(f.t.Context(), "gone"); control.CodeOf(err) != control.Failed || !strings.Contains(err.Error(), "alive") {
			t.Errorf("forgetting who is there: %v", err)
		}
		if err := d.Forget(f.t.Context(), "nobody"); control.CodeOf(err) != control.NotFound {
			t.Errorf("forgetting nobody: %v", err)
		}
		f.halt(gone, true)
		wait("failed")
		if err := d.Forget(f.t.Context(), "gone"); err != nil {
			t.Fatal(err)
		}
		if got := status(); got != "unlisted" {
			t.Fatalf("forgotten, it is %s", got)
		}
		f.halt(m, false)
		f.start(m)
		d = door{m.agent}
		if got := status(); got != "unlisted" {
			t.Errorf("after a restart it is %s", got)
		}
		f.start(gone)
		wait("alive")
		f.halt(gone, true)
		wait("failed")
	})
}

func TestADiffTellsWhatAScoreWouldChangeAndChangesNothing(t *testing.T) {
	solo(t, noteScore, func(f *fleet, m *simNode) {
		f.waitGood(m, "p.file.note")
		next := strings.NewReplacer(
			`path    = "note.txt"`, `path    = "elsewhere.txt"`, `file "other"`, `file "another"`, `tag.shift == "night"`, `tag.shift != "night"`,
		).Replace(noteScore)
		got, err := f.diff(m, soloScore("2.0.0", next))
		if err != nil {
			t.Fatal(err)
		}
		want := []control.Change{
			{Kind: "promise", Change: "added", Name: "night.file.lamp"},
			{Kind: "promise", Change: "added", Name: "p.file.another"},
			{Kind: "promise", Change: "changed", Name: "p.file.note"},
			{Kind: "promise", Change: "removed", Name: "p.file.other"},
			{Kind: "role", Change: "added", Name: "night"},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if same, err := f.diff(m, soloScore("1.0.1", noteScore)); err != nil || len(same) != 0 {
			t.Errorf("of the same promises: %v, %v", same, err)
		}
		if _, err := f.diff(m, "nonsense"); control.CodeOf(err) != control.Failed {
			t.Errorf("of nonsense: %v", err)
		}
		if got := m.read("elsewhere.txt"); got != "" {
			t.Errorf("the diff was played: %q", got)
		}
	})
}

// diff asks m what a score would change.
func (f *fleet) diff(m *simNode, text string) ([]control.Change, error) {
	dir := f.t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "score.hcl"), []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
	var b bytes.Buffer
	if err := control.Pack(&b, dir, nil); err != nil {
		f.t.Fatal(err)
	}
	return door{m.agent}.DiffScore(f.t.Context(), &b)
}

func TestALogIsFollowedAcrossItsRotation(t *testing.T) {
	solo(t, noteScore, func(f *fleet, m *simNode) {
		f.waitGood(m, "p.file.note")
		path := promise.LogPath(m.dir, "p.file.note")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write := func(text string) {
			log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			if _, err := log.WriteString(text); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(path+".1", []byte("zero "), 0o600); err != nil {
			t.Fatal(err)
		}
		write("one ")
		ctx, cancel := context.WithCancel(f.t.Context())
		out := &lockedBuffer{}
		ended := make(chan error, 1)
		go func() { ended <- door{m.agent}.Logs(ctx, "p.file.note", true, out) }()
		saw := func(want string) {
			t.Helper()
			f.until("the log is "+want, time.Minute, func() (bool, string) { return out.String() == want, out.String() })
		}
		saw("zero one ")
		write("two ")
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		write("three ")
		saw("zero one two three ")
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		write("four")
		saw("zero one two three four")
		cancel()
		if err := <-ended; control.CodeOf(err) != control.Interrupted {
			t.Errorf("it ended with %v", err)
		}
		if err := (door{m.agent}).Logs(f.t.Context(), "p.file.nosuch", true, out); control.CodeOf(err) != control.NotFound {
			t.Errorf("of no promise: %v", err)
		}
	})
}

func TestTheDoctorNamesWhatIsWrongAndWhatToDo(t *testing.T) {
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	well := func() vitals {
		return vitals{
			now: noon, name: "host", dir: "/data", addr: "10.0.0.1:6374", addrs: []string{"10.0.0.1:6374"}, attached: true, scored: true,
			nodes: []mesh.Node{
				{Name: "host", Self: true, Alive: true, Status: "alive"},
				{Name: "b", Alive: true, Status: "alive", Addrs: []string{"10.0.0.2:6374"}},
			},
			told: map[string]time.Time{"b": noon}, notBefore: noon.Add(-24 * time.Hour), notAfter: noon.Add(29 * 24 * time.Hour),
			charterExpires: noon.Add(365 * 24 * time.Hour), freeBytes: 50 << 30, size: 100 << 30,
		}
	}
	if got := well().troubles(); len(got) != 0 {
		t.Fatalf("a node that is well: %v", got)
	}
	tests := []struct {
		name                  string
		ail                   func(v *vitals)
		level, check, subject string
		text, advice          string
	}{
		{"clock unset", func(v *vitals) { v.now = time.Unix(0, 0) }, "problem", "clock", "host", "never set", "chrony"},
		{"clock behind", func(v *vitals) { v.notBefore = noon.Add(time.Hour) }, "problem", "clock", "host", "before this node's certificate", "set this machine's clock"},
		{"peer ahead", func(v *vitals) { v.told["b"] = noon.Add(time.Hour) }, "warning", "clock", "b", "1h0m0s ahead", "compare"},
		{"offline", func(v *vitals) { v.offline = true }, "warning", "port", "10.0.0.1:6374", "off line", "meshctl offline --end"},
		{"loopback", func(v *vitals) { v.addrs = []string{"127.0.0.1:6374"} }, "problem", "port", "10.0.0.1:6374", "loopback", "--advertise"},
		{"foreign address", func(v *vitals) { v.foreign = true }, "problem", "port", "10.0.0.1:6374", "has not now", "--listen :6374"},
		{"full", func(v *vitals) { v.notTaken = "full: 64 leaves are attached here" }, "problem", "attach", "host", "64 leaves are attached", "more members"},
		{"deaf", func(v *vitals) { v.nodes[1].Alive, v.nodes[1].Status = false, "left" }, "problem", "port", "10.0.0.1:6374", "none reaches it", "firewall"},
		{"cut off", func(v *vitals) { v.nodes[1].Alive, v.nodes[1].Status, v.attached = false, "left", false }, "problem", "port", "10.0.0.1:6374", "none of the 1", "network"},
		{"absent", func(v *vitals) { v.nodes = append(v.nodes, mesh.Node{Name: "c", Status: "failed"}) }, "warning", "peers", "c", "never seen", "meshctl forget c"},
		{"long away", func(v *vitals) {
			v.nodes = append(v.nodes, mesh.Node{ID: id.Node{1}, Name: "c", Status: "left", LastSeen: noon.Add(-12 * 24 * time.Hour)})
			v.waiting = map[id.Node]waiting{{1}: {2, 7}}
		}, "warning", "peers", "c", "12 days away; 2 artifacts (7 bytes) wait for it, everywhere until 2027-02-08, then in copies", "meshctl forget c"},
		{"away for ever", func(v *vitals) {
			v.nodes = append(v.nodes, mesh.Node{ID: id.Node{1}, Name: "c", Status: "failed", LastSeen: noon.Add(-100 * 24 * time.Hour)})
			v.waiting = map[id.Node]waiting{{1}: {2, 7}}
		}, "warning", "peers", "c", "100 days away; 2 artifacts (7 bytes) wait for it in copies", "meshctl forget c"},
		{"certificate ends", func(v *vitals) { v.notAfter = noon.Add(time.Hour) }, "warning", "certificate", "host", "expires 2026-11-22T13:00:00Z", "sponsor"},
		{"certificate ended", func(v *vitals) { v.notAfter = noon.Add(-time.Hour) }, "problem", "certificate", "host", "expired", "sponsor"},
		{"charter ends", func(v *vitals) { v.charterExpires = noon.Add(time.Hour) }, "warning", "charter", "host", "expires", "root keys"},
		{"clone", func(v *vitals) { v.nodes[0].Cloned = true }, "problem", "clone", "host", "nothing is published here", "--replace"},
		{"clone elsewhere", func(v *vitals) {
			v.nodes[1].Cloned, v.forks = true, []fork{{"b", false}}
		}, "problem", "clone", "b", "it says that another machine", "--replace"},
		{"fork", func(v *vitals) { v.forks = []fork{{"b", false}} }, "problem", "fork", "b", "one number", "cloned disk"},
		{"fork answered", func(v *vitals) { v.forks = []fork{{"b", true}} }, "warning", "fork", "b", "goes on in a new log", "backup was restored"},
		{"backup", func(v *vitals) { v.restored = true }, "warning", "restored", "host", "went back in time", "no other machine"},
		{"score refused", func(v *vitals) { v.refused, v.refusal = "1.1.0", "line 3" }, "problem", "score", "score@1.1.0", "line 3", "rollback"},
		{"no score", func(v *vitals) { v.scored = false }, "warning", "score", "host", "no score", "policy publish"},
		{"failed", func(v *vitals) { v.ails = []ail{{"p.file.x", "disk is full", policies.Failed, false}} }, "problem", "promises", "p.file.x", "failed: disk is full", "meshctl retry"},
		{"drifted", func(v *vitals) { v.ails = []ail{{"p.file.x", "mode", policies.Drifted, false}} }, "warning", "promises", "p.file.x", "drifted: mode", "audit"},
		{"paused", func(v *vitals) { v.ails = []ail{{"p.file.x", "paused until", policies.Kept, true}} }, "warning", "promises", "p.file.x", "paused until", "--end"},
		{"disk full", func(v *vitals) { v.freeBytes = 1 << 20 }, "problem", "disk", "/data", "1 MiB", "make room"},
		{"disk filling", func(v *vitals) { v.freeBytes = 300 << 20 }, "warning", "disk", "/data", "only 300 MiB", "make room"},
		{"quota filling", func(v *vitals) { v.packs, v.maxSize = 461<<20, 512<<20 }, "warning", "quota", "/data", "461 of the 512 MiB", "--max-size"},
		{"watches", func(v *vitals) { v.unwatched = 3 }, "warning", "watches", "host", "3 promises", "max_user_watches"},
		{"liar", func(v *vitals) { v.liars = []liar{{"b", "a chunk was false", noon}} }, "problem", "liars", "b", "a chunk was false", "meshctl revoke b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := well()
			tt.ail(&v)
			got := v.troubles()
			if len(got) != 1 {
				t.Fatalf("%d troubles, want one: %v", len(got), got)
			}
			g := got[0]
			if g.Level != tt.level || g.Check != tt.check || g.Subject != tt.subject || !strings.Contains(g.Text, tt.text) || !strings.Contains(g.Advice, tt.advice) {
				t.Errorf("got %+v", g)
			}
		})
	}
}

func TestTheDoctorLooksAtANodeThatRuns(t *testing.T) {
	solo(t, `part "p" {
  command "broken" { run = ["nosuch"] }
}`, func(f *fleet, m *simNode) {
		f.waitOutcome(m, "p.command.broken", "failed")
		(door{m.agent}).a.setOffline(0, true)
		got, err := door{m.agent}.Doctor(f.t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found := map[string]string{}
		for _, tr := range got {
			found[tr.Check] += tr.Subject
		}
		if found["promises"] != "p.command.broken" || found["port"] == "" {
			t.Errorf("it found %v", got)
		}
	})
}

// A lockedBuffer may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
