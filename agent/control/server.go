package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Limits of the door. None of them is for the operator's patience: that is the client's to know.
const (
	headerLimit   = 10 * time.Second // for a request's header
	idleLimit     = 60 * time.Second // between two bytes, either way, of a stream
	aliveEvery    = 10 * time.Second // a stream with nothing to say says so
	drainLimit    = 2 * time.Second  // to read what a refused stream still sends
	stopLimit     = time.Second      // for answers under way when the daemon stops
	maxRequests   = 64               // answered at once
	maxOrderBytes = 64 << 10         // of a JSON request
	maxDataBytes  = 64 << 10         // of one LineData
)

// Options say who may use a door and for what.
type Options struct {
	// Group (name or number) may use a unix socket besides root and the daemon's own user; "" for nobody.
	Group string

	// ReadOnly answers questions alone, and only to callers that name a loopback host, so that a page in a browser
	// cannot reach through. A listener on TCP must have it.
	ReadOnly bool

	Log *slog.Logger // nil: silent
}

// A server is one door.
type server struct {
	backend Backend
	log     *slog.Logger
	gid     int           // group that may enter, or -1
	slots   chan struct{} // capacity maxRequests
	running sync.WaitGroup
}

type peerKey struct{}

// peer is what a connection's other end is; it rides in the context of its requests.
type peer struct {
	ok  bool
	who string
}

// Serve answers on l until ctx ends, then closes l and returns when all it started has ended: nil, or what kept it from
// serving. It works with any listener; on a unix socket the peer's user is checked.
func Serve(ctx context.Context, l net.Listener, b Backend, o Options) error {
	defer l.Close()
	s := &server{backend: b, log: o.Log, gid: -1, slots: make(chan struct{}, maxRequests)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if o.Group != "" {
		gid, err := groupID(o.Group)
		if err != nil {
			return err
		}
		s.gid = gid
	}
	if _, tcp := l.Addr().(*net.TCPAddr); tcp && !o.ReadOnly {
		return fmt.Errorf("control door on %s: a TCP port can only be read-only", l.Addr())
	}
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &http.Server{
		Handler:           s.admit(s.routes(), o.ReadOnly),
		ReadHeaderTimeout: headerLimit,
		IdleTimeout:       idleLimit,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			ok, who := allowed(c, s.gid)
			return context.WithValue(ctx, peerKey{}, peer{ok, who})
		},
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(l) }()
	var err error
	select {
	case err = <-served:
		cancel()
		h.Close()
	case <-ctx.Done():
		stop, done := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
		if h.Shutdown(stop) != nil {
			h.Close()
		}
		done()
		err = <-served
	}
	s.running.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("control door on %s: %w", l.Addr(), err)
}

// admit refuses who may not enter, what may not be asked, and more than maxRequests at once.
func (s *server) admit(next http.Handler, readOnly bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.running.Add(1)
		defer s.running.Done()
		select {
		case s.slots <- struct{}{}:
			defer func() { <-s.slots }()
		default:
			refuse(w, r, http.StatusServiceUnavailable, fmt.Sprintf("%d requests are being answered already: ask again", maxRequests))
			return
		}
		p, _ := r.Context().Value(peerKey{}).(peer)
		switch {
		case !p.ok:
			s.log.Warn("control door refused a user", "who", p.who)
			refuse(w, r, http.StatusForbidden, fmt.Sprintf("%s may not use this meshd: ask as root or as the user that runs it", p.who))
		case readOnly && !loopbackHost(r.Host):
			refuse(w, r, http.StatusForbidden, fmt.Sprintf("host %q is not this machine: ask http://127.0.0.1", r.Host))
		case readOnly && r.Method != http.MethodGet:
			refuse(w, r, http.StatusForbidden, "this port only answers questions: give orders over the unix socket")
		default:
			s.log.Debug("control request", "method", r.Method, "path", r.URL.Path)
			next.ServeHTTP(w, r)
		}
	})
}

func loopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

// A stream writes the lines of one answer. Its methods may be called at once.
type stream struct {
	mu sync.Mutex
	w  http.ResponseWriter
	rc *http.ResponseController
}

// line writes l, and the raw bytes that a LineData announces.
func (s *stream) line(l Line, raw []byte) error {
	b, err := encode(l)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit()
	if _, err := s.w.Write(append(b, raw...)); err != nil {
		return err
	}
	return s.rc.Flush()
}

// limit gives the next write its time. Listeners without deadlines have none, and their own way to end.
func (s *stream) limit() { _ = s.rc.SetWriteDeadline(time.Now().Add(idleLimit)) }

// Write sends b as data.
func (s *stream) Write(b []byte) (int, error) {
	for done := 0; done < len(b); {
		part := b[done:min(len(b), done+maxDataBytes)]
		if err := s.line(Line{Type: LineData, DataBytes: int64(len(part))}, part); err != nil {
			return done, err
		}
		done += len(part)
	}
	return len(b), nil
}

// progress sends l. That it cannot be sent is found by the next thing that must be.
func (s *stream) progress(l Line) { _ = s.line(l, nil) }

// stream answers with lines: what do sends, and its result or error as the last. do's ctx ends too when a line that
// says "alive" cannot be sent, because nobody listens any more.
func (s *server) stream(w http.ResponseWriter, r *http.Request, do func(ctx context.Context, out *stream) (item any, err error)) {
	out := &stream{w: w, rc: http.NewResponseController(w)}
	_ = out.rc.EnableFullDuplex() // answers may begin while the question is still sent; HTTP/2 always can
	w.Header().Set("Content-Type", "application/x-ndjson")
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	r.Body = &patientBody{ReadCloser: r.Body, rc: out.rc}
	if out.line(Line{Type: LineAlive}, nil) != nil {
		return
	}
	beats := make(chan struct{})
	go func() {
		defer close(beats)
		tick := time.NewTicker(aliveEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if out.line(Line{Type: LineAlive}, nil) != nil {
					cancel()
					return
				}
			}
		}
	}()
	item, err := do(ctx, out)
	cancel()
	<-beats
	last := Line{Type: LineResult}
	if err == nil && item != nil {
		last.Item, err = encode(item)
	}
	if err != nil {
		e := told(err)
		last = Line{Type: LineError, Error: e.Message, Code: e.Code}
	}
	if out.line(last, nil) != nil {
		return
	}
	drain(out.rc, r)
}

// drain reads what is still sent after the answer: the other side stops when it has read that, and closing under its
// feet could lose it the answer.
func drain(rc *http.ResponseController, r *http.Request) {
	_ = rc.Flush()
	if p, ok := r.Body.(*patientBody); ok {
		r.Body = p.ReadCloser
	}
	_ = rc.SetReadDeadline(time.Now().Add(drainLimit))
	_, _ = io.Copy(io.Discard, r.Body)
	_ = rc.SetReadDeadline(time.Time{})
}

// A patientBody gives each read of a request's body idleLimit.
type patientBody struct {
	io.ReadCloser
	rc *http.ResponseController
}

func (b *patientBody) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(idleLimit))
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.rc.SetReadDeadline(time.Time{}) // net/http reads on to notice that the caller has gone
	}
	return n, err
}
