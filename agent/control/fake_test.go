package control

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// fake answers with what it was given and remembers what it was asked. Methods that a test does not set are missing.
type fake struct {
	Backend
	asked  string
	err    error
	item   StoryItem
	got    []byte
	follow func(ctx context.Context, emit func(StoryItem) error) error
	get    func(w io.Writer, progress func(Line)) error
	logs   func(w io.Writer) error
}

var moment = time.Date(2026, 11, 22, 10, 0, 0, 500_000_000, time.UTC)

func (f *fake) saw(format string, args ...any) error {
	f.asked = fmt.Sprintf(format, args...)
	return f.err
}

func (f *fake) Members(context.Context) ([]Member, error) {
	return []Member{fullMember()}, f.saw("members")
}

func (f *fake) Artifacts(_ context.Context, pattern string, all bool) ([]Artifact, error) {
	return []Artifact{fullArtifact()}, f.saw("artifacts %s %v", pattern, all)
}

func (f *fake) Promises(_ context.Context, address, node string, all bool) ([]Promise, error) {
	return []Promise{fullPromise()}, f.saw("promises %s %s %v", address, node, all)
}

func (f *fake) Roles(context.Context) ([]Role, error) { return nil, f.saw("roles") }

func (f *fake) Story(ctx context.Context, since time.Duration, follow func(StoryItem) error) ([]StoryItem, error) {
	if follow != nil {
		return nil, f.follow(ctx, follow)
	}
	return []StoryItem{f.item}, f.saw("story %v", since)
}

func (f *fake) Why(_ context.Context, subject string) ([]StoryItem, error) {
	return []StoryItem{f.item}, f.saw("why %s", subject)
}

func (f *fake) Publish(_ context.Context, name, version string, tar io.Reader, progress func(Line)) (Artifact, error) {
	if f.err != nil {
		return Artifact{}, f.err // unread, as a daemon does that refuses the name
	}
	var err error
	f.got, err = io.ReadAll(tar)
	progress(Line{Type: LineProgress, DoneBytes: int64(len(f.got)), TotalBytes: int64(len(f.got))})
	f.asked = fmt.Sprintf("publish %s %s", name, version)
	return fullArtifact(), err
}

func (f *fake) Get(_ context.Context, ref string, w io.Writer, progress func(Line)) error {
	f.asked = "get " + ref
	return f.get(w, progress)
}

func (f *fake) Withdraw(_ context.Context, name string) error { return f.saw("withdraw %s", name) }

func (f *fake) Retry(_ context.Context, address string) error { return f.saw("retry %s", address) }

func (f *fake) Pause(_ context.Context, address string, d time.Duration) error {
	return f.saw("pause %s %v", address, d)
}

func (f *fake) Forget(_ context.Context, node string) error { return f.saw("forget %s", node) }

func (f *fake) SetTags(_ context.Context, tags map[string]string) (map[string]string, error) {
	return map[string]string{"a": "b"}, f.saw("tags %v", tags)
}

func (f *fake) Limits(context.Context) ([]Limit, error) {
	return []Limit{{ClassWAN, 1, 2}}, f.saw("limits")
}

func (f *fake) SetLimit(_ context.Context, c LimitChange) ([]Limit, error) {
	return []Limit{{c.Class, *c.Egress, 0}}, f.saw("limit %s %d %v %v", c.Class, *c.Egress, c.Ingress, c.Reset)
}

func (f *fake) DiffScore(_ context.Context, tar io.Reader) ([]Change, error) {
	b, err := io.ReadAll(tar)
	if err != nil {
		return nil, err
	}
	return []Change{{Kind: "role", Change: "added", Name: string(b)}}, f.saw("diff")
}

func (f *fake) Doctor(context.Context) ([]Trouble, error) {
	return []Trouble{{Level: LevelProblem, Check: "clock"}}, f.saw("doctor")
}

func (f *fake) Logs(_ context.Context, address string, follow bool, w io.Writer) error {
	f.asked = fmt.Sprintf("logs %s %v", address, follow)
	return f.logs(w)
}

func (f *fake) Invite(_ context.Context, r InviteRequest) (string, error) {
	return "meshd1.token", f.saw("invite %+v", r)
}

func (f *fake) Revoke(_ context.Context, node string) error { return f.saw("revoke %s", node) }

func (f *fake) PublishScore(_ context.Context, tar io.Reader) (Score, error) {
	files, err := Files(tar, ScoreLimits())
	if err != nil {
		return Score{}, Errorf(Usage, "%w", err)
	}
	s := Score{Name: "s", Files: map[string]string{}}
	for name, text := range files {
		s.Files[name] = string(text)
	}
	return s, f.saw("publish score")
}

func (f *fake) Score(context.Context) (Score, error) {
	return Score{Name: "s", State: "in force", Files: map[string]string{"a.hcl": "# <&>"}, Since: moment}, f.saw("score")
}

func (f *fake) Offline(_ context.Context, d time.Duration, on bool) error {
	return f.saw("offline %v %v", d, on)
}

func (f *fake) Version(context.Context) (Version, error) {
	return Version{Program: "meshd", Version: "v1", Node: "host"}, f.saw("version")
}

func fullMember() Member {
	return Member{
		Name: "host", ID: "ab", Status: "alive", Kind: "member", Self: true, Address: "127.0.0.1:6374",
		Tags: map[string]string{"kind": "parent"}, Roles: []string{"parent"}, RTTSeconds: 0.0005,
		Promises: Counts{1, 2, 3, 4, 5}, Score: "postcards 1.0.0", Version: "v1", Platform: "linux/amd64", LastSeen: moment,
		AbsentSince: moment, Placed: []Input{{Name: "app", Version: "1", Hash: "2c26"}},
		Waiting: []Waiting{{Name: "app", Version: "2", Hash: "9f86", SizeBytes: 7}}, WaitingBytes: 7,
	}
}

func fullArtifact() Artifact {
	return Artifact{
		Name: "package", Version: "3", Counter: 3, Hash: "9f86", SizeBytes: 10, Publisher: "host", PublisherID: "ab",
		PublishedAt: moment, Holders: []string{"host"}, Wanted: []string{"c1"}, Local: true,
		Of: []Input{{Name: "postcard/c1", Version: "1", Hash: "2c26"}},
	}
}

func fullPromise() Promise {
	return Promise{
		Node: "host", Address: `a.file.b["c"]`, Type: "file", Outcome: "kept", Reason: "as promised", Why: "so",
		Since: moment, CheckedAt: moment, Repairs: 2,
	}
}

// serve opens a real unix socket with b behind it until the test ends.
func serve(t *testing.T, b Backend, o Options) (c *Client, stop func()) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.sock")
	l, err := Listen(path, o.Group)
	if err != nil {
		t.Fatal(err)
	}
	c, err = NewClient("unix://"+path, "")
	if err != nil {
		t.Fatal(err)
	}
	return c, serveOn(t, l, b, o)
}

func serveOn(t *testing.T, l net.Listener, b Backend, o Options) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, l, b, o) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}
