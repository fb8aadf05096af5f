package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"meshd/agent/control"
	"meshd/policies"
)

// postcards is a small score whose roles and artifacts the fake's members play.
const postcards = `score "postcards" {
  version = "1.0.0"
}
role "parent" { when = tag.kind == "parent" }
role "builder" { when = tag.site == "oslo" }
part "work" {
  role = "builder"
  file "card" {
    path    = "card"
    content = "x"
  }
  artifact "card" {
    name  = "postcard/${node.name}"
    from  = "card"
    needs = [file.card]
  }
}
part "harvest" {
  role = "parent"
  want "cards" {
    name  = "postcard/*"
    place = "cards/${artifact.publisher}"
  }
}
`

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return noon.Add(-d) }

// fake is a node of a small mesh, with a name in it that means harm to terminals. It remembers what is published.
type fake struct {
	version string // of the last publish
	tree    []byte // of the last publish
	score   control.Score
	paused  map[string]time.Duration
	wary    bool // the doctor finds warnings alone
	well    bool // the doctor finds nothing, and every name is known
}

func (f *fake) Members(context.Context) ([]control.Member, error) {
	return []control.Member{
		{
			Name: "container_1", ID: "0c", Status: "failed", Kind: "leaf", Address: "127.0.0.1:6375",
			Roles: []string{"builder", "containers"}, Promises: control.Counts{Kept: 3, Waiting: 1}, Score: "postcards 1.0.0",
			Version: "v0.1.0", Platform: "linux/arm64", LastSeen: ago(3 * time.Minute), Tags: map[string]string{"site": "oslo"},
			AbsentSince: ago(3 * time.Minute), Placed: []control.Input{{Name: "package", Version: "2", Hash: "ab12"}},
			Waiting:      []control.Waiting{{Name: "package", Version: "3", Hash: "cd34", SizeBytes: 10240}, {Name: "score", Version: "1.0.1", Hash: "ef56", SizeBytes: 100}},
			WaitingBytes: 10340,
		},
		{Name: "evil\x1b[2J\nname", Status: "suspect", Kind: "member", LastSeen: ago(49 * time.Hour)},
		{
			Name: "host", ID: "0a", Status: "alive", Kind: "member", Self: true, Address: "127.0.0.1:6374", RTTSeconds: 0.00042,
			Roles: []string{"parent"}, Promises: control.Counts{Kept: 5, Repaired: 1}, Score: "postcards 1.0.0",
			Version: "v0.1.0", Platform: "linux/amd64", LastSeen: noon, Tags: map[string]string{"kind": "parent", "a": "b"},
		},
	}, nil
}

func (f *fake) Artifacts(_ context.Context, pattern string, all bool) ([]control.Artifact, error) {
	hash := "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	list := []control.Artifact{
		{
			Name: "package", Version: "3", Counter: 3, Hash: hash, SizeBytes: 10240, Publisher: "host", PublisherID: "0a",
			PublishedAt: ago(5 * time.Second), Holders: []string{"container_1", "host"}, Wanted: []string{"container_1", "container_2"},
			Local: true, Of: []control.Input{{Name: "postcard/container_1", Version: "1", Hash: hash}},
		},
		{
			Name: "postcard/container_1", Version: "1.2.0", Counter: 1, Hash: hash, SizeBytes: 12, Publisher: "container_1",
			PublishedAt: ago(2 * time.Hour), Holders: []string{"container_1"},
		},
	}
	if all {
		list = append(list[:1:1], list[0], list[1])
		list[1].Version, list[1].Counter = "2", 2
	}
	if pattern == "score" {
		return []control.Artifact{
			{Name: "score", Version: "0.9.0"}, {Name: "score", Version: "1.0.0"}, {Name: "score", Version: "1.2.0"}, {Name: "score", Version: "odd"},
		}, nil
	}
	if pattern != "" {
		prefix, _, _ := strings.Cut(pattern, "*")
		kept := []control.Artifact{}
		for _, x := range list {
			if strings.HasPrefix(x.Name, prefix) {
				kept = append(kept, x)
			}
		}
		list = kept
	}
	return list, nil
}

