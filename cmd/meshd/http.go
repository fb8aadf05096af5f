package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"meshd/agent"
	"meshd/agent/web"
)

// Limits of the HTTP port.
const (
	httpHeadTime  = 5 * time.Second
	httpIdleTime  = 2 * time.Minute
	httpEndTime   = time.Second // for answers under way when the node stops
	maxHTTPHeader = 16 << 10
)

// An httpPort is the listener of --http. It is bound before the node runs, so that a busy port is told at
// once.
type httpPort struct {
	listener net.Listener
	server   *http.Server
	page     *web.Page // nil where not only this machine reaches the port
	log      *slog.Logger
}

// openHTTP binds --http. The page and the story it tells are for this machine alone: on any other address
// only health and metrics are served, which name no node, no artifact and no promise.
func openHTTP(addr string, a *agent.Agent, log *slog.Logger) (*httpPort, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usagef("--http %q: want ADDR:PORT: %v", addr, err)
	}
	if host == "" {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	metrics := a.Metrics()
	if err := metrics.TakeGossip(); err != nil {
		return nil, fmt.Errorf("bridge the metrics of the gossip: %w", err)
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--http: %w; name another port, or leave it out", err)
	}
	p := &httpPort{listener: l, log: log}
	var handler http.Handler
	if web.Loopback(addr) == nil {
		p.page = web.New(web.Config{Backend: a.Backend(), Metrics: metrics.Handler(), Ready: a.Healthy, Log: log})
		handler = p.page
	} else {
		log.Warn("--http is reached from other machines: it serves health and metrics, and no page", "address", addr)
		handler = healthAndMetrics(a.Healthy, metrics.Handler())
	}
	p.server = &http.Server{
		Handler: handler, ReadHeaderTimeout: httpHeadTime, IdleTimeout: httpIdleTime, MaxHeaderBytes: maxHTTPHeader,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return p, nil
}

// healthAndMetrics answers /healthz, /readyz and /metrics, whatever the port is called.
func healthAndMetrics(ready func() error, metrics http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ready")
	})
	mux.Handle("GET /metrics", metrics)
	return mux
}

// run serves until ctx ends, and returns after all it started has returned.
func (p *httpPort) run(ctx context.Context) {
	p.log.Info("http port is open", "address", p.listener.Addr(), "page", p.page != nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := p.server.Serve(p.listener); !errors.Is(err, http.ErrServerClosed) {
			p.log.Error("the http port failed; the node goes on without it", "error", err)
		}
	}()
	looked := make(chan struct{})
	go func() {
		defer close(looked)
		if p.page != nil {
			if err := p.page.Run(ctx); err != nil && ctx.Err() == nil {
				p.log.Error("the page stopped", "error", err)
			}
		}
	}()
	<-ctx.Done()
	<-looked
	end, cancel := context.WithTimeout(context.Background(), httpEndTime)
	defer cancel()
	if err := p.server.Shutdown(end); err != nil {
		_ = p.server.Close()
	}
	<-ended
}
