// Package web is the page to look at: one node's view of the mesh, read-only, in a browser.
//
// It asks a control.Backend, as meshctl does, and gives no orders. The page is three embedded files and one stream of
// server-sent events; there is no framework, nothing is fetched from elsewhere, and no name that a node chose is ever
// taken for markup.
package web

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"meshd/agent/control"
)

//go:embed static
var static embed.FS

// Limits of the page.
const (
	answerLimit = 20 * time.Second // for one question of a viewer
	writeLimit  = 20 * time.Second // for one event to leave
	maxViewers  = 32               // streams at once
	maxSubject  = 4096             // bytes of what is asked about
)

// A Config says what a page shows.
type Config struct {
	Backend control.Backend
	Metrics http.Handler // nil: no /metrics
	Ready   func() error // nil: always ready
	Hosts   []string     // names besides loopback that a request may call this host by
	Log     *slog.Logger // nil: silent

	now func() time.Time // tests
}

// A Page is a node's page. It serves /healthz, /readyz, /metrics where there are any, and the page at /.
//
// It shows nothing until Run runs; the rest does not need it.
type Page struct {
	cfg     Config
	handler http.Handler
	viewers chan struct{} // capacity maxViewers
	wake    chan struct{} // capacity 1: somebody looks, look now

	mu      sync.Mutex
	view    view
	changed chan struct{} // closed when view changes
	stopped chan struct{} // closed when Run has ended; nil before it began
}

// New returns the page of c.
func New(c Config) *Page {
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	if c.now == nil {
		c.now = time.Now
	}
	p := &Page{
		cfg: c, viewers: make(chan struct{}, maxViewers), wake: make(chan struct{}, 1), changed: make(chan struct{}),
		view: view{history: newHistory()},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", p.ready)
	if c.Metrics != nil {
		mux.Handle("GET /metrics", c.Metrics)
	}
	for path, file := range map[string]struct{ name, kind string }{
		"/{$}":      {"index.html", "text/html; charset=utf-8"},
		"/page.css": {"page.css", "text/css; charset=utf-8"},
		"/icon.svg": {"icon.svg", "image/svg+xml"},
		"/page.js":  {"page.js", "text/javascript; charset=utf-8"},
	} {
		mux.HandleFunc("GET "+path, p.file(file.name, file.kind))
	}
	mux.HandleFunc("GET /live", p.live)
	mux.HandleFunc("GET /why", p.why)
	mux.HandleFunc("GET /promises", p.promises)
	p.handler = p.guard(http.NewCrossOriginProtection().Handler(mux))
	return p
}

// Loopback says whether addr, HOST:PORT to listen on, reaches this machine alone; the error says why it does not.
// A page has no password: whoever reaches it reads names, addresses and the story of the fleet.
func Loopback(addr string) error {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("address %q: want HOST:PORT: %w", addr, err)
	}
	if !loopback(host) {
		return fmt.Errorf("address %q is not this machine alone: the page has no password; listen on 127.0.0.1 and come by ssh -L", addr)
	}
	return nil
}

func loopback(host string) bool {
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.Unmap().IsLoopback()
}

// ServeHTTP answers one request.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) { p.handler.ServeHTTP(w, r) }

// guard lets questions through that name this host and come from no other site's page.
//
// The Host check stops a page elsewhere that has its own name resolve to 127.0.0.1.
func (p *Page) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
			"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		switch {
		case !loopback(host) && !slices.Contains(p.cfg.Hosts, host):
			say(w, http.StatusMisdirectedRequest, fmt.Sprintf("host %q is not this node: ask http://127.0.0.1", r.Host))
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			say(w, http.StatusMethodNotAllowed, "this port only answers questions: give orders with meshctl")
		case foreign(r):
			say(w, http.StatusForbidden, "another site's page may not read this one")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// foreign says whether a browser sends r for another site's page. Following a link from there to the page is fine.
func foreign(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return false
	}
	return r.URL.Path != "/" || r.Header.Get("Sec-Fetch-Mode") != "navigate"
}

func (p *Page) ready(w http.ResponseWriter, _ *http.Request) {
	if p.cfg.Ready != nil {
		if err := p.cfg.Ready(); err != nil {
			say(w, http.StatusServiceUnavailable, err.Error())
			return
		}
	}
	say(w, http.StatusOK, "ready")
}

func (p *Page) file(name, kind string) http.HandlerFunc {
	b, err := static.ReadFile("static/" + name)
	if err != nil {
		panic(err) // embedded
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write(b) // a viewer that has gone needs none
	}
}

func (p *Page) why(w http.ResponseWriter, r *http.Request) {
	ask(p, w, r, "subject", func(ctx context.Context, subject string) ([]control.StoryItem, error) {
		return p.cfg.Backend.Why(ctx, subject)
	})
}

func (p *Page) promises(w http.ResponseWriter, r *http.Request) {
	ask(p, w, r, "node", func(ctx context.Context, node string) ([]control.Promise, error) {
		return p.cfg.Backend.Promises(ctx, "", node, false)
	})
}

// ask answers one question of a viewer, whose subject is the parameter named.
func ask[T any](p *Page, w http.ResponseWriter, r *http.Request, param string, question func(context.Context, string) ([]T, error)) {
	subject := r.URL.Query().Get(param)
	if subject == "" || len(subject) > maxSubject {
		say(w, http.StatusBadRequest, fmt.Sprintf("want ?%s=, of 1 to %d bytes", param, maxSubject))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerLimit)
	defer cancel()
	items, err := question(ctx, subject)
	if err != nil {
		say(w, status(err), err.Error())
		return
	}
	if items == nil {
		items = []T{}
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(encode(items))
}

func status(err error) int {
	switch control.CodeOf(err) {
	case control.Usage:
		return http.StatusBadRequest
	case control.NotFound:
		return http.StatusNotFound
	case control.Unreachable:
		return http.StatusServiceUnavailable
	case control.TimedOut, control.Interrupted:
		return http.StatusGatewayTimeout
	}
	return http.StatusInternalServerError
}

// say answers with one line of plain text.
func say(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, strings.ToValidUTF8(text, "�"))
}
