package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/agent/control"
)

// withNotes is the postcard score in which people at the children may also write notes for the parent.
func withNotes(t *testing.T) string {
	t.Helper()
	score := byHand(t)
	for _, add := range []struct{ at, text string }{
		{`names = ["postcard/${publisher.name}"`, `, "note/${publisher.name}"`},
		{"part \"work\" {\n", `
  file "note" {
    path = "note.txt"
    lines { present = ["Notes of ${node.name}"] }
  }
  artifact "note" {
    name  = "note/${node.name}"
    from  = "note.txt"
    needs = [file.note]
  }
`},
		{"part \"harvest\" {\n", `
  want "notes" {
    for_each = local.jobs
    name     = "note/${each.key}"
    from     = "containers"
    place    = "notes/${each.key}"
  }
`},
	} {
		before, after, found := strings.Cut(score, add.at)
		if !found {
			t.Fatalf("the postcard score has no %q", add.at)
		}
		score = before + add.at + add.text + after
	}
	return score
}

// damage removes or overwrites a file whose content is promised, and returns how long until it is back.
func damage(t *testing.T, path string, remove bool) time.Duration {
	t.Helper()
	want := readFile(t, path)
	if remove {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	} else if err := os.WriteFile(path, []byte("vandals were here\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return eventually(t, path+" is whole again", func() (bool, string) {
		ok, why, err := same(path, []byte(want))
		if err != nil {
			return false, err.Error()
		}
		return ok, why
	})
}

func TestChildrenGoOnWithoutTheParentAndItCatchesUp(t *testing.T) {
	f, host := postcards(t, withNotes(t))
	children := f.nodes[1:]
	host.kill()
	for _, n := range children {
		damage(t, n.work("result_for_pickup.txt"), true)
		damage(t, n.work("job_description.txt"), false)
	}
	took := children[0].alive(3)
	t.Logf("the parent's death was noticed %v later", round(took))
	f.settled()

	// While it is away: news of a child, which the other children hear, and an edited slip.
	note := children[0].offered("note/container_1").Counter
	if err := appendLine(children[0].work("note.txt"), "The parent is away"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "container_2 hears of a note of container_1", func() (bool, string) {
		return children[1].offered("note/container_1").Counter > note, "not yet"
	})
	if err := appendLine(host.work("feeds", "container_3_feed.txt"), "Written in the dark"); err != nil {
		t.Fatal(err)
	}

	host.start()
	began := time.Now()
	holds(t, host.work("notes", "container_1"), "The parent is away")
	eventually(t, "the package has the slip that was edited meanwhile", func() (bool, string) {
		cards, err := ReadTarball(host.work("package.tgz"))
		if err != nil {
			return false, err.Error()
		}
		card := cards["results/reply_from_container_3"]
		return strings.Contains(card, "Written in the dark"), card
	})
	t.Logf("back again, the parent caught up in %v", round(time.Since(began)))
	for _, n := range f.nodes {
		n.alive(4)
	}
	f.settled()
	f.calm()
	want := offers(host)
	for _, n := range children {
		if got := offers(n); !slices.Equal(got, want) {
			t.Errorf("%s lists\n%v\nand host\n%v", n.name, got, want)
		}
	}
}

