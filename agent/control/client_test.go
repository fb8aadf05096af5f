package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestClientAnswersAsTheBackendDoes(t *testing.T) {
	ctx := t.Context()
	f := &fake{item: StoryItem{ID: "1", At: moment, Text: "<ok> & \"quoted\""}}
	c, _ := serve(t, f, Options{})
	story := []StoryItem{f.item}
	tests := []struct {
		asked string
		want  any
		ask   func() (any, error)
	}{
		{"members", []Member{fullMember()}, func() (any, error) { return c.Members(ctx) }},
		{"artifacts a/* true", []Artifact{fullArtifact()}, func() (any, error) { return c.Artifacts(ctx, "a/*", true) }},
		{`promises a.b["c&d"] n true`, []Promise{fullPromise()}, func() (any, error) { return c.Promises(ctx, `a.b["c&d"]`, "n", true) }},
		{"roles", []Role{}, func() (any, error) { return c.Roles(ctx) }},
		{"story 1.5s", story, func() (any, error) { return c.Story(ctx, 1500*time.Millisecond, nil) }},
		{"why x", story, func() (any, error) { return c.Why(ctx, "x") }},
		{"withdraw a", nil, func() (any, error) { return nil, c.Withdraw(ctx, "a") }},
		{"retry a", nil, func() (any, error) { return nil, c.Retry(ctx, "a") }},
		{"revoke n", nil, func() (any, error) { return nil, c.Revoke(ctx, "n") }},
		{`pause a["k"] 1h0m0s`, nil, func() (any, error) { return nil, c.Pause(ctx, `a["k"]`, time.Hour) }},
		{"pause  0s", nil, func() (any, error) { return nil, c.Pause(ctx, "", 0) }},
		{"forget n", nil, func() (any, error) { return nil, c.Forget(ctx, "n") }},
		{"limits", []Limit{{ClassWAN, 1, 2}}, func() (any, error) { return c.Limits(ctx) }},
		{"limit wan 1000000 <nil> false", []Limit{{ClassWAN, 1e6, 0}}, func() (any, error) {
			return c.SetLimit(ctx, LimitChange{Class: ClassWAN, Egress: new(int64(1e6))})
		}},
		{"tags map[k:v w:]", map[string]string{"a": "b"}, func() (any, error) { return c.SetTags(ctx, map[string]string{"k": "v", "w": ""}) }},
		{"diff", []Change{{Kind: "role", Change: "added", Name: "tar"}}, func() (any, error) { return c.DiffScore(ctx, strings.NewReader("tar")) }},
		{"doctor", []Trouble{{Level: LevelProblem, Check: "clock"}}, func() (any, error) { return c.Doctor(ctx) }},
		{"offline 1m0s true", nil, func() (any, error) { return nil, c.Offline(ctx, time.Minute, true) }},
		{"offline 0s false", nil, func() (any, error) { return nil, c.Offline(ctx, 0, false) }},
		{
			"invite {Name:n Replace:true Tags:map[a:b] TTLSeconds:60 Uses:2}", "meshd1.token",
			func() (any, error) {
				return c.Invite(ctx, InviteRequest{Name: "n", Replace: true, Tags: map[string]string{"a": "b"}, TTLSeconds: 60, Uses: 2})
			},
		},
		{
			"score",
			Score{Name: "s", State: "in force", Files: map[string]string{"a.hcl": "# <&>"}, Since: moment},
			func() (any, error) { return c.Score(ctx) },
		},
		{"version", Version{Program: "meshd", Version: "v1", Node: "host"}, func() (any, error) { return c.Version(ctx) }},
	}
	for _, tt := range tests {
		t.Run(tt.asked, func(t *testing.T) {
			got, err := tt.ask()
			if err != nil {
				t.Fatal(err)
			}
			if f.asked != tt.asked {
				t.Errorf("the backend was asked %q", f.asked)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	tests := []struct {
		in   error
		code Code
		text string
	}{
		{Errorf(Usage, "name %q is no name", "x"), Usage, `name "x" is no name`},
		{fmt.Errorf("withdraw: %w", Errorf(NotFound, "no artifact %q", "x")), NotFound, `withdraw: no artifact "x"`},
		{Errorf(Unreachable, "node is away"), Unreachable, "node is away"},
		{fmt.Errorf("ask c1: %w", context.DeadlineExceeded), TimedOut, "ask c1: context deadline exceeded"},
		{errors.New("disk is full"), Failed, "disk is full"},
	}
	f := &fake{}
	c, _ := serve(t, f, Options{})
	for _, tt := range tests {
		f.err = tt.in
		f.get = func(io.Writer, func(Line)) error { return tt.in }
		f.logs = func(w io.Writer) error {
			_, _ = io.WriteString(w, "some")
			return tt.in
		}
		_, artErr := c.Artifacts(t.Context(), "", false)
		_, pubErr := c.Publish(t.Context(), "x", "", strings.NewReader("tar"), nil)
		for what, err := range map[string]error{
			"list": artErr, "publish": pubErr, "order": c.Withdraw(t.Context(), "x"),
			"get":  c.Get(t.Context(), "x", io.Discard, nil),
			"logs": c.Logs(t.Context(), "x", false, io.Discard),
		} {
			if CodeOf(err) != tt.code || err.Error() != tt.text {
				t.Errorf("%s: got %d %q, want %d %q", what, CodeOf(err), err, tt.code, tt.text)
			}
		}
	}
}

func TestRefusedPublishTellsWhyAndNotThatThePipeBroke(t *testing.T) {
	f := &fake{err: Errorf(Usage, "name is too long")}
	c, _ := serve(t, f, Options{})
	endless := io.LimitReader(zeros{}, 64<<20)
	for range 10 { // the race is between the refusal and the sending
		if _, err := c.Publish(t.Context(), "x", "", endless, nil); CodeOf(err) != Usage || err.Error() != "name is too long" {
			t.Fatalf("got %v", err)
		}
	}
}

func TestTreeThatCannotBeReadEndsThePublish(t *testing.T) {
	c, _ := serve(t, &fake{}, Options{})
	broken := errors.New("disk is broken")
	r, w := io.Pipe()
	go func() {
		_, _ = w.Write(make([]byte, 100_000))
		w.CloseWithError(broken)
	}()
	if _, err := c.Publish(t.Context(), "x", "", r, nil); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestPublishSendsEveryByteAndTellsProgress(t *testing.T) {
	f := &fake{}
	c, _ := serve(t, f, Options{})
	sent := bytes.Repeat([]byte("0123456789"), 300_000)
	var seen []Line
	got, err := c.Publish(t.Context(), "app", "1.0.0", bytes.NewReader(sent), func(l Line) { seen = append(seen, l) })
	if err != nil || !bytes.Equal(f.got, sent) || f.asked != "publish app 1.0.0" {
		t.Fatalf("err %v, %d bytes, asked %q", err, len(f.got), f.asked)
	}
	if diff := cmp.Diff(fullArtifact(), got); diff != "" {
		t.Error(diff)
	}
	if len(seen) != 1 || seen[0].DoneBytes != int64(len(sent)) {
		t.Errorf("progress %+v", seen)
	}
}

func TestGetTellsProgressThenBytesThenTheErrorThatCutThem(t *testing.T) {
	big := bytes.Repeat([]byte("x\n{}"), 200_000) // lines in the data are no lines of ours
	f := &fake{get: func(w io.Writer, progress func(Line)) error {
		progress(Line{Type: LineProgress, DoneBytes: 1, TotalBytes: 2})
		if _, err := w.Write(big); err != nil {
			return err
		}
		return nil
	}}
	c, _ := serve(t, f, Options{})
	var out bytes.Buffer
	steps := 0
	if err := c.Get(t.Context(), "a@3", &out, func(Line) { steps++ }); err != nil || steps != 1 || !bytes.Equal(out.Bytes(), big) {
		t.Fatalf("err %v, %d steps, %d bytes", err, steps, out.Len())
	}
	whole := f.get
	f.get = func(w io.Writer, progress func(Line)) error {
		if err := whole(w, progress); err != nil {
			return err
		}
		return Errorf(NotFound, "a chunk is gone")
	}
	if err := c.Get(t.Context(), "a@3", io.Discard, nil); CodeOf(err) != NotFound {
		t.Fatalf("got %v", err)
	}
}

func TestFollowedStoryEndsWithItsListener(t *testing.T) {
	gone := make(chan struct{})
	f := &fake{follow: func(ctx context.Context, emit func(StoryItem) error) error {
		defer close(gone)
		for i := range 3 {
			if err := emit(StoryItem{ID: fmt.Sprint(i)}); err != nil {
				return err
			}
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	c, _ := serve(t, f, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	_, err := c.Story(ctx, 0, func(s StoryItem) error {
		if s.ID != fmt.Sprint(n) {
			t.Errorf("item %d is %q", n, s.ID)
		}
		if n++; n == 3 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || CodeOf(err) != Interrupted {
		t.Errorf("got %v", err)
	}
	<-gone
}

func TestFollowedStoryEndsWithItsDaemon(t *testing.T) {
	f := &fake{follow: func(ctx context.Context, emit func(StoryItem) error) error {
		if err := emit(StoryItem{ID: "1"}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	c, stop := serve(t, f, Options{})
	_, err := c.Story(t.Context(), 0, func(StoryItem) error {
		go stop()
		return nil
	})
	if CodeOf(err) != Unreachable || !strings.Contains(err.Error(), "stopping") {
		t.Errorf("got %v", err)
	}
	stop() // waits for the other one
}

func TestNoDaemonIsUnreachableAndSaysWhereAndWhatNext(t *testing.T) {
	dir := t.TempDir()
	c, err := NewClient("", dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Members(t.Context())
	if CodeOf(err) != Unreachable {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{dir, "no such socket", "start it", "--addr"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
}

// meshctl in the line after meshd: the node is there, its socket comes a moment later.
func TestADaemonThatStartsJustNowIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "node.key"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := NewClient("", dir)
	if err != nil {
		t.Fatal(err)
	}
	dial := c.dial
	missed := make(chan struct{})
	var once sync.Once
	c.dial = func(ctx context.Context, place string) (net.Conn, error) {
		conn, err := dial(ctx, place)
		if err != nil {
			once.Do(func() { close(missed) })
		}
		return conn, err
	}
	answered := make(chan error, 1)
	go func() {
		_, err := c.Members(t.Context())
		answered <- err
	}()
	<-missed // it came too early
	l, err := Listen(SocketPath(dir), "")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, &fake{}, Options{})
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestAddressesThatAreNone(t *testing.T) {
	for _, addr := range []string{"unix://", "https://127.0.0.1:1", "http://", "localhost", "http://127.0.0.1:80/v1", "http://[::1"} {
		if _, err := NewClient(addr, ""); CodeOf(err) != Usage {
			t.Errorf("NewClient(%q): %v, want a usage error", addr, err)
		}
	}
	for _, addr := range []string{"unix:///run/m.sock", "./m.sock", "http://127.0.0.1:1", "http://127.0.0.1:1/"} {
		if _, err := NewClient(addr, ""); err != nil {
			t.Errorf("NewClient(%q): %v", addr, err)
		}
	}
}
