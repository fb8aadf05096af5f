// Package demo drives real meshd processes: the demo that newcomers see, and what the command tests and
// the lab share with it.
package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"meshd/agent/control"
	"meshd/policies/examples"
)

// Options of the demo.
type Options struct {
	Exe    string    // the meshd program
	Keep   bool      // leave nodes and folder
	Output string    // "text" or "ndjson"
	Docker bool      // the children live in containers; Exe is linked statically
	Out    io.Writer // where the story goes
}

const (
	stepTime = 30 * time.Second      // for any one step
	lookTime = 20 * time.Millisecond // between two looks at a node
	sickTime = 4 * time.Second       // a promise that fails for this long fails the step
	quitTime = 10 * time.Second      // for a node to end

	promisesOfAChild = 3 // of the part "work": want, file, artifact; the parent has more
)

var jobs = []string{"container_1", "container_2", "container_3"}

// A demo is one play, from an empty folder to an empty folder.
type demo struct {
	Options
	began  time.Time
	dir    string
	parent *Process
	host   *control.Client
	step   string

	steps []step
	boxed *boxed // the containers of a demo with Docker
}

// A step is one act of the play.
type step struct {
	name string
	play func(context.Context) error
}

// plain are the steps with children in processes.
func (d *demo) plain() []step {
	return []step{
		{"start a mesh of one", d.start},
		{"the parent spawns children, each signs a postcard, the parent ties them", d.pipeline},
		{"edit one job slip", d.edit},
		{"kill a child", d.kill},
		{"cut a child off", d.cutOff},
		{"damage a result", d.damage},
		{"the mesh as it stands", d.show},
	}
}

// Run plays the postcard pipeline with faults and checks every final state. The error names the step.
// Unless Keep, nothing is left: no process, no file. What would end the program at once (a terminal that is
// closed, a reader of the story that went away, an interrupt, be it a second one) ends the play instead.
func Run(ctx context.Context, o Options) (err error) {
	ctx, release := signal.NotifyContext(ctx, endings()...)
	defer release()
	d := &demo{Options: o, began: time.Now()}
	d.steps = d.plain()
	if o.Docker {
		if err := d.openDocker(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.boxed.engines.Close()) }()
	}
	if d.dir, err = os.MkdirTemp("", "meshd-demo-"); err != nil {
		return fmt.Errorf("demo: no temporary folder (see TMPDIR): %w", err)
	}
	defer func() {
		if d.Keep && err == nil {
			if d.boxed != nil {
				d.tell("kept", "the containers run on, kept by pid %d; take them away with: kill %d; docker rm -f $(docker ps -aq --filter label=%s); docker volume prune --filter label=%s; docker rmi %s", d.parent.PID(), d.parent.PID(), d.boxed.filter(), d.boxed.filter(), d.boxed.image)
			}
			d.tell("kept", "the nodes run on in %s; talk to them with meshctl --data-dir %s members; end them with: kill $(pgrep -f %s)", d.dir, d.path("host"), d.dir)
			return
		}
		err = errors.Join(err, d.cleanUp())
		if err == nil {
			d.tell("done", "everything held, and nothing is left behind; it took %.1f s", time.Since(d.began).Seconds())
		}
	}()
	for _, s := range d.steps {
		d.step = s.name
		d.tell("step", "%s", s.name)
		stepCtx, cancel := context.WithTimeout(ctx, stepTime)
		err := s.play(stepCtx)
		cancel()
		if ctx.Err() != nil {
			return fmt.Errorf("demo: step %q: interrupted", s.name)
		}
		if err != nil {
			return fmt.Errorf("demo: step %q: %w", s.name, err)
		}
	}
	return nil
}

func (d *demo) path(parts ...string) string {
	return filepath.Join(append([]string{d.dir}, parts...)...)
}

// work is a file in the work folder of a node.
func (d *demo) work(node string, parts ...string) string {
	base := d.path("host")
	if node != "host" {
		base = d.path("host", "guests", node)
	}
	return filepath.Join(append([]string{base, "work"}, parts...)...)
}

// A line is one line of -o ndjson: text, or an item as meshctl shows it.
type line struct {
	Kind      string  `json:"kind"` // step, check, fault, figure..., or member, artifact, cause with an item
	Text      string  `json:"text,omitempty"`
	AtSeconds float64 `json:"at_seconds"` // since the demo began
	Item      any     `json:"item,omitempty"`
}

func (d *demo) line(l line) {
	l.AtSeconds = math.Round(l.AtSeconds*1000) / 1000
	b, err := json.Marshal(l)
	if err != nil {
		panic(err) // plain fields, and items that went through JSON once
	}
	fmt.Fprintln(d.Out, string(b))
}

func lines[T any](d *demo, kind string, items []T) {
	for _, item := range items {
		d.line(line{Kind: kind, AtSeconds: time.Since(d.began).Seconds(), Item: item})
	}
}

