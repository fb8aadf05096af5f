package web

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"meshd/agent/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hostile is a name that would be markup, an attribute, or text turned around.
const hostile = "<script>alert(1)</script>\"'\x1b[31m\u202eevil\u200b&amp;"

// A fake is a mesh of any size that does as it is told.
type fake struct {
	control.Backend // what is not asked

	mu        sync.Mutex
	err       error
	members   []control.Member
	artifacts []control.Artifact
	story     []control.StoryItem
	fresh     chan struct{} // closed when the story has grown
}

// newFake makes a mesh of n nodes, one of them with a hostile name, in every state once there are enough.
func newFake(n int) *fake {
	f := &fake{fresh: make(chan struct{})}
	var names []string
	for i := range n {
		m := control.Member{
			Name: fmt.Sprintf("web-%03d", i), ID: fmt.Sprintf("id%061d", i), Status: "alive", Kind: "member", Self: i == 0,
			Address: fmt.Sprintf("127.0.0.1:%d", 7000+i), Tags: map[string]string{"tier": "web"}, Roles: []string{"web"},
			Promises: control.Counts{Kept: 7}, Score: "1.0.0", Version: "test", Platform: "linux/amd64", LastSeen: time.Now(),
		}
		switch {
		case i == 0:
			m.Name, m.Roles = "builder", []string{"build", "feed"}
		case i == 1:
			m.Name = hostile
		case i%17 == 2:
			m.Promises.Failed = 1
		case i%17 == 5:
			m.Promises.Waiting = 2
		case i%17 == 7:
			m.Promises.Drifted = 1
		case i%17 == 9:
			m.Status, m.LastSeen = "failed", time.Now().Add(-time.Minute)
		}
		f.members = append(f.members, m)
		names = append(names, m.Name)
	}
	f.artifacts = append(f.artifacts, control.Artifact{
		Name: "app", Version: "1.4.2", Counter: 7, Hash: "sha256:9f86", SizeBytes: 3 << 20, Publisher: "builder",
		PublishedAt: time.Now().Add(-time.Minute), Holders: names[:n-1], Wanted: names[1:], Local: true,
	})
	for _, name := range names[1:] {
		f.artifacts = append(f.artifacts, control.Artifact{
			Name: "answer/" + name, Version: "1", Hash: "sha256:2c26", SizeBytes: 100, Publisher: name, PublishedAt: time.Now(),
			Holders: []string{name, "builder"}, Wanted: []string{"builder"}, Local: true, Of: []control.Input{{Name: "app", Version: "7"}},
		})
	}
	f.happen("kept", "")
	f.happen("repaired", hostile)
	return f
}

func (f *fake) happen(outcome, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.story = append(f.story, control.StoryItem{
		ID: fmt.Sprintf("builder/%d", len(f.story)), At: time.Now(), Node: "builder", Kind: "promise",
		Subject: fmt.Sprintf("site.file.index[%d]", len(f.story)), Outcome: outcome, Text: text,
	})
	close(f.fresh)
	f.fresh = make(chan struct{})
}

// do changes the mesh.
func (f *fake) do(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fake) Members(context.Context) ([]control.Member, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]control.Member(nil), f.members...), f.err
}

func (f *fake) Artifacts(context.Context, string, bool) ([]control.Artifact, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]control.Artifact(nil), f.artifacts...), f.err
}

func (f *fake) Score(context.Context) (control.Score, error) {
	return control.Score{Name: "site", Version: "1.0.0", Why: "One page on every " + hostile, State: "in force"}, nil
}

func (f *fake) Version(context.Context) (control.Version, error) {
	return control.Version{Program: "meshd", Version: "test", Node: "builder", NodeID: fmt.Sprintf("id%061d", 0), Mesh: "fleet"}, nil
}

func (f *fake) Promises(_ context.Context, _, node string, _ bool) ([]control.Promise, error) {
	return []control.Promise{
		{Node: node, Address: "site.file." + hostile, Type: "file", Outcome: "kept", Why: "so that there is a page", Since: time.Now()},
		{Node: node, Address: "site.want.app", Type: "want", Outcome: "failed", Reason: "no space left on device", Since: time.Now(), Repairs: 3},
	}, nil
}

func (f *fake) Why(_ context.Context, subject string) ([]control.StoryItem, error) {
	if subject == "nothing" {
		return nil, control.Errorf(control.NotFound, "nothing is known here of %q", subject)
	}
	at := time.Now()
	return []control.StoryItem{
		{ID: "builder/9", At: at, Node: "builder", Kind: "artifact", Subject: subject, Outcome: "published", Cause: "builder/8"},
		{ID: "builder/8", At: at.Add(-40 * time.Millisecond), Node: "builder", Kind: "promise", Subject: "site.file.feed", Outcome: "repaired", Text: "because of an edit of " + hostile},
	}, nil
}

func (f *fake) Story(ctx context.Context, _ time.Duration, follow func(control.StoryItem) error) ([]control.StoryItem, error) {
	for n := 0; ; {
		f.mu.Lock()
		items, fresh, err := f.story[n:], f.fresh, f.err
		f.mu.Unlock()
		if err != nil {
			return nil, err
		}
		for _, i := range items {
			n++
			if err := follow(i); err != nil {
				return nil, err
			}
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-fresh:
		}
	}
}
