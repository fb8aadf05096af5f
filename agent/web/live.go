package web

import (
	"cmp"
	"hash/maphash"
	"net/http"
	"time"

	"meshd/agent/control"
)

// A node is a member as the page lists it: what changes with every look is not there.
type node struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Status   string            `json:"status"`
	Kind     string            `json:"kind"`
	Self     bool              `json:"self"`
	Address  string            `json:"address"`
	Tags     map[string]string `json:"tags"`
	Roles    []string          `json:"roles"`
	Promises control.Counts    `json:"promises"`
	Score    string            `json:"score"`
	Version  string            `json:"version"`
	Platform string            `json:"platform"`
	Heard    int64             `json:"heard"` // ms since 1970 of the last word, 0 for one that is heard now
}

// A headline is whose view it is, how old, and of what.
type headline struct {
	Now     int64  `json:"now"` // ms since 1970, by this node's clock
	At      int64  `json:"at"`  // when this node last looked; 0 never
	Problem string `json:"problem"`
	Node    string `json:"node"`
	Mesh    string `json:"mesh"`
	Version string `json:"version"`
	Score   string `json:"score"`
	Why     string `json:"why"` // of the score
	State   string `json:"state"`
	Refused string `json:"refused"` // why a newer score is not in force
}

// A change is what a viewer does not know yet. Lists that are null have not changed.
type change struct {
	Head      headline            `json:"head"`
	Nodes     []node              `json:"nodes"` // those that are new or changed
	Order     []string            `json:"order"` // ids of all, as they are listed
	Artifacts []control.Artifact  `json:"artifacts"`
	Story     []control.StoryItem `json:"story"` // new ones, oldest first
	Strips    []strip             `json:"strips"`
	Whole     bool                `json:"whole"` // this is everything: forget what was known
}

// A strip is the cells of every node for one of steps: whole ones, or the last two columns.
type strip struct {
	StepMS int64             `json:"step_ms"`
	Last   int64             `json:"last"`            // number of the last cell
	Whole  map[string]string `json:"whole,omitempty"` // by node id, oldest first; those of nodes new to the viewer
	Column [2]string         `json:"column"`          // cells last-1 and last of each node in Order
}

// A viewer is one open stream and what it was told.
type viewer struct {
	nodes                  map[string]uint64 // hash by id
	order, artifacts, cols uint64
	head                   headline
	told                   int
	at                     time.Time // when head was last sent
}

var seed = maphash.MakeSeed()

func sum(v any) uint64 { return maphash.Bytes(seed, encode(v)) }

// live streams changes until the viewer or Run is gone.
func (p *Page) live(w http.ResponseWriter, r *http.Request) {
	select {
	case p.viewers <- struct{}{}:
		defer func() { <-p.viewers }()
	default:
		say(w, http.StatusServiceUnavailable, "too many look at this page already: close one and try again")
		return
	}
	p.mu.Lock()
	stopped := p.stopped
	p.mu.Unlock()
	if stopped == nil {
		say(w, http.StatusServiceUnavailable, "this node is starting: try again")
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	v := viewer{nodes: map[string]uint64{}}
	for {
		p.mu.Lock()
		changed := p.changed
		c, any := v.news(&p.view, p.cfg.now())
		p.mu.Unlock()
		if any {
			if err := send(w, "change", c); err != nil {
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-stopped:
			return
		case <-changed:
		case <-time.After(beat):
		}
		select { // what comes in a burst goes out together
		case <-r.Context().Done():
			return
		case <-stopped:
			return
		case <-time.After(burst):
		}
	}
}

// news is what the viewer does not know of a view; the caller holds what guards it.
func (v *viewer) news(from *view, now time.Time) (change, bool) {
	c := change{Head: head(from, now), Whole: v.at.IsZero()}
	news := c.Whole || now.Sub(v.at) >= lookEvery || same(c.Head) != same(v.head)
	order := make([]string, 0, len(from.members))
	fresh := map[string]bool{}
	there := make(map[string]uint64, len(from.members))
	for _, m := range from.members {
		n := listed(m)
		h := sum(n)
		old, known := v.nodes[m.ID]
		if !known || old != h {
			c.Nodes = append(c.Nodes, n)
		}
		fresh[m.ID] = !known
		there[m.ID] = h
		order = append(order, m.ID)
	}
	v.nodes = there
	if h := sum(order); h != v.order || c.Whole {
		v.order, c.Order = h, order
	}
	if h := sum(from.artifacts); h != v.artifacts || c.Whole {
		v.artifacts, c.Artifacts = h, from.artifacts
		if c.Artifacts == nil {
			c.Artifacts = []control.Artifact{}
		}
	}
	if n := min(from.told-v.told, len(from.story), storyKeep); n > 0 {
		c.Story = append(c.Story, from.story[len(from.story)-n:]...)
	}
	v.told = from.told
	strips := stripsOf(from, order, fresh, now)
	if h := sum(strips); h != v.cols {
		v.cols, c.Strips = h, strips
	}
	news = news || c.Nodes != nil || c.Order != nil || c.Artifacts != nil || c.Story != nil || c.Strips != nil
	if news {
		v.head, v.at = c.Head, now
	}
	return c, news
}

// same is a headline without what changes with every look.
func same(h headline) headline {
	h.Now, h.At = 0, 0
	return h
}

func head(v *view, now time.Time) headline {
	h := headline{
		Now: now.UnixMilli(), Problem: v.problem, Node: v.version.Node, Mesh: v.version.Mesh, Version: v.version.Version,
		Why: v.score.Why, State: v.score.State, Refused: v.score.Problem,
	}
	if !v.at.IsZero() {
		h.At = v.at.UnixMilli()
	}
	if v.score.Name != "" {
		h.Score = v.score.Name + " " + cmp.Or(v.score.Version, v.score.Hash)
	}
	return h
}

func listed(m control.Member) node {
	n := node{
		ID: m.ID, Name: m.Name, Status: m.Status, Kind: m.Kind, Self: m.Self, Address: m.Address, Tags: m.Tags, Roles: m.Roles,
		Promises: m.Promises, Score: m.Score, Version: m.Version, Platform: m.Platform,
	}
	if m.Status != "alive" && !m.LastSeen.IsZero() {
		n.Heard = m.LastSeen.UnixMilli()
	}
	if n.Roles == nil {
		n.Roles = []string{}
	}
	return n
}

func stripsOf(v *view, order []string, fresh map[string]bool, now time.Time) []strip {
	out := make([]strip, len(steps))
	for i, step := range steps {
		s := strip{StepMS: step.Milliseconds(), Last: number(now, step), Whole: map[string]string{}}
		before, last := make([]byte, len(order)), make([]byte, len(order))
		for j, id := range order {
			if fresh[id] {
				s.Whole[id] = v.history.strip(id, i, s.Last)
			}
			before[j], last[j] = unseen, unseen
			if p := v.history[id]; p != nil {
				before[j], last[j] = p.rings[i].at(s.Last-1), p.rings[i].at(s.Last)
			}
		}
		s.Column = [2]string{string(before), string(last)}
		out[i] = s
	}
	return out
}
