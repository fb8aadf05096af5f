package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meshd/agent/control"
	"meshd/mesh/catalog"
	"meshd/store/artifact"
)

// These tests play insiders: nodes with a valid certificate that do not keep to the rules. What they do is
// done below the checks that an honest door makes.

// marketScore has makers of app, users that may pull it, and vendors with names of their own that all may pull.
const marketScore = `role "maker" { when = tag.kind == "maker" }
role "user" { when = tag.kind == "user" }
role "vendor" { when = tag.kind == "vendor" }
part "p" {
  role = "user"
  want "app" {
    name  = "app"
    from  = "maker"
    place = "app.txt"
  }
  file "free" {
    path    = "free.txt"
    content = "free"
  }
}
access "x" {
  allow "publish" {
    names = ["app"]
    roles = ["maker"]
  }
  allow "publish" {
    names = ["shop/**"]
    roles = ["vendor"]
  }
  allow "pull" {
    names = ["app"]
    roles = ["user", "maker"]
  }
  allow "pull" {
    names = ["shop/**"]
    roles = ["user", "maker", "vendor"]
  }
  allow "admit" {
    names = ["stall_*"]
    roles = ["vendor"]
  }
}`

// market is a mesh that plays marketScore: host, user, maker, vendor.
func market(t *testing.T, play func(t *testing.T, f *fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 11)
		defer f.end()
		f.found("host", nil)
		f.publishScore(soloScore("1.0.0", marketScore))
		for i, kind := range []string{"user", "maker", "vendor"} {
			f.join(kind, i+2, map[string]string{"kind": kind})
		}
		f.until("all play the score and see each other", time.Minute, func() (bool, string) {
			for _, m := range f.nodes {
				if v := m.agent.view.Load(); v == nil || v.program == nil || len(m.agent.mesh.Alive()) != 4 {
					return false, m.name
				}
			}
			return true, ""
		})
		play(t, f)
	})
}

// advertise signs an artifact record, whatever stands behind it, and returns when all have heard it.
func (f *fleet) advertise(m *simNode, name string, body catalog.ArtifactBody) {
	f.t.Helper()
	b, err := catalog.EncodeArtifact(body)
	if err != nil {
		f.t.Fatal(err)
	}
	rec, err := m.agent.mesh.Publish(f.t.Context(), catalog.KindArtifact, name, b, body.Keep)
	if err != nil {
		f.t.Fatal(err)
	}
	f.until("the advert is heard", time.Minute, func() (bool, string) {
		for _, n := range f.nodes {
			heard := false
			for _, o := range n.agent.supply.named(name) {
				heard = heard || o.ref.Version.By == rec.Log.Origin && o.body.Counter == body.Counter
			}
			if !heard {
				return false, n.name
			}
		}
		return true, ""
	})
}

// The right to pull follows from the name that the publisher gave an artifact. A root is public knowledge:
// to offer it once more, under a name that one may pull, must not open it.
func TestAnotherNameOpensNoArtifact(t *testing.T) {
	market(t, func(t *testing.T, f *fleet) {
		maker, user, vendor := f.nodes["maker"], f.nodes["user"], f.nodes["vendor"]
		if _, err := f.publishFile(maker, "app", "", "secret"); err != nil {
			t.Fatal(err)
		}
		f.until("the user has it", time.Minute, func() (bool, string) { return user.read("app.txt") == "secret", f.report() })
		app := vendor.agent.supply.named("app")[0]
		for _, name := range []string{"free", "shop/app", scoreName} {
			body := app.body
			body.Semver = "0.0.1"
			f.advertise(vendor, name, body)
			ref := app.ref
			ref.Name = name
			err := vendor.agent.supply.pull(f.t.Context(), ref)
			if has, herr := vendor.agent.store.Has(app.ref.Root); err == nil || has || herr != nil {
				t.Errorf("offered as %q, the artifact was handed to one that may not pull it (error %v, %v)", name, err, herr)
			}
		}
		// What is the vendor's own is served under its name, to those who may.
		if _, err := f.publishFile(vendor, "shop/app", "", "for sale"); err != nil {
			t.Fatal(err)
		}
		list := maker.agent.supply.named("shop/app")
		f.until("the maker can pull it", time.Minute, func() (bool, string) {
			list = maker.agent.supply.named("shop/app")
			last := list[len(list)-1]
			if last.ref.Root == app.ref.Root {
				return false, "not heard"
			}
			err := maker.agent.supply.pull(f.t.Context(), last.ref)
			return err == nil, "it can't be pulled"
		})
	})
}

func TestAnAdvertWithoutBytesIsWaitedForAndHarmsNothing(t *testing.T) {
	market(t, func(t *testing.T, f *fleet) {
		maker, user := f.nodes["maker"], f.nodes["user"]
		if _, err := f.publishFile(maker, "app", "", "one"); err != nil {
			t.Fatal(err)
		}
		f.until("it is placed", time.Minute, func() (bool, string) { return user.read("app.txt") == "one", f.report() })
		nothing := artifact.Sum([]byte("nobody has this"))
		f.advertise(maker, "app", catalog.ArtifactBody{Counter: 2, Root: nothing, Tree: nothing, SizeBytes: 1 << 40, Keep: 3})
		time.Sleep(2 * time.Minute)
		f.until("the want says what it waits for", time.Minute, func() (bool, string) {
			got, why := f.outcome(user, "p.want.app")
			return got == "waiting" || got == "failed", got + ": " + why
		})
		got, why := f.outcome(user, "p.want.app")
		t.Logf("p.want.app is %s: %s", got, why)
		if user.read("app.txt") != "one" {
			t.Errorf("the version in place became %q", user.read("app.txt"))
		}
		if got, why := f.outcome(user, "p.file.free"); got != "kept" && got != "repaired" {
			t.Errorf("p.file.free is %s: %s", got, why)
		}
		item, err := f.publishFile(maker, "app", "", "three")
		if err != nil || item.Counter != 3 {
			t.Fatalf("the next version is %d, %v", item.Counter, err)
		}
		f.until("the next one is placed", 10*time.Minute, func() (bool, string) { return user.read("app.txt") == "three", f.report() })
	})
}