func TestANodeAloneKeepsWhatItCanFromItsStore(t *testing.T) {
	f, host := postcards(t, byHand(t))
	for _, n := range f.nodes {
		n.stop()
	}
	for _, n := range []*node{f.nodes[1], host} {
		promised := []string{n.work("job_description.txt"), n.work("result_for_pickup.txt")}
		if n == host {
			promised = []string{n.work("results", "reply_from_container_1"), n.work("results", "reply_from_container_2"), n.work("package.tgz")}
		}
		want := map[string]string{}
		for i, path := range promised {
			want[path] = readFile(t, path)
			if i%2 == 0 {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			} else if err := os.WriteFile(path, []byte("vandals were here\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		n.start()
		for path, text := range want {
			eventually(t, path+" is whole again", func() (bool, string) {
				ok, why, err := same(path, []byte(text))
				if err != nil {
					return false, err.Error()
				}
				return ok, why
			})
		}
		t.Logf("alone, %s was whole %v after its start", n.name, round(time.Since(began)))
		f.settled("package", "score")
		n.stop()
	}
}

// tagged is a score in which all roles follow from tags: nobody is named.
const tagged = `
score "site" {
  version  = "1.0.0"
  language = 1
  why      = "Whoever serves is served to"
}

role "origin" { when = tag.kind == "origin" }
role "web" { when = tag.tier == "web" }
role "reader" { when = tag.reader == "yes" }
role "auditor" {
  when = tag.audit == "yes"
  why  = "For the day when somebody checks"
}

part "origin" {
  role = "origin"
  file "page" {
    path    = "page.html"
    content = "<h1>Hello</h1>\n"
  }
  artifact "site" {
    from  = "page.html"
    needs = [file.page]
  }
  file "pool" {
    path    = "pool.txt"
    content = "%{for m in members("web")~}${m.name} %{endfor~}\n"
  }
}

part "web" {
  role = "web"
  want "site" {
    name  = "site"
    from  = "origin"
    place = "page.html"
  }
}

part "news" {
  role = "reader"
  want "news" {
    name  = "news"
    place = "news.txt"
  }
}

part "audit" {
  role = "auditor"
  want "site" {
    name  = "site"
    place = "audited.html"
  }
}
`

func TestAFifthNodeJoinsWithNoEditAndGetsWhatALostPublisherLeft(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", tagged, "kind=origin")
	if role := roleOf(host, "web"); role.Held || !slices.Contains(role.Because, "no live member plays it yet") {
		t.Errorf("nobody plays web yet, and roles says %+v", role)
	}
	host.policy("check", filepath.Join(f.dir, "score")) // a role that nobody plays is legal
	f.join("web-1", "tier=web")
	f.join("store-1")
	lost := f.join("press-1")
	for _, n := range f.nodes {
		n.alive(4)
	}
	eventually(t, "the publisher knows by the score that it may publish", func() (bool, string) {
		score, err := lost.door().Score(t.Context())
		return err == nil && score.State == "in force", fmt.Sprint(score.State, err)
	})

	// A publisher tells its news, which nobody wants yet, and is lost for ever.
	paper := filepath.Join(f.dir, "paper.txt")
	if err := os.WriteFile(paper, []byte("All quiet on the mesh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	news := items[control.Artifact](lost, "publish", "news", paper)
	if len(news) != 1 || len(news[0].Holders) < 3 {
		t.Errorf("publish should report two copies besides the publisher's own: %+v", news)
	}
	lost.kill()
	if err := os.RemoveAll(lost.dir); err != nil {
		t.Fatal(err)
	}

	late := f.join("newcomer", "tier=web", "reader=yes")
	began := time.Now()
	holds(t, late.work("page.html"), "Hello")
	holds(t, late.work("news.txt"), "All quiet on the mesh")
	t.Logf("a latecomer had the site and the lost publisher's news %v after it answered", round(time.Since(began)))
	holds(t, host.work("pool.txt"), "newcomer web-1 ")
	if role := roleOf(late, "web"); !role.Held || !slices.Contains(role.Because, `tag.tier is "web"`) {
		t.Errorf("the newcomer plays web by its tag, and roles says %+v", role)
	}
	if role := roleOf(host, "web"); role.Held || slices.Contains(role.Because, "no live member plays it yet") {
		t.Errorf("two nodes play web, and roles on host says %+v", role)
	}
	if role := roleOf(host, "auditor"); !slices.Contains(role.Because, "no live member plays it yet") {
		t.Errorf("nobody plays auditor, and roles says %+v", role)
	}
}

func roleOf(n *node, name string) control.Role {
	n.f.t.Helper()
	for _, r := range items[control.Role](n, "roles") {
		if r.Name == name {
			return r
		}
	}
	n.f.t.Fatalf("%s knows no role %s", n.name, name)
	return control.Role{}
}
