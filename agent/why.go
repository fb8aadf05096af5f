package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"meshd/agent/control"
	"meshd/mesh"
	"meshd/mesh/id"
	"meshd/policies"
	"meshd/store/artifact"
)

const (
	maxChain = 256 // links of one chain of causes, over all nodes
	maxHops  = 32  // nodes that one chain crosses
)

// localChain walks causes back in this journal from one record, itself first. The last one may name
// another node.
func (a *Agent) localChain(entry uint64) []Entry {
	var chain []Entry
	for len(chain) < maxChain {
		e, ok := a.journal.get(entry)
		if !ok {
			break
		}
		chain = append(chain, e)
		if e.Cause.Node != "" || e.Cause.Entry == 0 || e.Cause.Entry >= e.ID {
			break
		}
		entry = e.Cause.Entry
	}
	return chain
}

// newestAbout finds the record that explains the present state of a promise, an artifact, a role or a node.
func (a *Agent) newestAbout(subject string) (Entry, bool) {
	return a.journal.newest(func(e Entry) bool {
		if e.Kind == aboutArtifact {
			name, version, _ := strings.Cut(e.Subject, "@")
			wantName, wantVersion, pinned := strings.Cut(subject, "@")
			return name == wantName && (!pinned || version == wantVersion)
		}
		return e.Subject == subject
	})
}

// answer serves the questions of other nodes: read only.
func (a *Agent) answer(ctx context.Context, _ id.Node, q mesh.Question) mesh.Answer {
	switch q.Kind {
	case mesh.AskChain:
		return mesh.Answer{Entries: a.told(a.localChain(q.Entry))}
	case mesh.AskWhy:
		e, ok := a.newestAbout(q.Subject)
		if !ok {
			return mesh.Answer{Problem: fmt.Sprintf("%s knows nothing of %q", a.name, q.Subject)}
		}
		return mesh.Answer{Entries: a.told(a.localChain(e.ID))}
	case mesh.AskHave:
		root, err := artifact.ParseDigest(q.Subject)
		if err != nil {
			return mesh.Answer{Problem: err.Error()}
		}
		has, err := a.store.Has(root)
		return mesh.Answer{Has: has && err == nil}
	case mesh.AskPromises:
		promises, err := a.ownPromises(ctx, policies.Address(q.Subject))
		if err != nil {
			return mesh.Answer{Problem: err.Error()}
		}
		return mesh.Answer{Promises: promises}
	}
	return mesh.Answer{Problem: "unknown question"}
}

func (a *Agent) told(chain []Entry) []mesh.Entry {
	out := make([]mesh.Entry, len(chain))
	for i, e := range chain {
		out[i] = mesh.Entry{
			ID: e.ID, At: e.At.UnixMilli(), Node: a.name, Kind: e.Kind, Subject: e.Subject, Outcome: e.Outcome, Text: e.Text,
			Cause: e.Cause.Entry, CauseNode: e.Cause.Node, CauseText: e.Cause.Text,
		}
	}
	return out
}