func TestWhatAPublisherHasNoRightToIsNotCopied(t *testing.T) {
	market(t, func(t *testing.T, f *fleet) {
		vendor := f.nodes["vendor"]
		path := filepath.Join(t.TempDir(), "evil")
		if err := os.WriteFile(path, []byte("evil"), 0o644); err != nil {
			t.Fatal(err)
		}
		of, err := vendor.agent.supply.offer(t.Context(), "app", "", 3, addPath(path), Cause{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Minute)
		for _, m := range f.nodes {
			if has, err := m.agent.store.Has(of.ref.Root); err != nil || has != (m == vendor) {
				t.Errorf("%s has it: %v, %v", m.name, has, err)
			}
		}
		if got := f.nodes["user"].read("app.txt"); got != "" {
			t.Errorf("it was placed: %q", got)
		}
	})
}

func TestARevokedNodeIsShutOutAndStaysOut(t *testing.T) {
	market(t, func(t *testing.T, f *fleet) {
		host, user, vendor := f.nodes["host"], f.nodes["user"], f.nodes["vendor"]
		self := vendor.agent.mesh.Self()
		if err := (door{host.agent}).Revoke(t.Context(), "vendor"); err != nil {
			t.Fatal(err)
		}
		others := []*simNode{host, user, f.nodes["maker"]}
		heard := f.until("all others know", time.Minute, func() (bool, string) {
			for _, m := range others {
				if cert, ok := m.agent.mesh.Catalog().Cert(self); ok && !m.agent.mesh.Catalog().Revoked(cert.Key) {
					return false, m.name
				}
			}
			return true, ""
		})
		shut := f.until("its links are closed", 5*time.Second, func() (bool, string) {
			for _, m := range others {
				if m.agent.mesh.Alive()[self] {
					return false, m.name + " still sees it alive"
				}
			}
			return true, ""
		})
		t.Logf("heard by all after %v, shut out after %v more", heard, shut)
		out := func(when string) {
			t.Helper()
			// Below the door: what it signs from now on is heard by nobody.
			path := filepath.Join(t.TempDir(), "late")
			if err := os.WriteFile(path, []byte("late "+when), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := vendor.agent.supply.offer(t.Context(), "shop/late", "", 3, addPath(path), Cause{})
			t.Logf("%s, the revoked node's own publish: %v", when, err)
			time.Sleep(3 * time.Minute)
			for _, m := range others {
				if m.agent.mesh.Alive()[self] {
					t.Errorf("%s: %s sees it alive", when, m.name)
				}
				if n := len(m.agent.supply.named("shop/late")); n > 0 {
					t.Errorf("%s: %s heard of %d artifacts", when, m.name, n)
				}
			}
		}
		out("at once")
		f.halt(vendor, true)
		f.start(vendor)
		out("restarted")
		// The others have lost nothing by it.
		if _, err := f.publishFile(f.nodes["maker"], "app", "", "go on"); err != nil {
			t.Fatal(err)
		}
		f.until("they go on", time.Minute, func() (bool, string) { return user.read("app.txt") == "go on", f.report() })
	})
}

func TestAdmissionKeepsToNamesAndRights(t *testing.T) {
	market(t, func(t *testing.T, f *fleet) {
		ask := func(m *simNode, name string, replace bool) error {
			_, err := door{m.agent}.Invite(t.Context(), control.InviteRequest{Name: name, TTLSeconds: 60, Uses: 1, Replace: replace})
			return err
		}
		tests := []struct {
			who, name string
			replace   bool
			want      string // of the error; "" for none
		}{
			{"host", "user", false, "--replace"},
			{"host", "new", false, ""},
			{"host", "user", true, ""},
			{"host", "host", true, "revoke itself"}, // it would expel the sponsor that redeems it
			{"vendor", "stall_1", false, ""},
			{"vendor", "user", false, `admit "user"`},
			{"vendor", "user", true, `admit "user"`},
			{"vendor", "host", true, `admit "host"`},
			{"vendor", "", false, "admit"},
			{"user", "stall_2", false, `admit "stall_2"`},
		}
		for _, tt := range tests {
			err := ask(f.nodes[tt.who], tt.name, tt.replace)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%s invites %q (replace %v): %v, want %q", tt.who, tt.name, tt.replace, err, tt.want)
			}
		}
		// An invite for a name that was free when it was made.
		token, err := door{f.nodes["host"].agent}.Invite(t.Context(), control.InviteRequest{Name: "twin", TTLSeconds: 60, Uses: 2})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"", "belongs to node"} {
			m := f.machine("twin", 20+i)
			delete(f.nodes, "twin")
			m.dir += string(rune('a' + i))
			_, err := JoinNode(t.Context(), m.dir, token, "twin", f.net.Host(m.addr), time.Now())
			if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
				t.Errorf("join %d of one name: %v, want %q", i+1, err, want)
			}
		}
	})
}
