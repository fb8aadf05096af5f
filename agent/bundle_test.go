package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"meshd/agent/control"
	"meshd/mesh/bundle"
	"meshd/mesh/catalog"
	"meshd/store/artifact"
)

// export is what a stick carries from m.
func (f *fleet) export(m *simNode, r control.BundleRequest) ([]byte, control.Bundle) {
	f.t.Helper()
	var out bytes.Buffer
	item, err := door{m.agent}.ExportBundle(f.t.Context(), r, &out, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	if item.SizeBytes != int64(out.Len()) {
		f.t.Errorf("a bundle of %d bytes is told as %d", out.Len(), item.SizeBytes)
	}
	return out.Bytes(), item
}

func (f *fleet) take(m *simNode, b []byte) (control.Bundle, error) {
	return door{m.agent}.ImportBundle(f.t.Context(), bytes.NewReader(b), int64(len(b)), nil)
}

// airGap makes a host that published while the other node was off, and leaves the other alone.
func airGap(t *testing.T, seed uint64, stick func(f *fleet, host *simNode) []byte, play func(f *fleet, air *simNode, b []byte)) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, seed)
		defer f.end()
		host := f.found("host", nil)
		air := f.join("air", 2, map[string]string{"late": "yes"})
		f.until("they know one another", time.Minute, func() (bool, string) {
			return len(air.agent.mesh.Nodes()) == 2 && air.agent.mesh.OwnChecked(), "not yet"
		})
		f.halt(air, false)
		f.publishScore(soloScore("1.0.0", wantApp))
		b := stick(f, host)
		f.halt(host, false)
		delete(f.nodes, "host")
		f.start(air)
		play(f, air, b)
	})
}

// The two are never online together after the join: the score and what it wants come on a stick.
func TestABundleBringsScoreAndArtifactsToAnAirGappedNode(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<14)
	airGap(t, 21, func(f *fleet, host *simNode) []byte {
		for _, content := range []string{"the old app", big} {
			if _, err := f.publishFile(host, "app", "", content); err != nil {
				t.Fatal(err)
			}
		}
		b, item := f.export(host, control.BundleRequest{})
		if again, _ := f.export(host, control.BundleRequest{}); !bytes.Equal(b, again) {
			t.Error("equal content, unlike bundles")
		}
		if want := []string{"app@2", "score@1.0.0"}; !slices.Equal(item.Artifacts, want) {
			t.Errorf("it carries %v, want %v", item.Artifacts, want)
		}
		if _, all := f.export(host, control.BundleRequest{All: true}); !slices.Contains(all.Artifacts, "app@1") {
			t.Errorf("with all it carries %v", all.Artifacts)
		}
		if _, err := (door{host.agent}).ExportBundle(f.t.Context(), control.BundleRequest{Patterns: []string{"nothing/**"}}, io.Discard, nil); control.CodeOf(err) != control.NotFound {
			t.Errorf("what nobody offers: %v", err)
		}
		if _, some := f.export(host, control.BundleRequest{Labels: []string{"publisher=host", "version=2"}}); !slices.Equal(some.Artifacts, item.Artifacts) {
			t.Errorf("with labels it carries %v", some.Artifacts)
		}
		return b
	}, func(f *fleet, air *simNode, b []byte) {
		merged := func() uint64 { return air.agent.mesh.Stats().Catalog.Merged }
		before := merged()
		for n := 0; n < len(b); n += 1 + len(b)/97 { // cut anywhere: nothing of it is in
			if _, err := f.take(air, b[:n]); err == nil || !strings.Contains(err.Error(), "nothing was taken in") {
				t.Fatalf("cut at %d of %d: %v", n, len(b), err)
			}
			bad := bytes.Clone(b)
			bad[n] ^= 4
			if _, err := f.take(air, bad); err == nil {
				t.Fatalf("byte %d of %d altered: taken", n, len(b))
			}
		}
		refused := air.agent.tally.bundlesRefused.Load()
		if refused < 180 {
			t.Errorf("%d refusals were counted", refused)
		}
		time.Sleep(5 * time.Second)
		if merged() != before || air.read("app.txt") != "" || len(air.agent.supply.offers("")) != 0 {
			t.Fatal("something of the refused files is in")
		}
		if left, err := os.ReadDir(filepath.Join(air.dir, "tmp")); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
		item, err := f.take(air, b)
		if err != nil {
			t.Fatal(err)
		}
		if len(item.ArtifactsNew) > 2 || item.RecordsNew == 0 {
			t.Errorf("new: %v, %d records", item.ArtifactsNew, item.RecordsNew)
		}
		took := f.until("it is placed", 10*time.Second, func() (bool, string) { return air.read("app.txt") == big, f.report() })
		t.Logf("placed %v after the import of %d bytes", took, len(b))
		before = merged()
		again, err := f.take(air, b)
		if err != nil || again.RecordsNew != 0 || len(again.ArtifactsNew) != 0 {
			t.Errorf("imported twice: %+v, %v", again, err)
		}
		if merged() != before {
			t.Error("importing twice changed the catalog")
		}
		// What came on the stick is carried on: a bundle of this node holds it too.
		if _, item := f.export(air, control.BundleRequest{Patterns: []string{"app"}}); !slices.Contains(item.Artifacts, "app@2") {
			t.Errorf("it carries on %v", item.Artifacts)
		}
	})
}

