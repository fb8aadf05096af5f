package demo

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"meshd/agent/control"
)

// calmTime is how long nothing may happen after what a test caused came to rest.
const calmTime = time.Second

// postcards is the pipeline on four nodes that were started by hand, at rest with its first package.
func postcards(t *testing.T, score string) (f *fleet, host *node) {
	t.Helper()
	f = newFleet(t)
	host = f.found("host", score, "kind=parent")
	var late []*node
	for _, job := range jobs {
		late = append(late, f.invited(job))
	}
	for _, n := range late {
		n.launch()
	}
	began := time.Now()
	for _, n := range late {
		n.awake()
	}
	for _, n := range f.nodes {
		n.alive(4)
	}
	t.Logf("each of four nodes sees four alive %v after the last was started", round(time.Since(began)))
	f.settled("package")
	t.Logf("all promises of all nodes are kept after %v", round(time.Since(began)))
	return f, host
}

func TestFourNodesStartedByHandPlayThePipeline(t *testing.T) {
	f, host := postcards(t, byHand(t))
	want := []string{"container_1", "container_2", "container_3", "host"}
	for _, n := range f.nodes {
		var alive []string
		for _, m := range items[control.Member](n, "members") {
			if m.Status == "alive" {
				alive = append(alive, m.Name)
			}
		}
		if !slices.Equal(alive, want) {
			t.Errorf("%s lists alive %v, want %v", n.name, alive, want)
		}
	}
	names := []string{
		"feed/container_1", "feed/container_2", "feed/container_3", "package",
		"postcard/container_1", "postcard/container_2", "postcard/container_3", "score",
	}
	offered := offers(host)
	for _, n := range f.nodes {
		if got := offers(n); !slices.Equal(got, offered) {
			t.Errorf("%s lists\n%v\nand host\n%v", n.name, got, offered)
		}
	}
	for i, name := range names {
		if len(offered) != len(names) || !strings.HasPrefix(offered[i], name+" ") {
			t.Fatalf("artifacts are %v, want %v", offered, names)
		}
	}
	cards, err := ReadTarball(host.work("package.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	for _, job := range jobs {
		want := fmt.Sprintf("This is for %s from host\nA postcard from sunny 127.0.0.1 - Thanks, with love %s\n", job, job)
		if got := cards["results/reply_from_"+job]; got != want {
			t.Errorf("the postcard of %s is %q, want %q", job, got, want)
		}
	}
}

// offers is what meshctl artifacts lists: name, version and hash of each.
func offers(n *node) []string {
	n.f.t.Helper()
	var out []string
	for _, a := range items[control.Artifact](n, "artifacts") {
		out = append(out, a.Name+" "+a.Version+" "+a.Hash)
	}
	return out
}

// A tally is what every node of a fleet has in its journal and repaired so far.
type tally struct {
	f     *fleet
	heard map[string]int // by node, items of the story
}

func (f *fleet) tally() tally {
	f.t.Helper()
	out := tally{f, map[string]int{}}
	for _, n := range f.running() {
		out.heard[n.name] = len(n.story())
	}
	return out
}

// since is what was told since then, of each node.
func (c tally) since() map[string][]control.StoryItem {
	c.f.t.Helper()
	out := map[string][]control.StoryItem{}
	for _, n := range c.f.running() {
		if story := n.story(); len(story) > c.heard[n.name] {
			out[n.name] = story[c.heard[n.name]:]
		}
	}
	return out
}

// calm waits until nothing was told by any node for calmTime.
func (f *fleet) calm() {
	f.t.Helper()
	at, before := time.Now(), f.tally()
	eventually(f.t, "the nodes are calm", func() (bool, string) {
		if news := before.since(); len(news) > 0 {
			at, before = time.Now(), f.tally()
			return false, fmt.Sprint(news)
		}
		return time.Since(at) > calmTime, "not yet"
	})
}

// repairs counts how often a promise was repaired in news; with a key or without.
func repairs(news []control.StoryItem, address string) (n int) {
	for _, it := range news {
		if it.Outcome == "repaired" && (it.Subject == address || strings.HasPrefix(it.Subject, address+"[")) {
			n++
		}
	}
	return n
}

func TestAnEditedSlipIsWorkedOnOnce(t *testing.T) {
	f, host := postcards(t, byHand(t))
	f.calm()
	child := f.nodes[1]
	count := func() (int, int) {
		result := items[control.Promise](child, "promises", "work.file.result")
		packed := items[control.Promise](host, "promises", "harvest.command.package")
		return result[0].Repairs, packed[0].Repairs
	}
	results, packed := count()
	before, version := f.tally(), host.offered("package").Counter

	began := time.Now()
	if err := appendLine(host.work("feeds", "container_1_feed.txt"), "Please write about the weather"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new package", func() (bool, string) {
		return host.offered("package").Counter > version, "none is offered"
	})
	t.Logf("from the edit to the new package, over two hops: %v (aim: 500ms)", round(time.Since(began)))
	cards, err := ReadTarball(host.work("package.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	if card := cards["results/reply_from_container_1"]; !strings.Contains(card, "about the weather") {
		t.Errorf("the new package has the old card %q", card)
	}

	f.calm()
	news := before.since()
	for _, n := range f.nodes {
		want := map[string]int{}
		switch n {
		case host:
			want["harvest.command.package"] = 1
			want["harvest.want.replies"] = 1
		case child:
			want["work.file.result"] = 1
			want["work.want.job"] = 1
		}
		for _, address := range []string{"harvest.command.package", "harvest.want.replies", "work.file.result", "work.want.job", "prepare.file.feed"} {
			if got := repairs(news[n.name], address); got != want[address] {
				t.Errorf("%s repaired %s %d times for one edit, want %d", n.name, address, got, want[address])
			}
		}
	}
	if r, p := count(); r != results+1 || p != packed+1 {
		t.Errorf("meshctl promises counts %d results and %d packages more, want one of each", r-results, p-packed)
	}
	if got := host.offered("package").Counter; got != version+1 {
		t.Errorf("the package is version %d after one edit of version %d", got, version)
	}

	t.Run("a touched file runs nothing", func(t *testing.T) { touchAll(t, f, host, child) })
}

// touchAll gives files that people and programs write new times and the same content.
func touchAll(t *testing.T, f *fleet, host, child *node) {
	before := f.tally()
	now := time.Now()
	for _, path := range []string{
		host.work("feeds", "container_1_feed.txt"), host.work("feeds", "container_2_feed.txt"),
		host.work("results", "reply_from_container_1"), host.work("package.tgz"),
		child.work("job_description.txt"), child.work("result_for_pickup.txt"),
	} {
		if err := os.Chtimes(path, now, now); err != nil {
			t.Fatal(err)
		}
	}
	f.calm()
	for name, news := range before.since() {
		t.Errorf("touched files made %s do %v", name, news)
	}
}

func TestWhyLeadsToTheEditedSlipAlsoAfterARestart(t *testing.T) {
	f, host := postcards(t, byHand(t))
	version := host.offered("package").Counter
	if err := appendLine(host.work("feeds", "container_2_feed.txt"), "How are the mountains?"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new package", func() (bool, string) {
		return host.offered("package").Counter > version, "none is offered"
	})
	f.calm()
	links := []string{ // subject, outcome, node: from the package to the edit
		"package@", "harvest.command.package", `harvest.want.replies["container_2"]`,
		"postcard/container_2@", "work.file.result", "work.want.job", "feed/container_2@",
	}
	for _, n := range []*node{host, f.nodes[1], f.nodes[2]} { // the publisher, a bystander, a link of the chain
		chain := items[control.StoryItem](n, "why", "package")
		if len(chain) != len(links) {
			t.Fatalf("why package on %s has %d links, want %d: %v", n.name, len(chain), len(links), chain)
		}
		for i, it := range chain {
			if !strings.HasPrefix(it.Subject, links[i]) {
				t.Errorf("why package on %s: link %d is of %s, want %s", n.name, i, it.Subject, links[i])
			}
			if i > 0 && chain[i-1].Cause != it.ID {
				t.Errorf("why package on %s: link %d says its cause is %q, the next link is %q", n.name, i-1, chain[i-1].Cause, it.ID)
			}
		}
		last := chain[len(chain)-1]
		if last.Node != "host" || !strings.Contains(last.Text, "container_2_feed.txt changed on disk") {
			t.Errorf("why package on %s ends with %+v, want the slip on host", n.name, last)
		}
	}
	before, story := items[control.StoryItem](host, "why", "package"), items[control.StoryItem](host, "story")
	host.stop()
	host.start()
	if after := items[control.StoryItem](host, "story"); len(after) < len(story) || !slices.Equal(after[:len(story)], story) {
		t.Errorf("after a restart the story differs:\n%v\nbefore:\n%v", after, story)
	}
	f.settled()
	eventually(t, "the chain is told again", func() (bool, string) {
		after := items[control.StoryItem](host, "why", "package")
		return slices.Equal(after, before), fmt.Sprintf("after a restart it is\n%v\nbefore\n%v", after, before)
	})
}