func (f *fake) Promises(_ context.Context, address, node string, all bool) ([]control.Promise, error) {
	list := []control.Promise{
		{
			Node: "host", Address: `prepare.file.feed["container_1"]`, Type: "file", Outcome: "kept", Reason: "as promised",
			Why: "each child gets its job", Since: ago(time.Hour), CheckedAt: ago(20 * time.Second),
		},
		{
			Node: "host", Address: "harvest.command.package", Type: "command", Outcome: "repaired", Reason: "ran tar",
			Since: ago(5 * time.Second), CheckedAt: ago(5 * time.Second), Repairs: 2,
		},
		{Node: "host", Address: "later.want.app", Type: "want", Outcome: "waiting", Reason: "nobody offers app"},
	}
	failed := control.Promise{Node: "container_2", Address: "work.file.result", Type: "file", Outcome: "failed", Reason: "disk is full", Since: ago(time.Minute)}
	switch {
	case all:
		list = append(list, failed)
	case node == "container_2":
		list = []control.Promise{failed}
	case node == "asleep":
		return nil, control.Errorf(control.Unreachable, "node %q is away: ask when it is back", node)
	case node != "" && node != "host":
		return nil, control.Errorf(control.NotFound, "no node %q in the mesh: see meshctl members", node)
	}
	if address == "" {
		return list, nil
	}
	for _, p := range list {
		if p.Address == address {
			return []control.Promise{p}, nil
		}
	}
	return nil, control.Errorf(control.NotFound, "no promise %q here: see meshctl promises", address)
}

func (f *fake) Roles(context.Context) ([]control.Role, error) {
	return []control.Role{
		{Name: "containers", Because: []string{`tag.kind is "parent"`}, Why: "they work"},
		{Name: "night", Unknown: true, Because: []string{"waiting for fact.load"}},
		{Name: "parent", Held: true, Because: []string{`tag.kind is "parent"`, "fact.cpus is 2"}, Why: "it has children"},
	}, nil
}

func chain() []control.StoryItem {
	return []control.StoryItem{
		{ID: "0a/9", At: ago(time.Second), Node: "host", Kind: "promise", Subject: "harvest.command.package", Outcome: "repaired", Text: "ran tar", Cause: "0c/4"},
		{ID: "0c/4", At: ago(2 * time.Second), Node: "container_1", Kind: "artifact", Subject: "postcard/container_1@2", Text: "published", Cause: "0a/7"},
		{ID: "0a/7", At: ago(3 * time.Second), Node: "host", Kind: "file", Subject: "slips/container_1", Text: "somebody edited it"},
	}
}

