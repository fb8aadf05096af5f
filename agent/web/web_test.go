package web

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meshd/agent/control"
)

func TestOnlyQuestionsOfThisMachineAreAnswered(t *testing.T) {
	p := New(Config{Backend: newFake(4), Hosts: []string{"mesh.example"}})
	tests := []struct {
		name, method, target, host string
		header                     map[string]string
		want                       int
	}{
		{"the page", "GET", "/", "127.0.0.1:8080", nil, 200},
		{"by name", "GET", "/page.js", "localhost", nil, 200},
		{"IPv6", "GET", "/", "[::1]:80", nil, 200},
		{"a host that was told", "GET", "/", "mesh.example:80", nil, 200},
		{"another name for this address", "GET", "/", "evil.example", nil, 421},
		{"a name that begins like it", "GET", "/healthz", "127.0.0.1.evil.example", nil, 421},
		{"no host", "GET", "/healthz", "", nil, 421},
		{"an order", "POST", "/why?subject=app", "127.0.0.1", nil, 405},
		{"an order from another site", "POST", "/", "127.0.0.1", map[string]string{"Origin": "http://evil.example"}, 405},
		{"another site's script", "GET", "/why?subject=app", "127.0.0.1", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403},
		{"another port's script", "GET", "/promises?node=x", "127.0.0.1", map[string]string{"Sec-Fetch-Site": "same-site"}, 403},
		{"another site's frame or link to an answer", "GET", "/why?subject=app", "127.0.0.1", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403},
		{"a link to the page", "GET", "/", "127.0.0.1", map[string]string{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200},
		{"its own script", "GET", "/why?subject=app", "127.0.0.1", map[string]string{"Sec-Fetch-Site": "same-origin"}, 200},
		{"nothing asked", "GET", "/why", "127.0.0.1", nil, 400},
		{"too much asked", "GET", "/why?subject=" + strings.Repeat("x", maxSubject+1), "127.0.0.1", nil, 400},
		{"an unknown subject", "GET", "/why?subject=nothing", "127.0.0.1", nil, 404},
		{"no metrics", "GET", "/metrics", "127.0.0.1", nil, 404},
		{"a stream before the node runs", "GET", "/live", "127.0.0.1", nil, 503},
		{"a file that is none", "GET", "/static/page.js", "127.0.0.1", nil, 404},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.target, nil)
			r.Host = tt.host
			for k, v := range tt.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("status %d, want %d: %s", w.Code, tt.want, w.Body)
			}
			csp := w.Header().Get("Content-Security-Policy")
			if !strings.HasPrefix(csp, "default-src 'none'; ") || strings.Contains(csp, "unsafe") || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("headers %v", w.Header())
			}
		})
	}
}

func TestThePageHasNothingInline(t *testing.T) {
	b, err := static.ReadFile("static/index.html")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<style", "style=", "onclick", "onload", "javascript:", "http://", "https://"} {
		if strings.Contains(string(b), bad) {
			t.Errorf("index.html has %q, which the policy forbids", bad)
		}
	}
	js, err := static.ReadFile("static/page.js")
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"} {
		if strings.Contains(string(js), bad) {
			t.Errorf("page.js has %q, which makes markup or code of text", bad)
		}
	}
}

func TestHealth(t *testing.T) {
	sick := errors.New("the store is closed")
	tests := []struct {
		name, path string
		ready      error
		want       int
		body       string
	}{
		{"alive", "/healthz", sick, 200, "ok\n"},
		{"ready", "/readyz", nil, 200, "ready\n"},
		{"not ready", "/readyz", sick, 503, "the store is closed\n"},
		{"metrics", "/metrics", nil, 200, "meshd_members 4\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := New(Config{
				Backend: newFake(4), Ready: func() error { return tt.ready },
				Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "meshd_members 4\n") }),
			})
			r := httptest.NewRequest("GET", "http://127.0.0.1"+tt.path, nil)
			w := httptest.NewRecorder()
			p.ServeHTTP(w, r)
			if w.Code != tt.want || w.Body.String() != tt.body {
				t.Errorf("status %d %q, want %d %q", w.Code, w.Body, tt.want, tt.body)
			}
		})
	}
}

func TestLoopbackNamesThisMachineAlone(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:80": true, "127.9.9.9:0": true, "localhost:80": true, "[::1]:80": true, "[::ffff:127.0.0.1]:80": true,
		":80": false, "0.0.0.0:80": false, "[::]:80": false, "192.168.1.1:80": false, "localhost.evil.example:80": false, "127.0.0.1": false,
	} {
		if err := Loopback(addr); (err == nil) != want {
			t.Errorf("Loopback(%q) = %v, want an error: %v", addr, err, !want)
		}
	}
}

// A stream reads the changes that a viewer is sent.
type stream struct {
	t    *testing.T
	body *bufio.Reader
	end  func() error
}

func watch(t *testing.T, url string) *stream {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Get(url + "/live")
	if err != nil {
		t.Fatal(err)
	}
	if kind := resp.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("it is %q, status %d", kind, resp.StatusCode)
	}
	return &stream{t, bufio.NewReader(resp.Body), resp.Body.Close}
}

// until reads changes until one is what is waited for.
func (s *stream) until(what string, is func(change) bool) {
	s.t.Helper()
	for {
		line, err := s.body.ReadString('\n')
		if err != nil {
			s.t.Fatalf("the stream ended before %s: %v", what, err)
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		var c change
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			s.t.Fatalf("%v in %.200s", err, data)
		}
		if is(c) {
			return
		}
	}
}

func TestStreamTellsAllOnceAndThenWhatChanged(t *testing.T) {
	f := newFake(50)
	_, url, end := start(t, f)
	s := watch(t, url)
	s.until("everything is told", func(c change) bool { return len(c.Nodes) == 50 && len(c.Order) == 50 && len(c.Artifacts) == 50 })
	f.do(func() { f.members[7].Promises.Failed = 9 })
	s.until("one node is told", func(c change) bool {
		return len(c.Nodes) == 1 && c.Nodes[0].Promises.Failed == 9 && c.Order == nil && c.Artifacts == nil && !c.Whole
	})
	f.happen("failed", "news")
	s.until("the story goes on", func(c change) bool { return len(c.Story) > 0 && c.Story[len(c.Story)-1].Text == "news" })
	f.do(func() { f.err = control.Errorf(control.Failed, "the disk is gone") })
	s.until("the problem is told", func(c change) bool { return strings.Contains(c.Head.Problem, "the disk is gone") })
	end() // a stream ends with Run, or the daemon would wait for its viewers
	if _, err := io.Copy(io.Discard, s.body); err != nil {
		t.Logf("the stream ended: %v", err)
	}
	if err := s.end(); err != nil {
		t.Error(err)
	}
}

func TestViewersAreLimited(t *testing.T) {
	p, url := serve(t, newFake(4))
	for range maxViewers {
		p.viewers <- struct{}{}
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Get(url + "/live")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", resp.StatusCode)
	}
}

func TestPageLooksInItsOwnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(4)
		p := New(Config{Backend: f})
		ctx, cancel := contextWithCancel(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = p.Run(ctx)
		}()
		time.Sleep(time.Minute) // the bubble's
		synctest.Wait()
		p.mu.Lock()
		strip := p.view.history.strip(f.members[3].ID, 0, number(p.view.at, steps[0]))
		p.mu.Unlock()
		if trimmed := strings.TrimLeft(strip, " "); len(trimmed) < 12 || strings.Trim(trimmed, "k") != "" {
			t.Errorf("after a minute the strip is %q, want no holes", strip)
		}
		cancel()
		<-done
	})
}
