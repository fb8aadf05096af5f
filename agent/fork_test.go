package agent

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"meshd/mesh/catalog"
	"meshd/store/artifact"
)

// copyTree copies a folder with the modes of its files, as a backup does.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), info.Mode().Perm())
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sign appends an artifact record, whatever stands behind it.
func (m *simNode) sign(t *testing.T, name string, counter uint64) (catalog.Record, error) {
	d := artifact.Sum(fmt.Append(nil, name, counter))
	b, err := catalog.EncodeArtifact(catalog.ArtifactBody{Counter: counter, Root: d, Tree: d, SizeBytes: 1, Keep: 3})
	if err != nil {
		t.Fatal(err)
	}
	return m.agent.mesh.Publish(t.Context(), catalog.KindArtifact, name, b, 0)
}

func (m *simNode) offers(name string) bool {
	return len(m.agent.mesh.Catalog().LiveNamed(catalog.KindArtifact, name)) > 0
}

// knows says whether all nodes have all names, and one catalog.
func (f *fleet) knows(names ...string) (bool, string) {
	root := f.parent.agent.mesh.Catalog().Root()
	for _, m := range f.nodes {
		for _, name := range names {
			if !m.offers(name) {
				return false, m.name + " lacks " + name
			}
		}
		if m.agent.mesh.Catalog().Root() != root {
			return false, m.name + " has another catalog"
		}
	}
	return true, ""
}

// A node restored from a backup that publishes before anybody could tell it what it had said since: both
// branches stay, all see the proof, and it goes on in a new epoch.
func TestARestoredBackupForksAndIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 31)
		defer f.end()
		host := f.found("host", nil)
		m := f.join("node_1", 2, nil)
		f.until("both are whole", time.Minute, f.whole)
		first, err := m.sign(t, "first", 1)
		if err != nil {
			t.Fatal(err)
		}
		f.until("the first is heard", time.Minute, func() (bool, string) { return f.knows("first") })

		f.halt(m, false)
		backup := t.TempDir()
		copyTree(t, m.dir, backup)
		f.start(m)
		f.until("it is back", time.Minute, f.whole)
		for i := range 3 {
			if _, err := m.sign(t, fmt.Sprint("lost/", i), 1); err != nil {
				t.Fatal(err)
			}
		}
		f.until("the host knows what will be lost", time.Minute, func() (bool, string) { return f.knows("lost/2") })
		f.halt(m, true)

		if err := os.RemoveAll(m.dir); err != nil {
			t.Fatal(err)
		}
		copyTree(t, backup, m.dir)
		f.split(m, true)
		f.start(m)
		for i := range 3 {
			if r, err := m.sign(t, fmt.Sprint("again/", i), 1); err != nil || r.Log != first.Log {
				t.Fatalf("alone it appends to %s, %v; want the old epoch, or nothing forks", r.Log, err)
			}
		}
		f.split(m, false)
		took := f.until("all know both branches", 30*time.Second, func() (bool, string) {
			return f.knows("first", "lost/0", "lost/1", "lost/2", "again/0", "again/1", "again/2")
		})
		t.Logf("both branches are everywhere %v after the link's return", took)
		f.until("both see the fork", time.Minute, func() (bool, string) {
			for _, n := range f.nodes {
				if !n.agent.mesh.Catalog().Forked(m.agent.mesh.Self()) {
					return false, n.name
				}
			}
			return true, ""
		})
		r, err := m.sign(t, "later", 1)
		if err != nil || r.Log.Epoch <= first.Log.Epoch {
			t.Errorf("it goes on in epoch %x, %v; the forked one was %x", r.Log.Epoch, err, first.Log.Epoch)
		}
		f.until("what comes later is heard", time.Minute, func() (bool, string) { return f.knows("later") })
		for _, n := range []*simNode{host, m} {
			members, err := door{n.agent}.Members(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, item := range members {
				if item.Forked != (item.Name == "node_1") {
					t.Errorf("on %s, members says that %s is forked: %v", n.name, item.Name, item.Forked)
				}
			}
			if !n.hasTrouble(t, "fork", "node_1") {
				t.Errorf("the doctor of %s says nothing of the fork", n.name)
			}
		}
	})
}

func (m *simNode) hasTrouble(t *testing.T, check, subject string) bool {
	t.Helper()
	troubles, err := door{m.agent}.Doctor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range troubles {
		if tr.Check == check && tr.Subject == subject {
			return true
		}
	}
	return false
}

// A disk that was cloned and runs twice: what either signed stays, the mesh or the twins say what is wrong,
// and nobody spins.
func TestAClonedDiskIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 32)
		defer f.end()
		host := f.found("host", nil)
		m := f.join("node_1", 2, nil)
		f.until("both are whole", time.Minute, f.whole)
		f.halt(m, false)
		twin := f.machine("twin", 3)
		copyTree(t, m.dir, twin.dir)
		f.start(m)
		f.start(twin)
		var signed []string
		told := func() bool {
			id := m.agent.mesh.Self()
			return host.agent.mesh.Catalog().Forked(id) || m.agent.mesh.Catalog().Cloned() || twin.agent.mesh.Catalog().Cloned()
		}
		for i := 0; !told(); i++ {
			if i == 60 {
				t.Fatal("after an hour of two machines with one key nobody says so")
			}
			for _, n := range []*simNode{m, twin} {
				name := fmt.Sprint(n.name, "/", i)
				if _, err := n.sign(t, name, 1); err == nil {
					signed = append(signed, name)
				}
			}
			time.Sleep(time.Minute)
		}
		t.Logf("told after %d adverts of the two", len(signed))
		f.until("everybody tells it", time.Minute, func() (bool, string) {
			for _, n := range []*simNode{host, m, twin} {
				if !f.member(n, "node_1").Forked {
					return false, "members of " + n.name
				}
				if !n.hasTrouble(t, "clone", "node_1") && !n.hasTrouble(t, "fork", "node_1") {
					return false, "the doctor of " + n.name
				}
			}
			return true, ""
		})
		f.halt(twin, false)
		f.until("what both signed is known", 2*time.Minute, func() (bool, string) {
			for _, name := range signed {
				if !host.offers(name) || !m.offers(name) {
					return false, name
				}
			}
			return true, ""
		})
	})
}
