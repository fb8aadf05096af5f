package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"meshd/agent/control"
)

const (
	lookEvery  = 4 * time.Second        // with nobody looking: less than the shortest of steps, or strips have holes
	lookSoon   = time.Second            // with somebody
	lookLimit  = 10 * time.Second       // for one look
	storyKeep  = 400                    // items that a new viewer gets
	storyBack  = 24 * time.Hour         // how far back the story is read at start
	storyPause = time.Second            // before the story is followed again after an error
	burst      = 100 * time.Millisecond // items of the story within it go out together
	beat       = 10 * time.Second       // a stream with nothing to say says so
)

// A view is what the page shows.
type view struct {
	at        time.Time // of the last look that was answered
	problem   string    // why the last look was not
	version   control.Version
	score     control.Score
	members   []control.Member
	artifacts []control.Artifact
	history   history
	story     []control.StoryItem // oldest first, at most storyKeep
	told      int                 // how many items there ever were: story ends with number told
}

// Run looks at the mesh and follows the story until ctx ends. Streams end with it.
func (p *Page) Run(ctx context.Context) error {
	stopped := make(chan struct{})
	p.mu.Lock()
	p.stopped = stopped
	p.mu.Unlock()
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		p.follow(ctx)
	}()
	defer func() {
		<-followed
		close(stopped)
	}()
	for {
		p.look(ctx)
		every := lookEvery
		if len(p.viewers) > 0 {
			every = lookSoon
		}
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-time.After(every):
		}
	}
}

// look asks the backend how the mesh stands.
func (p *Page) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookLimit)
	defer cancel()
	b := p.cfg.Backend
	version, err1 := b.Version(ctx)
	score, err2 := b.Score(ctx)
	members, err3 := b.Members(ctx)
	artifacts, err4 := b.Artifacts(ctx, "", false)
	err := errors.Join(err1, err2, err3, err4)
	p.change(func(v *view) {
		if err != nil {
			v.problem = fmt.Sprintf("this node does not tell how it stands: %v", err)
			return
		}
		v.at, v.problem = p.cfg.now(), ""
		v.version, v.score, v.members, v.artifacts = version, score, members, artifacts
		v.history.look(members, v.at)
	})
}

// follow keeps the newest of the story, and marks on the strips what this node's own promises did between two looks.
func (p *Page) follow(ctx context.Context) {
	seen := ""
	for ctx.Err() == nil {
		skip := seen != ""
		_, err := p.cfg.Backend.Story(ctx, storyBack, func(item control.StoryItem) error {
			if skip {
				skip = item.ID != seen
				return nil
			}
			seen = item.ID
			p.tell(item)
			return ctx.Err()
		})
		if ctx.Err() != nil {
			return
		}
		p.cfg.Log.Debug("the page follows the story anew", "error", err)
		if skip {
			seen = "" // what was last seen is no longer kept: begin anew
		}
		select {
		case <-ctx.Done():
		case <-time.After(storyPause):
		}
	}
}

func (p *Page) tell(item control.StoryItem) {
	p.change(func(v *view) {
		v.story = append(v.story, item)
		v.told++
		if len(v.story) >= 2*storyKeep {
			v.story = slices.Clone(v.story[len(v.story)-storyKeep:])
		}
		if item.Kind != "promise" || item.Node != v.version.Node || v.version.NodeID == "" {
			return
		}
		for i, outcome := range [...]string{"kept", "repaired", "failed", "waiting", "drifted"} {
			if item.Outcome == outcome {
				v.history.mark(v.version.NodeID, item.At, "krfwd"[i])
			}
		}
	})
}

// change changes the view and wakes who waits for that.
func (p *Page) change(do func(*view)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	do(&p.view)
	close(p.changed)
	p.changed = make(chan struct{})
}

// encode returns v as JSON. It can't fail: v is plain fields.
func encode(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimRight(buf.Bytes(), "\n")
}

// send writes one event of a stream.
func send(w http.ResponseWriter, event string, v any) error {
	c := http.NewResponseController(w)
	_ = c.SetWriteDeadline(time.Now().Add(writeLimit)) // where the server has none, the next write finds out
	if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, encode(v)); err != nil {
		return err
	}
	return c.Flush()
}
