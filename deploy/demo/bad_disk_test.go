package demo

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"meshd/agent/control"
)

// blobScore has the others want what the host publishes by hand.
const blobScore = `score "good" {
  version  = "1.0.0"
  language = 1
}
part "p" {
  file "kept" {
    path    = "kept.txt"
    content = "kept\n"
  }
}
role "reader" { when = tag.reader == "yes" }
part "q" {
  role = "reader"
  want "blob" {
    name  = "blob"
    place = "blob"
  }
}
`

// whole waits until the file holds exactly want; what it holds before that must be whole as well.
func whole(t *testing.T, path string, want []byte, before ...[]byte) time.Duration {
	t.Helper()
	return eventually(t, path+" is whole", func() (bool, string) {
		b, err := os.ReadFile(path)
		if err != nil {
			return false, err.Error()
		}
		for _, old := range before {
			if bytes.Equal(b, old) {
				return false, "it holds what it held before"
			}
		}
		if !bytes.Equal(b, want) {
			t.Fatalf("%s holds %d bytes that are neither old nor new", path, len(b))
		}
		return true, ""
	})
}

// spoil overwrites every thousandth byte of a file from some offset on.
func spoil(t *testing.T, path string, from int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := from; i < len(b); i += 1000 {
		b[i] ^= 0xff
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func cut(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

// overwrite replaces the whole content of a file by noise of the same size.
func overwrite(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, noise(int(info.Size())), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestADamagedStoreIsRefilledFromPeers(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", blobScore)
	reader := f.join("reader", "reader=yes")
	blob := noise(1 << 20)
	path := filepath.Join(f.dir, "blob")
	if err := os.WriteFile(path, blob, 0o644); err != nil {
		t.Fatal(err)
	}
	host.ctl("publish", "blob", path)
	whole(t, reader.work("blob"), blob)
	state, pack := filepath.Join(reader.dir, "state.db"), filepath.Join(reader.dir, "packs", "00000001.pack")
	info, err := os.Stat(state)
	if err != nil {
		t.Fatal(err)
	}
	size := info.Size()
	aside := 0
	tests := []struct {
		name  string
		spoil func()
		aside bool // state.db must be set aside
	}{
		{"state.db cut to 10 bytes", func() { cut(t, state, 10) }, true},
		{"state.db cut to one page", func() { cut(t, state, 4096) }, true},
		{"state.db cut to three pages", func() { cut(t, state, 3*4096) }, true},
		{"state.db cut to half a page more", func() { cut(t, state, min(size, 5*4096+2048)) }, true},
		{"state.db overwritten with garbage", func() { overwrite(t, state) }, true},
		{"a pack with flipped bytes", func() { spoil(t, pack, 10) }, false},
		{"a pack cut short", func() { cut(t, pack, 300_000) }, false},
		{"a pack lost", func() {
			if err := os.RemoveAll(filepath.Join(reader.dir, "packs")); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"the text of the peer book lost", func() {
			if err := os.Remove(filepath.Join(reader.dir, "peers")); err != nil {
				t.Fatal(err)
			}
		}, false},
		{"the peer book lost whole", func() {
			cut(t, state, 5000)
			if err := os.WriteFile(filepath.Join(reader.dir, "peers"), noise(5000), 0o600); err != nil {
				t.Fatal(err)
			}
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reader.stop()
			tt.spoil()
			if err := errors.Join(os.Remove(reader.work("blob")), os.Remove(reader.work("kept.txt"))); err != nil {
				t.Fatal(err)
			}
			reader.start()
			took := whole(t, reader.work("blob"), blob)
			holds(t, reader.work("kept.txt"), "kept")
			host.alive(2)
			reader.alive(2)
			t.Logf("whole again %v after the node answered", round(took))
			if tt.aside {
				aside++
				if said := reader.proc.Tail(); !strings.Contains(said, "set aside") {
					t.Errorf("the log does not tell what was set aside:\n%s", said)
				}
			}
			if kept, err := filepath.Glob(state + ".broken-*"); err != nil || len(kept) != aside {
				t.Errorf("%d files were set aside, want %d: %v, %v", len(kept), aside, kept, err)
			}
		})
	}
	f.settled("blob", "score")
	// It goes on in an epoch of its own: what it publishes now is heard, and damaged bytes do not come back.
	note := filepath.Join(f.dir, "note")
	if err := os.WriteFile(note, []byte("still here"), 0o644); err != nil {
		t.Fatal(err)
	}
	reader.ctl("publish", "note", note)
	eventually(t, "host hears of it", func() (bool, string) { return host.offered("note").Publisher == "reader", "not yet" })
}

// The one that set the score loses its store: the mesh gives it all back, and it gives out no version twice.
func TestAFounderThatLostItsStoreGoesOn(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", blobScore)
	reader := f.join("reader", "reader=yes")
	path := filepath.Join(f.dir, "blob")
	put := func(blob []byte) control.Artifact {
		t.Helper()
		if err := os.WriteFile(path, blob, 0o644); err != nil {
			t.Fatal(err)
		}
		return items[control.Artifact](host, "publish", "blob", path)[0]
	}
	first := noise(300_000)
	put(first)
	whole(t, reader.work("blob"), first)
	host.kill()
	overwrite(t, filepath.Join(host.dir, "state.db"))
	host.start()
	eventually(t, "host plays the score again", func() (bool, string) {
		list, err := host.door().Promises(t.Context(), "", "", false)
		return err == nil && len(list) == 1, "no promises yet"
	})
	second := noise(300_000)
	if a := put(second); a.Counter != 2 {
		t.Errorf("after version 1 of its former life the next one is %d", a.Counter)
	}
	whole(t, reader.work("blob"), second, first)
	f.settled("blob", "score")
}

// A disk that fills: what does not fit fails clearly, files are whole or absent, and all works again when
// there is room.
func TestAFullDiskFailsClearlyAndRecovers(t *testing.T) {
	f := newFleet(t)
	host := f.found("host", blobScore)
	reader := f.invited("reader", "reader=yes")
	mountSmall(t, reader.dir, 16<<20)
	reader.start()
	reader.alive(2)
	holds(t, reader.work("kept.txt"), "kept")

	filler := filepath.Join(reader.dir, "filler")
	fill(t, filler)
	path := filepath.Join(f.dir, "blob")
	first := noise(3 << 20)
	if err := os.WriteFile(path, first, 0o644); err != nil {
		t.Fatal(err)
	}
	f.refused(codeFailed, []string{"no space"}, "meshctl", "--data-dir", reader.dir, "publish", "mine", path)
	reader.alive(2)
	info, err := os.Stat(filler)
	if err != nil {
		t.Fatal(err)
	}
	cut(t, filler, info.Size()-1<<20) // room to hear of the blob, and not for its bytes
	host.ctl("publish", "blob", path)
	eventually(t, "the want tells of the full disk", func() (bool, string) {
		p := reader.promise("q.want.blob")
		return (p.Outcome == "failed" || p.Outcome == "waiting") && (strings.Contains(p.Reason, "no space") || strings.Contains(p.Reason, "no room")), p.Outcome + ": " + p.Reason
	})
	if b, err := os.ReadFile(reader.work("blob")); err == nil {
		t.Errorf("on a full disk there are %d bytes of the blob", len(b))
	}
	if p := reader.promise("p.file.kept"); p.Outcome != "kept" && p.Outcome != "repaired" {
		t.Errorf("p.file.kept is %s: %s", p.Outcome, p.Reason)
	}
	host.alive(2)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node takes up its work when told to", func() (bool, string) {
		_ = reader.door().Retry(t.Context(), "q.want.blob")
		b, err := os.ReadFile(reader.work("blob"))
		if err == nil && !bytes.Equal(b, first) {
			t.Fatalf("the blob has %d bytes that are not it", len(b))
		}
		return err == nil, reader.promise("q.want.blob").Reason
	})
	reader.ctl("publish", "mine", path)
	eventually(t, "host hears of it", func() (bool, string) { return host.offered("mine").Publisher == "reader", "not yet" })
	f.settled("blob", "mine", "score")
	reader.stop()
	reader.start()
	whole(t, reader.work("blob"), first)
}

// fill writes to the file until the disk has no room.
func fill(t *testing.T, path string) {
	t.Helper()
	w, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	junk := noise(64 << 10)
	for err == nil {
		_, err = w.Write(junk)
	}
	if !strings.Contains(err.Error(), "space") {
		t.Fatal(err)
	}
	for err = nil; err == nil; {
		_, err = w.Write(junk[:1])
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