// A node that was killed in the middle of an import, or of whatever else lay in its folder for that, has nothing of it
// left when it runs again.
func TestWhatAKilledNodeLeftHalfDoneIsGoneAtItsStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 24)
		defer f.end()
		host := f.found("host", nil)
		in, err := host.agent.newIntake(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := in.stage.Close(); err != nil { // and no more: that is what kill -9 leaves
			t.Fatal(err)
		}
		f.halt(host, true)
		if _, err := os.Stat(in.dir); err != nil {
			t.Fatalf("there is nothing to remove: %v", err)
		}
		f.start(host)
		if _, err := os.Stat(in.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the killed import is still there: %v", err)
		}
	})
}

// reworked writes the records of a bundle anew, as change makes them, with an end that agrees.
func reworked(t *testing.T, b []byte, head bundle.Head, change func(pages [][][]byte) [][][]byte) []byte {
	t.Helper()
	in := &recorder{}
	if _, err := bundle.Read(bytes.NewReader(b), in); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := bundle.NewWriter(&out, head)
	for _, page := range change(in.pages) {
		if err == nil {
			err = w.Records(page)
		}
	}
	if err == nil {
		_, err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A recorder keeps the pages and believes everything.
type recorder struct {
	head  bundle.Head
	pages [][][]byte
}

func (r *recorder) Head(h bundle.Head) error            { r.head = h; return nil }
func (r *recorder) Records(p [][]byte) error            { r.pages = append(r.pages, p); return nil }
func (r *recorder) Chunk(artifact.Digest, []byte) error { return nil }
func (r *recorder) Artifact(b []byte) (artifact.Ref, error) {
	rec, err := catalog.DecodeRecord(b)
	if err != nil {
		return artifact.Ref{}, err
	}
	ref, _, err := rec.Ref()
	return ref, err
}

// Well framed and well summed up, and still not to be believed: each refused by name, or harmless.
func TestABundleIsVerifiedAsAPeerIs(t *testing.T) {
	var mesh bundle.Head
	airGap(t, 22, func(f *fleet, host *simNode) []byte {
		f.halt(host, false) // its clock is a hundred years ahead from now on
		f.setUp = func(c *Config) { c.Wall = func() time.Time { return time.Now().AddDate(100, 0, 0) } }
		f.start(host)
		f.setUp = nil
		f.waitScore(host)
		if _, err := f.publishFile(host, "app", "", "from the future"); err != nil {
			t.Fatal(err)
		}
		mesh = bundle.Head{Mesh: host.agent.mesh.Charter().MeshID()}
		b, _ := f.export(host, control.BundleRequest{})
		return b
	}, func(f *fleet, air *simNode, b []byte) {
		same := func(p [][][]byte) [][][]byte { return p }
		flat := func(p [][][]byte) [][]byte { return slices.Concat(p...) }
		last := func(p [][][]byte) []byte { all := flat(p); return all[len(all)-1] }
		for _, tt := range []struct {
			name, want string
			head       bundle.Head
			change     func([][][]byte) [][][]byte
		}{
			{"a foreign mesh", "it is of mesh 09000000", bundle.Head{Mesh: [32]byte{9}}, same},
			{"a forged signature", "its signature is not by its origin", mesh, func(p [][][]byte) [][][]byte {
				bad := bytes.Clone(last(p))
				bad[len(bad)-1] ^= 1
				return append(p, [][]byte{bad})
			}},
			{"a record with no signature", "its signature is not by its origin", mesh, func(p [][][]byte) [][][]byte {
				bad := bytes.Clone(last(p))
				clear(bad[len(bad)-64:])
				return append(p, [][]byte{bad})
			}},
			{"no record at all", "unknown version of the format", mesh, func(p [][][]byte) [][][]byte { return append(p, [][]byte{bytes.Repeat([]byte("x"), 200)}) }},
		} {
			merged, refused := air.agent.mesh.Stats().Catalog.Merged, air.agent.tally.bundlesRefused.Load()
			_, err := f.take(air, reworked(t, b, tt.head, tt.change))
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "nothing was taken in") {
				t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
			}
			if air.agent.tally.bundlesRefused.Load() != refused+1 {
				t.Errorf("%s: not counted", tt.name)
			}
			if air.agent.mesh.Stats().Catalog.Merged != merged || len(air.agent.supply.offers("")) != 0 {
				t.Errorf("%s: something is in", tt.name)
			}
		}
		// Without the certificates nothing of an origin is believed, and nothing breaks: it is counted.
		strangers := reworked(t, b, mesh, func(p [][][]byte) [][][]byte { return p })
		// Backwards, twice, one record a page: a set is a set.
		backwards := reworked(t, b, mesh, func(p [][][]byte) [][][]byte {
			var out [][][]byte
			for _, r := range slices.Backward(flat(p)) {
				out = append(out, [][]byte{r}, [][]byte{r})
			}
			return append(p[:1:1], out...)
		})
		for name, file := range map[string][]byte{"in order": strangers, "backwards and twice": backwards, "whole": b} {
			if _, err := f.take(air, file); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		f.until("what comes from the future is placed", 20*time.Second, func() (bool, string) {
			return air.read("app.txt") == "from the future", f.report()
		})
	})
}

// waitScore waits until a node plays a score.
func (f *fleet) waitScore(m *simNode) {
	f.t.Helper()
	f.until("it plays the score", time.Minute, func() (bool, string) {
		v := m.agent.view.Load()
		return v != nil && v.program != nil, "no score"
	})
}

// A backup restored beside the original: two sticks bring two records with one seq, and that is a proof.
func TestTwoSticksProveAFork(t *testing.T) {
	airGap(t, 23, func(f *fleet, host *simNode) []byte {
		publish := func(content string) []byte {
			f.waitScore(host)
			if _, err := f.publishFile(host, "app", "", content); err != nil {
				t.Fatal(err)
			}
			b, _ := f.export(host, control.BundleRequest{})
			return b
		}
		f.halt(host, false)
		backup := filepath.Join(f.dir, "backup")
		if err := os.CopyFS(backup, os.DirFS(host.dir)); err != nil {
			t.Fatal(err)
		}
		f.start(host)
		one := publish("one")
		f.halt(host, false)
		if err := os.RemoveAll(host.dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(backup, host.dir); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"node.key", "node.crt", "charter", "root.key"} {
			if err := os.Chmod(filepath.Join(host.dir, name), 0o600); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		f.start(host)
		two := publish("two")
		return fmt.Appendf(nil, "%08d%s%s", len(one), one, two)
	}, func(f *fleet, air *simNode, b []byte) {
		var n int
		if _, err := fmt.Sscanf(string(b[:8]), "%08d", &n); err != nil {
			t.Fatal(err)
		}
		for _, stick := range [][]byte{b[8 : 8+n], b[8+n:]} {
			if _, err := f.take(air, stick); err != nil {
				t.Fatal(err)
			}
		}
		if !air.agent.mesh.Catalog().Forked(f.parent.agent.mesh.Self()) {
			t.Error("two records with one seq are no proof of a fork")
		}
		troubles, err := door{air.agent}.Doctor(f.t.Context())
		if err != nil || !slices.ContainsFunc(troubles, func(x control.Trouble) bool { return x.Check == "fork" && x.Subject == "host" }) {
			t.Errorf("the doctor says %v, %v", troubles, err)
		}
	})
}
