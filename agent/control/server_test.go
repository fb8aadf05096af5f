package control

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestTCPPortOnlyAnswersQuestionsOfThisMachine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), l, &fake{}, Options{}); err == nil {
		t.Fatal("a TCP port took orders")
	}
	l, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, &fake{}, Options{ReadOnly: true})
	c, err := NewClient("http://"+l.Addr().String(), "")
	if err != nil {
		t.Fatal(err)
	}
	if items, err := c.Members(t.Context()); err != nil || len(items) != 1 {
		t.Errorf("question: %d items, %v", len(items), err)
	}
	if err := c.Revoke(t.Context(), "host"); err == nil || !strings.Contains(err.Error(), "only answers questions") {
		t.Errorf("order: %v", err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+pathMembers, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example" // a name that a page made point here
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("foreign host: status %d", resp.StatusCode)
	}
}

func TestUnknownQuestionSaysThatTheDaemonMayBeOlder(t *testing.T) {
	c, _ := serve(t, &fake{}, Options{})
	_, err := ask[token](t.Context(), c, http.MethodGet, "/v1/weather", nil, nil)
	if CodeOf(err) != Usage || !strings.Contains(err.Error(), "/v1/weather") {
		t.Errorf("got %v", err)
	}
	_, err = c.stream(t.Context(), http.MethodPost, "/v1/weather", nil, strings.NewReader("tar"), only(nil))
	if CodeOf(err) != Usage {
		t.Errorf("stream: got %v", err)
	}
	for _, bad := range []string{"-1", "x", "1e10", "NaN"} {
		_, err := ask[StoryItem](t.Context(), c, http.MethodGet, pathStory, map[string][]string{"since_seconds": {bad}}, nil)
		if CodeOf(err) != Usage {
			t.Errorf("since %q: got %v", bad, err)
		}
	}
	_, err = ask[token](t.Context(), c, http.MethodPost, pathInvite, nil, []byte(strings.Repeat("x", maxOrderBytes+1)))
	if CodeOf(err) != Usage || !strings.Contains(err.Error(), "longer than 65536 bytes") {
		t.Errorf("long order: got %v", err)
	}
}

// memory is a listener inside the process, so that time is the bubble's.
type memory struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newMemory() *memory { return &memory{conns: make(chan net.Conn), done: make(chan struct{})} }

func (m *memory) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error {
	m.once.Do(func() { close(m.done) })
	return nil
}

func (m *memory) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

func (m *memory) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case m.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestQuietStreamLivesOnAndDeadDaemonIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hour := time.Hour
		f := &fake{follow: func(ctx context.Context, emit func(StoryItem) error) error {
			select {
			case <-time.After(hour):
				return emit(StoryItem{ID: "late"})
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		m := newMemory()
		serveOn(t, m, f, Options{})
		got := ""
		_, err := ClientOver(m.dial).Story(t.Context(), 0, func(s StoryItem) error {
			got = s.ID
			return nil
		})
		if err != nil || got != "late" {
			t.Errorf("after an hour of silence: %v, %q", err, got)
		}

		deaf := newMemory() // takes connections and says nothing
		held := make(chan net.Conn, 2)
		go func() {
			for range 2 {
				c, err := deaf.Accept()
				if err != nil {
					return
				}
				go func() { _, _ = io.Copy(io.Discard, c) }()
				held <- c
			}
		}()
		start := time.Now()
		_, err = ClientOver(deaf.dial).Members(t.Context())
		if took := time.Since(start); CodeOf(err) != TimedOut || took > answerLimit+time.Second {
			t.Errorf("question: %v after %v", err, took)
		}
		start = time.Now()
		err = ClientOver(deaf.dial).Get(t.Context(), "x", io.Discard, nil)
		if took := time.Since(start); CodeOf(err) != TimedOut || took > patienceLimit+time.Second {
			t.Errorf("stream: %v after %v", err, took)
		}
		for range 2 {
			(<-held).Close()
		}
		deaf.Close()
	})
}

func TestMoreThanManyAtOnceAreAskedToComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{follow: func(ctx context.Context, _ func(StoryItem) error) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		m := newMemory()
		stop := serveOn(t, m, f, Options{})
		ended := make(chan error, maxRequests)
		for range maxRequests {
			go func() {
				_, err := ClientOver(m.dial).Story(context.Background(), 0, func(StoryItem) error { return nil })
				ended <- err
			}()
		}
		synctest.Wait()
		if _, err := ClientOver(m.dial).Members(t.Context()); err == nil || !strings.Contains(err.Error(), "ask again") {
			t.Errorf("one too many: %v", err)
		}
		start := time.Now()
		stop()
		if took := time.Since(start); took > stopLimit {
			t.Errorf("stopping took %v", took)
		}
		for range maxRequests {
			if err := <-ended; CodeOf(err) != Unreachable {
				t.Errorf("a follower was told %v", err)
			}
		}
	})
}

func TestServeTellsWhatKeptItFromServing(t *testing.T) {
	m := newMemory()
	m.Close()
	if err := Serve(t.Context(), m, &fake{}, Options{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed listener: %v", err)
	}
}