// tell prints one line of the story.
func (d *demo) tell(kind, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	at := time.Since(d.began).Seconds()
	if d.Output == "ndjson" {
		d.line(line{Kind: kind, Text: text, AtSeconds: at})
		return
	}
	if kind == "step" {
		fmt.Fprintf(d.Out, "\n%6.2fs  %s\n", at, strings.ToUpper(text[:1])+text[1:])
		return
	}
	fmt.Fprintf(d.Out, "%6.2fs    %s\n", at, text)
}

func (d *demo) start(ctx context.Context) error {
	if err := Command(ctx, d.Exe, "init", "--data-dir", d.path("host"), "--name", "host", "--tag", "kind=parent"); err != nil {
		return err
	}
	listen := "127.0.0.1:0"
	if d.boxed != nil {
		listen = d.boxed.gateway + ":0"
	}
	var err error
	if d.parent, err = Start(d.Exe, d.path("host.log"), "run", "--data-dir", d.path("host"), "--listen", listen); err != nil {
		return err
	}
	if d.host, err = control.NewClient("", d.path("host")); err != nil {
		return err
	}
	if err := d.parent.Answers(ctx, d.host); err != nil {
		return err
	}
	if err := os.CopyFS(d.path("score"), examples.Postcards); err != nil {
		return err
	}
	if d.boxed != nil {
		if err := d.boxScore(ctx); err != nil {
			return err
		}
	}
	s, err := PublishScore(ctx, d.host, d.path("score", "postcards"))
	if err != nil {
		return err
	}
	d.tell("score", "score %q %s is in force: %s", s.Name, s.Version, s.Why)
	return nil
}

func (d *demo) pipeline(ctx context.Context) error {
	if err := d.until(ctx, "four nodes are alive", func() (bool, string, error) { return d.alive(ctx, 4) }); err != nil {
		return err
	}
	d.tell("members", "four nodes are alive, nobody was told what to do")
	if err := d.until(ctx, "the package is tied", func() (bool, string, error) { return d.offered(ctx, "package", 1) }); err != nil {
		return err
	}
	if err := d.until(ctx, "every promise is kept", func() (bool, string, error) { return d.allKept(ctx) }); err != nil {
		return err
	}
	return d.checkPackage()
}

// checkPackage looks into the package: a postcard of each child, with its own job line and greeting.
func (d *demo) checkPackage() error {
	cards, err := ReadTarball(d.work("host", "package.tgz"))
	if err != nil {
		return err
	}
	for _, job := range jobs {
		card := cards["results/reply_from_"+job]
		for _, line := range []string{"This is for " + job + " from host", "Thanks, with love " + job} {
			if !strings.Contains(card, line) {
				return fmt.Errorf("package.tgz: the postcard of %s lacks %q; it says %q", job, line, card)
			}
		}
	}
	d.tell("package", "package.tgz holds three postcards, each with its own job and greeting")
	return nil
}