func (f *fake) Story(ctx context.Context, since time.Duration, follow func(control.StoryItem) error) ([]control.StoryItem, error) {
	items := chain()
	items[0], items[2] = items[2], items[0]
	if since == 24*time.Hour {
		items = items[2:]
	}
	if follow == nil {
		return items, nil
	}
	for _, i := range items {
		if err := follow(i); err != nil {
			return nil, err
		}
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

func (f *fake) Why(_ context.Context, subject string) ([]control.StoryItem, error) {
	if subject != "package" && !f.well {
		return nil, control.Errorf(control.NotFound, "nothing here is called %q: see meshctl artifacts, promises and members", subject)
	}
	return chain(), nil
}

func (f *fake) Publish(_ context.Context, name, version string, tar io.Reader, _ func(control.Line)) (control.Artifact, error) {
	if strings.Contains(name, "..") {
		return control.Artifact{}, control.Errorf(control.Usage, "name %q: want segments of A-Z a-z 0-9 . _ - joined by /", name)
	}
	b, err := io.ReadAll(tar)
	if err != nil {
		return control.Artifact{}, err
	}
	f.tree, f.version = b, version
	made := control.Artifact{Name: name, Version: "1", Counter: 1, Hash: "ab12", SizeBytes: 5, Publisher: "host", PublishedAt: noon, Holders: []string{"host"}}
	if name == "shared" {
		made.Holders = []string{"camera", "host", "phone"}
	}
	return made, nil
}

func (f *fake) Get(_ context.Context, ref string, w io.Writer, progress func(control.Line)) error {
	switch {
	case ref == "slow":
		return context.DeadlineExceeded
	case ref == "cut":
		_, err := w.Write(f.tree[:len(f.tree)/2])
		return errors.Join(err, control.Errorf(control.Failed, "a chunk is gone from every holder"))
	case strings.HasPrefix(ref, "score@"):
		version := strings.TrimPrefix(ref, "score@")
		tar, err := packFiles(map[string][]byte{"score.hcl": []byte("# of old\nscore \"small\" {\n  version = \"" + version + "\"\n}\n")})
		if err == nil {
			_, err = w.Write(tar)
		}
		return err
	case ref == "app@1.4.0", ref == "postcard/container_1@3":
	case ref != "app":
		return control.Errorf(control.NotFound, "no artifact %q: see meshctl artifacts", ref)
	}
	for n := range int64(3) {
		progress(control.Line{Type: control.LineProgress, DoneBytes: n << 20, TotalBytes: 2 << 20})
	}
	_, err := w.Write(f.tree)
	return err
}

func (f *fake) Withdraw(_ context.Context, name string) error {
	if name != "package" && !f.well {
		return control.Errorf(control.NotFound, "this node offers no %q", name)
	}
	return nil
}

func (f *fake) Retry(_ context.Context, address string) error {
	_, err := f.Promises(context.Background(), address, "", false)
	return err
}

func (f *fake) Logs(ctx context.Context, address string, follow bool, w io.Writer) error {
	if address != "harvest.command.package" && !strings.HasPrefix(address, "children.guest") {
		return control.Errorf(control.NotFound, "no log of %q", address)
	}
	_, err := io.WriteString(w, "packed 3 postcards\n")
	if follow {
		<-ctx.Done()
		return ctx.Err()
	}
	return err
}

func (f *fake) Pause(_ context.Context, address string, d time.Duration) error {
	if address != "" {
		if err := f.Retry(context.Background(), address); err != nil {
			return err
		}
	}
	if was := f.paused[address]; d == 0 && was == 0 {
		return control.Errorf(control.NotFound, "%q is not paused", address)
	}
	if f.paused == nil {
		f.paused = map[string]time.Duration{}
	}
	f.paused[address] = d
	return nil
}

func (f *fake) Forget(_ context.Context, node string) error {
	if node != "container_1" {
		return control.Errorf(control.Failed, "%s is alive: only an absent node can be forgotten", node)
	}
	return nil
}

func (f *fake) SetTags(_ context.Context, tags map[string]string) (map[string]string, error) {
	if _, ok := tags["kind"]; ok {
		return nil, control.Errorf(control.Failed, "tag kind is attested in this node's certificate")
	}
	all := map[string]string{"kind": "parent", "a": "b"}
	for k, v := range tags {
		all[k] = v
		if v == "" {
			delete(all, k)
		}
	}
	return all, nil
}

func (f *fake) Limits(context.Context) ([]control.Limit, error) {
	return control.ParseLimits([]string{"wan=1MB"}, nil)
}

func (f *fake) SetLimit(_ context.Context, c control.LimitChange) ([]control.Limit, error) {
	list, err := control.ParseLimits([]string{"wan=1MB"}, nil)
	for i := range list {
		if list[i].Class == c.Class && c.Egress != nil {
			list[i].EgressBytesPerSecond = *c.Egress
		}
		if list[i].Class == c.Class && c.Ingress != nil {
			list[i].IngressBytesPerSecond = *c.Ingress
		}
	}
	return list, err
}

func (f *fake) DiffScore(_ context.Context, tar io.Reader) ([]control.Change, error) {
	if _, err := control.Files(tar, control.ScoreLimits()); err != nil {
		return nil, err
	}
	return []control.Change{
		{Kind: "promise", Change: "added", Name: `work.file.result["a\x1b"]`, Why: "do my part"},
		{Kind: "promise", Change: "changed", Name: "work.want.job", Problem: "waiting for fact.load"},
		{Kind: "promise", Change: "removed", Name: "work.file.note"},
		{Kind: "role", Change: "added", Name: "worker", Why: "it works"},
	}, nil
}

func (f *fake) Doctor(context.Context) ([]control.Trouble, error) {
	if f.well {
		return nil, nil
	}
	if f.wary {
		return []control.Trouble{
			{Level: "warning", Check: "peers", Subject: "container_1", Text: "failed\x1b, last heard 2026-11-22T11:57:00Z", Advice: "meshctl forget container_1"},
			{Level: "warning", Check: "watches", Subject: "host", Text: "3 promises have a folder that can't be watched", Advice: "sysctl"},
		}, nil
	}
	return []control.Trouble{
		{Level: "problem", Check: "promises", Subject: "harvest.command.package", Text: "failed: disk is full\x1b", Advice: "meshctl why tells more"},
		{Level: "warning", Check: "peers", Subject: "container_1", Text: "failed, last heard 2026-11-22T11:57:00Z", Advice: "meshctl forget container_1"},
	}, nil
}

func (f *fake) Invite(_ context.Context, r control.InviteRequest) (string, error) {
	return "meshd1." + r.Name + "." + r.Tags["kind"], nil
}

func (f *fake) Revoke(_ context.Context, node string) error {
	if node != "till-7" {
		return control.Errorf(control.NotFound, "no node %q in the mesh: see meshctl members", node)
	}
	return nil
}

func (f *fake) PublishScore(_ context.Context, tar io.Reader) (control.Score, error) {
	files, err := control.Files(tar, control.ScoreLimits())
	if err != nil {
		return control.Score{}, err
	}
	f.score = control.Score{Name: "small", Version: scoreVersion(files), Hash: "cd34", State: "in force", Since: noon, Files: map[string]string{}}
	for name, text := range files {
		f.score.Files[name] = string(text)
	}
	return f.score, nil
}

func scoreVersion(files map[string][]byte) string {
	p, err := policies.Compile(files)
	if err != nil {
		return ""
	}
	return p.Score().Version
}

func (f *fake) Score(context.Context) (control.Score, error) {
	if f.score.State == "" {
		return control.Score{State: "none"}, nil
	}
	return f.score, nil
}

func (f *fake) Offline(context.Context, time.Duration, bool) error { return nil }

func (f *fake) Version(context.Context) (control.Version, error) {
	return control.Version{Program: "meshd", Version: "v0.1.0", Go: "go1.26", Platform: "linux/amd64", Node: "host", NodeID: "0a", Mesh: "feed"}, nil
}

// ExportBundle writes what ImportBundle knows again.
func (f *fake) ExportBundle(_ context.Context, r control.BundleRequest, w io.Writer, progress func(control.Line)) (control.Bundle, error) {
	if len(r.Patterns) > 0 && r.Patterns[0] == "nothing" {
		return control.Bundle{}, control.Errorf(control.NotFound, "nobody who may offers what is asked for; meshctl artifacts lists what is offered")
	}
	text := strings.Join(append(append([]string{"bundle"}, r.Patterns...), r.Labels...), " ")
	if _, err := io.WriteString(w, text); err != nil {
		return control.Bundle{}, err
	}
	if len(r.Patterns) > 0 && r.Patterns[0] == "cut" {
		return control.Bundle{}, control.Errorf(control.TimedOut, "cut@1: no node that has it answers now; --held exports what is here without it")
	}
	progress(control.Line{Type: control.LineProgress, DoneBytes: 1 << 20, TotalBytes: 2 << 20})
	b := control.Bundle{Mesh: "feed", Records: 7, Artifacts: []string{"package@3", "score@1.0.0"}, Chunks: 9, SizeBytes: int64(len(text))}
	if r.All {
		b.Artifacts = append(b.Artifacts, "package@2")
	}
	return b, nil
}

func (f *fake) ImportBundle(_ context.Context, in io.Reader, size int64, progress func(control.Line)) (control.Bundle, error) {
	b, err := io.ReadAll(in)
	if err != nil {
		return control.Bundle{}, err
	}
	progress(control.Line{Type: control.LineProgress, DoneBytes: int64(len(b)), TotalBytes: size})
	if !strings.HasPrefix(string(b), "bundle") {
		return control.Bundle{}, control.Errorf(control.Failed, "import: byte 0: bundle refused: format 104, this meshd reads 1: it is no bundle, or one of a newer meshd; nothing was taken in")
	}
	item := control.Bundle{Mesh: "feed", Records: 7, RecordsNew: 2, Artifacts: []string{"package@3", "score@1.0.0"}, ArtifactsNew: []string{"package@3"}, Chunks: 9, SizeBytes: int64(len(b))}
	if strings.HasSuffix(string(b), "strangers\n") {
		item.RecordsLeft = 3
	}
	return item, nil
}
