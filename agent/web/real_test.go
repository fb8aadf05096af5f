package web

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"meshd/agent/control"
	"meshd/deploy/demo"
	"meshd/policies/examples"
)

// shots is where the screenshots of the README are written; "" for nowhere. They are made anew, in four minutes, by
// go test ./agent/web -run RealMesh -args -shots ../../deploy/screenshots
var shots = flag.String("shots", "", "play the postcards for some minutes and write screenshots of the page into this folder")

var jobs = []string{"container_1", "container_2", "container_3"}

// A stage is a postcard mesh of real processes, a page on its parent.
type stage struct {
	t        *testing.T
	dir, url string
	host     *control.Client
}

// newStage builds meshd, starts the parent with --http and waits until all is kept.
func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, dir: t.TempDir()}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	exe := filepath.Join(s.dir, "meshd")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", exe, "meshd/cmd/meshd").CombinedOutput(); err != nil {
		t.Fatalf("build meshd: %v\n%s", err, out)
	}
	if err := demo.Command(ctx, exe, "init", "--data-dir", s.path("host"), "--name", "host", "--tag", "kind=parent"); err != nil {
		t.Fatal(err)
	}
	log := s.path("host.log")
	parent, err := demo.Start(exe, log, "run", "--data-dir", s.path("host"), "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if s.host, err = control.NewClient("", s.path("host")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := parent.Stop(); err != nil {
			t.Error(err)
		}
		var doors []*control.Client
		for _, name := range jobs {
			doors = append(doors, s.child(name))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := demo.End(ctx, s.dir, doors); err != nil {
			t.Error(err)
		}
	})
	if err := parent.Answers(ctx, s.host); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(s.path("score"), examples.Postcards); err != nil {
		t.Fatal(err)
	}
	if _, err := demo.PublishScore(ctx, s.host, s.path("score", "postcards")); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`http port is open"? .*address=(127\.0\.0\.1:\d+)`).FindSubmatch(b)
	if found == nil {
		t.Fatalf("the log names no http port:\n%s", b)
	}
	s.url = "http://" + string(found[1])
	s.untilKept(1)
	return s
}

func (s *stage) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

func (s *stage) child(name string) *control.Client {
	s.t.Helper()
	c, err := control.NewClient("", s.path("host", "guests", name))
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// untilKept waits until the package is at least at a counter and every promise of every node is kept.
func (s *stage) untilKept(counter uint64) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for {
		list, err := s.host.Artifacts(ctx, "package", false)
		ok := err == nil && len(list) > 0 && list[0].Counter >= counter
		promises, err := s.host.Promises(ctx, "", "", true)
		ok = ok && err == nil && len(promises) >= 24
		for _, p := range promises {
			ok = ok && (p.Outcome == "kept" || p.Outcome == "repaired")
		}
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("package %d is not there with every promise of 24 kept: %v, %d promises, %.2000v", counter, err, len(promises), promises)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// edit adds a line to a job slip.
func (s *stage) edit(name, line string) {
	s.t.Helper()
	f, err := os.OpenFile(s.path("host", "work", "feeds", name+"_feed.txt"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Fprintln(f, line); err != nil {
		s.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		s.t.Fatal(err)
	}
}

// rest lets time pass where what is shown is time itself; it is no wait for anything.
func (s *stage) rest(d time.Duration) {
	select {
	case <-s.t.Context().Done():
	case <-time.After(d):
	}
}

func TestPageOfARealMesh(t *testing.T) {
	if !thorough() {
		t.Skip("skip: builds and starts four real nodes; MESHD_TEST_ALL=1 runs it")
	}
	s := newStage(t)
	for path, want := range map[string]int{"/": 200, "/healthz": 200, "/readyz": 200, "/metrics": 200, "/live": 200, "/why?subject=package": 200, "/why?subject=nothing": 404} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != want {
			t.Errorf("GET %s: status %d, want %d", path, resp.StatusCode, want)
		}
		_ = resp.Body.Close()
		cancel()
	}
	b := open(t, s.url, "light", 1400, 1000)
	b.until(`document.querySelectorAll('#rows .row').length === 4 && [...document.querySelectorAll('.box.art b')].map(e => e.innerText).join() === 'feed/*,postcard/*,package'`)
	s.edit("container_1", "Please write about the weather")
	s.untilKept(2)
	b.until(`[...document.querySelectorAll('#items li')].some(li => li.innerText.includes('feeds/container_1_feed.txt') || li.innerText.includes('feed/container_1'))`)
	for _, p := range b.said() {
		t.Errorf("the browser complains: %s", p)
	}
	if *shots != "" {
		s.play()
		s.shoot(open(t, s.url, "light", 1400, 1000))
	}
}

// play lets the mesh live for some minutes: slips are edited, files damaged, a child cut off.
func (s *stage) play() {
	pause := 14 * time.Second
	for i := range 3 {
		s.rest(pause)
		s.edit(jobs[i], fmt.Sprintf("And the sea, the %d. time?", i+1))
		s.rest(pause)
		if err := os.WriteFile(s.path("host", "work", "results", "reply_from_"+jobs[i]), []byte("vandals were here\n"), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	s.rest(pause)
	if err := s.child("container_3").Offline(s.t.Context(), 0, true); err != nil {
		s.t.Fatal(err)
	}
	s.edit("container_3", "Are you still there?")
	s.rest(2 * pause)
	if err := s.child("container_3").Offline(s.t.Context(), 0, false); err != nil {
		s.t.Fatal(err)
	}
	s.rest(2 * pause)
	if err := s.child("container_2").Offline(s.t.Context(), 0, true); err != nil {
		s.t.Fatal(err)
	}
	s.edit("container_2", "The bow was lovely")
	s.rest(pause)
}

// shoot writes page-light.png, page-dark.png and why-dark.png.
func (s *stage) shoot(b *tab) {
	b.until(`document.querySelectorAll('#rows .row').length === 4 && document.querySelectorAll('.box.art').length === 3`)
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		b.shoot(filepath.Join(*shots, "page-"+scheme+".png"))
	}
	b.do(chromedp.Evaluate[chromedp.Void](`location.hash = '#why=package'`))
	b.until(`document.querySelectorAll('#panel[open] .chain li').length > 3`)
	b.shoot(filepath.Join(*shots, "why-dark.png"))
}

// thorough reports whether the tests that take minutes, or use an engine of containers, run too: .ci/run says so.
func thorough() bool { return os.Getenv("MESHD_TEST_ALL") != "" }