func (d *demo) edit(ctx context.Context) error {
	before, err := d.measure(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := appendLine(d.work("host", "feeds", "container_1_feed.txt"), "Please write about the weather"); err != nil {
		return err
	}
	if err := d.untilPackaged(ctx, "container_1", "about the weather", before); err != nil {
		return err
	}
	d.tell("figure", "from the edit to the new package, over two hops: %d ms", time.Since(start).Milliseconds())
	return d.onceEach(ctx, before)
}

// untilPackaged waits for a package whose card of that child holds a line.
func (d *demo) untilPackaged(ctx context.Context, child, line string, before measured) error {
	return d.until(ctx, "a new package", func() (bool, string, error) {
		ok, why, err := d.offered(ctx, "package", before.counter+1)
		if !ok || err != nil {
			return ok, why, err
		}
		cards, err := ReadTarball(d.work("host", "package.tgz"))
		if err != nil {
			return false, err.Error(), nil
		}
		return strings.Contains(cards["results/reply_from_"+child], line), "its card lacks the line", nil
	})
}

// onceEach checks that the edit led to one repair of the result and one run of the packing, no more.
func (d *demo) onceEach(ctx context.Context, before measured) error {
	after, err := d.measure(ctx)
	if err != nil {
		return err
	}
	if n := after.results - before.results; n != 1 {
		return fmt.Errorf("work.file.result was repaired %d times for one edit, not once", n)
	}
	if n := after.packed - before.packed; n != 1 {
		return fmt.Errorf("harvest.command.package ran %d times for one edit, not once", n)
	}
	d.tell("check", "exactly one result was rewritten, exactly one package was built")
	return nil
}

// measured is what an edit must change by one.
type measured struct {
	results, packed int
	counter         uint64
}

func (d *demo) measure(ctx context.Context) (m measured, err error) {
	if m.results, err = d.repairs(ctx, "work.file.result", "container_1"); err != nil {
		return m, err
	}
	if m.packed, err = d.repairs(ctx, "harvest.command.package", ""); err != nil {
		return m, err
	}
	list, err := d.host.Artifacts(ctx, "package", false)
	if err == nil && len(list) > 0 {
		m.counter = list[0].Counter
	}
	return m, err
}

func (d *demo) repairs(ctx context.Context, address, node string) (int, error) {
	list, err := d.host.Promises(ctx, address, node, false)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range list {
		n += p.Repairs
	}
	return n, nil
}

func (d *demo) kill(ctx context.Context) error {
	child, err := d.child("container_2")
	if err != nil {
		return err
	}
	v, err := child.Version(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := kill(v.PID); err != nil {
		return err
	}
	d.tell("fault", "killed container_2 (pid %d)", v.PID)
	err = d.until(ctx, "container_2 is back", func() (bool, string, error) {
		now, err := child.Version(ctx)
		if err != nil {
			return false, err.Error(), nil
		}
		return now.PID != v.PID, "the old process answers", nil
	})
	if err != nil {
		return err
	}
	d.tell("figure", "container_2 answers again after %d ms", time.Since(start).Milliseconds())
	return d.until(ctx, "four nodes are alive", func() (bool, string, error) { return d.alive(ctx, 4) })
}

func (d *demo) cutOff(ctx context.Context) error {
	child, err := d.child("container_3")
	if err != nil {
		return err
	}
	before, err := d.measure(ctx)
	if err != nil {
		return err
	}
	if err := child.Offline(ctx, 0, true); err != nil {
		return err
	}
	d.tell("fault", "container_3 is cut off")
	if err := appendLine(d.work("host", "feeds", "container_3_feed.txt"), "And how is the sea?"); err != nil {
		return err
	}
	result := d.work("container_3", "result_for_pickup.txt")
	want, err := os.ReadFile(result)
	if err != nil {
		return err
	}
	if err := os.Remove(result); err != nil {
		return err
	}
	if err := d.until(ctx, "container_3 repairs alone", func() (bool, string, error) { return same(result, want) }); err != nil {
		return err
	}
	d.tell("check", "alone, container_3 still repairs what is damaged")
	if err := child.Offline(ctx, 0, false); err != nil {
		return err
	}
	start := time.Now()
	if err := d.untilPackaged(ctx, "container_3", "how is the sea", before); err != nil {
		return err
	}
	d.tell("figure", "back on the net, it caught up with no help: new package after %d ms", time.Since(start).Milliseconds())
	return nil
}

func (d *demo) damage(ctx context.Context) error {
	reply := d.work("host", "results", "reply_from_container_1")
	want, err := os.ReadFile(reply)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := os.WriteFile(reply, []byte("vandals were here\n"), 0o644); err != nil {
		return err
	}
	if err := d.until(ctx, "the reply is repaired", func() (bool, string, error) { return same(reply, want) }); err != nil {
		return err
	}
	d.tell("figure", "a damaged reply was whole again after %d ms", time.Since(start).Milliseconds())
	if err := d.until(ctx, "every promise is kept", func() (bool, string, error) { return d.allKept(ctx) }); err != nil {
		return err
	}
	return d.checkPackage()
}

func (d *demo) show(ctx context.Context) error {
	var members []control.Member
	err := d.until(ctx, "all say that they keep their promises", func() (ok bool, why string, err error) {
		if members, err = d.host.Members(ctx); err != nil {
			return false, "", err
		}
		for _, m := range members {
			if p := m.Promises; p.Kept+p.Repaired < promisesOfAChild || p.Failed+p.Waiting+p.Drifted > 0 {
				return false, fmt.Sprintf("%s says %+v", m.Name, p), nil
			}
		}
		return true, "", nil
	})
	if err != nil {
		return err
	}
	artifacts, err := d.host.Artifacts(ctx, "", false)
	if err != nil {
		return err
	}
	chain, err := d.host.Why(ctx, "package")
	if err != nil {
		return err
	}
	if last := chain[len(chain)-1]; last.Node != "host" || !strings.Contains(last.Subject+last.Text, "_feed.txt") {
		return fmt.Errorf("why package should end at the slip that was edited on host, and ends with %s: %s %s", last.Node, last.Subject, last.Text)
	}
	if d.Output == "ndjson" {
		lines(d, "member", members)
		lines(d, "artifact", artifacts)
		lines(d, "cause", chain)
		return nil
	}
	return errors.Join(tableMembers(d.Out, members), tableArtifacts(d.Out, artifacts), tableWhy(d.Out, chain))
}

func (d *demo) child(name string) (*control.Client, error) {
	return control.NewClient("", d.path("host", "guests", name))
}
