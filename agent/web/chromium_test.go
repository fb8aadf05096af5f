package web

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

const patience = 30 * time.Second // for anything the browser does

// serve runs the page of b on loopback until the test ends.
func serve(t *testing.T, b *fake) (*Page, string) {
	t.Helper()
	p, url, end := start(t, b)
	t.Cleanup(end)
	return p, url
}

// start runs the page of b on loopback until end is called.
func start(t *testing.T, b *fake) (p *Page, url string, end func()) {
	t.Helper()
	p = New(Config{Backend: b})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() { _ = p.Run(ctx) })
	s := httptest.NewServer(p)
	return p, s.URL, func() {
		cancel()
		wg.Wait()
		s.CloseClientConnections()
		s.Close()
	}
}

// A tab is one page in Chromium, and what went wrong in it.
type tab struct {
	context.Context
	t *testing.T

	mu       sync.Mutex
	problems []string
}

// open opens url in a fresh Chromium that reaches loopback alone.
func open(t *testing.T, url, scheme string, width, height int64) *tab {
	t.Helper()
	exe, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("skip: needs chromium")
	}
	ctx, stop := chromedp.NewExecAllocator(context.Background(), chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.Headless,
		chromedp.ExecPath(exe), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"))
	ctx, shut := chromedp.NewContext(ctx)
	limited, end := context.WithTimeout(ctx, 12*patience)
	t.Cleanup(func() {
		ctx, done := context.WithTimeout(limited, patience)
		if err := chromedp.Cancel(ctx); err != nil { // waits for the browser to end
			t.Logf("close chromium: %v", err)
		}
		done()
		end()
		shut()
		stop()
	})
	b := &tab{Context: limited, t: t}
	if err := chromedp.Listen(limited, b.hear); err != nil {
		t.Fatal(err)
	}
	call(b, log.Enable, cdp.Empty{})
	b.scheme(scheme)
	b.do(chromedp.EmulateViewport(width, height), chromedp.Navigate(url))
	return b
}

// scheme sets what the browser prefers: light or dark.
func (b *tab) scheme(name string) {
	b.t.Helper()
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}}})
}

func (b *tab) hear(event any) {
	text := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		text = "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			text += ": " + e.ExceptionDetails.Exception.Description
		}
	case *runtime.EventConsoleAPICalled:
		text = fmt.Sprintf("console: %s", e.Type)
		for _, a := range e.Args {
			text += " " + string(a.Value) + a.Description
		}
	case *log.EventEntryAdded:
		text = fmt.Sprintf("log: %s %s %s", e.Entry.Level, e.Entry.Text, e.Entry.URL)
	default:
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.problems = append(b.problems, text)
}

func (b *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	if err := chromedp.Do(b, actions...); err != nil {
		b.t.Fatalf("chromium: %v; it said %q", err, b.said())
	}
}

func call[P, R any](b *tab, cmd cdp.Command[P, R], params P) R {
	b.t.Helper()
	r, err := chromedp.Call(b, cmd, params)
	if err != nil {
		b.t.Fatalf("chromium: %s: %v; it said %q", cmd.Method, err, b.said())
	}
	return r
}

// js evaluates an expression in the page.
func js[T any](b *tab, expression string) T {
	b.t.Helper()
	v, err := chromedp.Run(b, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("evaluate %s: %v; it said %q", expression, err, b.said())
	}
	return v
}

func (b *tab) said() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.problems)
}

// until waits for an expression to be true.
func (b *tab) until(expression string) {
	b.t.Helper()
	start := time.Now()
	_, err := chromedp.Run(b, chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(patience)))
	if err != nil {
		b.t.Fatalf("never true: %s: %v; the page says %s; the browser %q", expression, err, js[string](b, "document.body.innerText.slice(0, 3000)"), b.said())
	}
	b.t.Logf("%4d ms until %.90s", time.Since(start).Milliseconds(), expression)
}

func (b *tab) shoot(path string) {
	b.t.Helper()
	png, err := chromedp.Run(b, chromedp.CaptureScreenshot())
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(path, png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}