func (a *Agent) ownPromises(ctx context.Context, only policies.Address) ([]mesh.Promise, error) {
	var out []mesh.Promise
	err := a.loop.do(ctx, func() {
		for address, in := range a.loop.instances {
			if only != "" && address != only && !strings.HasPrefix(string(address), string(only)+"[") {
				continue
			}
			out = append(out, mesh.Promise{
				Address: string(address), Type: in.p.Type, Outcome: in.outcome.String(), Reason: cut(in.reason, 1024), Why: in.p.Why,
				Since: in.since.UnixMilli(), Checked: millis(in.checked), Repairs: in.repairs,
			})
		}
	})
	slices.SortFunc(out, func(x, y mesh.Promise) int { return strings.Compare(x.Address, y.Address) })
	return out, err
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// why walks a chain of causes over nodes: from the newest record about subject back to what somebody did.
// A node that does not answer ends the chain with what its artifact itself tells.
func (a *Agent) why(ctx context.Context, subject string) ([]control.StoryItem, error) {
	chain, err := a.whyStart(ctx, subject)
	if err != nil {
		if node, ok := a.nodeNamed(subject); ok {
			return a.whyNode(node), nil
		}
		return nil, err
	}
	var out []control.StoryItem
	for range maxHops {
		out = append(out, items(chain)...)
		last := chain[len(chain)-1]
		if last.CauseNode == "" || last.Cause == 0 || len(out) > maxChain {
			break
		}
		node, err := id.Parse(last.CauseNode)
		if err != nil {
			break
		}
		next, err := a.chainAt(ctx, node, last.Cause)
		if err != nil || len(next) == 0 {
			out = append(out, unreachable(a.nameOf(node), last, err))
			break
		}
		chain = next
	}
	return chained(out), nil
}

// whyStart finds where the chain begins: here, or at the publisher of an artifact that this node only heard of.
func (a *Agent) whyStart(ctx context.Context, subject string) ([]mesh.Entry, error) {
	if e, ok := a.newestAbout(subject); ok && e.Kind != aboutArtifact {
		return a.told(a.localChain(e.ID)), nil
	}
	name, _, _ := strings.Cut(subject, "@")
	var newest *offered
	for _, o := range a.supply.named(name) {
		if subject == name || subject == name+"@"+o.shown() {
			newest = &o
		}
	}
	if newest == nil || newest.ref.Version.By == a.mesh.Self() {
		e, ok := a.newestAbout(subject)
		if !ok {
			return nil, control.Errorf(control.NotFound, "nothing is known here of %q: name a promise, an artifact, a role or a node (meshctl promises, artifacts, roles, members)", subject)
		}
		return a.told(a.localChain(e.ID)), nil
	}
	answer, err := a.mesh.Ask(ctx, newest.ref.Version.By, mesh.Question{Kind: mesh.AskWhy, Subject: name + "@" + newest.shown()})
	if err == nil && len(answer.Entries) > 0 {
		return answer.Entries, nil
	}
	return a.whyFromManifest(*newest, err)
}

func (a *Agent) nodeNamed(subject string) (mesh.Node, bool) {
	for _, n := range a.mesh.Nodes() {
		if n.Name == subject || n.ID.String() == subject {
			return n, true
		}
	}
	return mesh.Node{}, false
}

// whyNode tells what a node is now, and who let it in with which attested name and tags.
func (a *Agent) whyNode(n mesh.Node) []control.StoryItem {
	plays := "plays no role"
	if len(n.Roles) > 0 {
		plays = "plays " + strings.Join(n.Roles, ", ")
	}
	now := control.StoryItem{
		ID: n.ID.String() + "/now", At: n.LastSeen, Node: n.Name, Kind: aboutNode, Subject: n.Name, Outcome: n.Status, Text: plays,
	}
	cert, ok := a.mesh.Catalog().Cert(n.ID)
	if !ok {
		return []control.StoryItem{now}
	}
	entry := control.StoryItem{
		ID: n.ID.String() + "/admitted", At: cert.NotBefore, Node: a.nameOf(cert.Sponsor), Kind: aboutNode, Subject: n.Name,
		Outcome: "admitted", Text: "by " + a.nameOf(cert.Sponsor),
	}
	if cert.Sponsor == n.ID {
		entry.Outcome, entry.Text = "founded", "the mesh"
	}
	var attested []string
	if cert.Name != "" {
		attested = append(attested, "name "+cert.Name)
	}
	for _, k := range slices.Sorted(maps.Keys(cert.Tags)) {
		attested = append(attested, "tag "+k+"="+cert.Tags[k])
	}
	if len(attested) > 0 {
		entry.Text += "; attested: " + strings.Join(attested, ", ")
	}
	return chained([]control.StoryItem{now, entry})
}

// whyFromManifest tells what the artifact itself carries of its cause, where its publisher is away.
func (a *Agent) whyFromManifest(o offered, cause error) ([]mesh.Entry, error) {
	text := "published by " + a.nameOf(o.ref.Version.By)
	if m, err := a.store.Head(o.ref.Root); err == nil && m.Origin.Text != "" {
		text += ": " + m.Origin.Text
	}
	if cause != nil {
		text += fmt.Sprintf(" (it does not answer now: %v)", cause)
	}
	return []mesh.Entry{{
		At: o.at.UnixMilli(), Node: a.nameOf(o.ref.Version.By), Kind: aboutArtifact, Subject: o.ref.Name + "@" + o.shown(),
		Outcome: "published", Text: text,
	}}, nil
}

func (a *Agent) chainAt(ctx context.Context, node id.Node, entry uint64) ([]mesh.Entry, error) {
	if node == a.mesh.Self() {
		return a.told(a.localChain(entry)), nil
	}
	answer, err := a.mesh.Ask(ctx, node, mesh.Question{Kind: mesh.AskChain, Entry: entry})
	return answer.Entries, err
}

func unreachable(name string, last mesh.Entry, err error) control.StoryItem {
	text := "its journal no longer has the record"
	if err != nil {
		text = "it does not answer now: " + err.Error()
	}
	return control.StoryItem{ID: fmt.Sprintf("%s/%d", name, last.Cause), Node: name, Kind: aboutNode, Subject: name, Text: text}
}

// items words entries for people; a cause in words becomes the end of the text.
func items(chain []mesh.Entry) []control.StoryItem {
	out := make([]control.StoryItem, len(chain))
	for i, e := range chain {
		text := e.Text
		if e.CauseText != "" {
			if text != "" {
				text += "; "
			}
			text += "because of " + e.CauseText
		}
		out[i] = control.StoryItem{
			ID: fmt.Sprintf("%s/%d", e.Node, e.ID), At: time.UnixMilli(e.At), Node: e.Node, Kind: e.Kind, Subject: e.Subject,
			Outcome: e.Outcome, Text: text,
		}
	}
	return out
}

// chained says of each item of a chain that the next one caused it.
func chained(chain []control.StoryItem) []control.StoryItem {
	for i := range chain[:max(0, len(chain)-1)] {
		chain[i].Cause = chain[i+1].ID
	}
	return chain
}
