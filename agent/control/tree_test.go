package control

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tarOf writes entries as they are, wicked ones too. A regular file's bytes are its name.
func tarOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range entries {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, h.Name); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// listing tells a tree by name, mode and content.
func listing(t *testing.T, root string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(b)
		case info.Mode()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " -> " + to
		}
		found[name] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestTreeComesOutAsItWentIn(t *testing.T) {
	src := filepath.Join(t.TempDir(), "src")
	for _, dir := range []string{"", "empty", "closed", "a/b"} {
		if err := os.MkdirAll(filepath.Join(src, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]fs.FileMode{"run.sh": 0o755, "a/b/secret": 0o600, "closed/f": 0o444} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"a/up": "../run.sh", "dangling": "a/none"} {
		if err := os.Symlink(to, filepath.Join(src, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(src, "closed"), 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(src, "closed"), 0o755) })
	for name, from := range map[string]string{"a folder": src, "a file": filepath.Join(src, "run.sh")} {
		t.Run(name, func(t *testing.T) {
			var packed, again bytes.Buffer
			if err := Pack(&packed, from, nil); err != nil {
				t.Fatal(err)
			}
			parent := t.TempDir()
			dest := filepath.Join(parent, "dest")
			if err := Unpack(bytes.NewReader(packed.Bytes()), dest, Limits{}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod(filepath.Join(dest, "closed"), 0o755) })
			if diff := cmp.Diff(listing(t, from), listing(t, dest)); diff != "" {
				t.Error(diff)
			}
			if err := Pack(&again, dest, nil); err != nil || !bytes.Equal(packed.Bytes(), again.Bytes()) {
				t.Errorf("packed again it is not the same bytes (%v)", err)
			}
			if left, err := os.ReadDir(parent); err != nil || len(left) != 1 {
				t.Errorf("beside it: %v %v", left, err)
			}
		})
	}
}

func TestWickedTreesAreRefusedAndLeaveNothing(t *testing.T) {
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	dir := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	file := func(name string) tar.Header { return tar.Header{Name: name} }
	tests := []struct {
		name    string
		entries []tar.Header
		want    string
	}{
		{"parent", []tar.Header{file("../x")}, "leaves the tree"},
		{"parent inside", []tar.Header{file("a/../../x")}, "leaves the tree"},
		{"unclean", []tar.Header{file("a//b")}, "leaves the tree or is not a path"},
		{"absolute", []tar.Header{file("/etc/x")}, "leaves the tree"},
		{"absolute link", []tar.Header{link("a", "/etc")}, `link to "/etc" leaves`},
		{"link up", []tar.Header{link("a/b", "../../x")}, "leaves the tree"},
		{"link up by a link", []tar.Header{dir("d"), link("d/e", ".."), link("x", "d/e/../..")}, "escapes"},
		{"link to a link that stays", []tar.Header{dir("d"), dir("d/d"), link("d/d/e", ".."), link("x", "d/d/e/../d")}, ""},
		{"link to itself", []tar.Header{link("a", "a")}, `entry "a"`},
		{"through a link", []tar.Header{dir("d"), link("l", "d"), file("l/x")}, "exists"},
		{"link over a file", []tar.Header{file("a"), link("a", "b")}, "there already is one"},
		{"twice", []tar.Header{file("a"), file("a")}, "there already is one"},
		{"case", []tar.Header{file("a/x"), file("A/y")}, "only in case"},
		{"file as a folder", []tar.Header{file("a"), file("a/b")}, `entry "a/b"`},
		{"hard link", []tar.Header{file("a"), {Name: "b", Typeflag: tar.TypeLink, Linkname: "a"}}, "not type"},
		{"device", []tar.Header{{Name: "b", Typeflag: tar.TypeChar}}, "not type"},
		{"fifo", []tar.Header{{Name: "b", Typeflag: tar.TypeFifo}}, "not type"},
		{"setuid", []tar.Header{{Name: "b", Mode: 0o4755}}, "setuid"},
		{"deep", []tar.Header{file(strings.Repeat("a/", 64) + "x")}, "deeper than 64"},
		{"long", []tar.Header{file(strings.Repeat("a", 4097))}, "longer than 4096"},
		{"a file and more", []tar.Header{file("."), file("a")}, "stands alone"},
		{"more and a file", []tar.Header{file("a"), file(".")}, "stands alone"},
		{"many", []tar.Header{file("a"), file("b"), file("c"), file("d"), file("e")}, "more than 4 entries"},
		{"big", []tar.Header{file(strings.Repeat("b", 60)), file(strings.Repeat("c", 60))}, "larger than 100 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			parent := t.TempDir()
			err := Unpack(bytes.NewReader(tarOf(t, tt.entries...)), filepath.Join(parent, "dest"), Limits{Entries: 4, Bytes: 100})
			if tt.want == "" {
				if err != nil {
					t.Errorf("a harmless tree was refused: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

func TestUnpackReplacesNothingAndPlacesNothingCutShort(t *testing.T) {
	parent := t.TempDir()
	dest := filepath.Join(parent, "dest")
	whole := tarOf(t, tar.Header{Name: "a"}, tar.Header{Name: "b"})
	for cut := range len(whole) / 512 {
		err := Unpack(io.MultiReader(bytes.NewReader(whole[:cut*512]), failing{}), dest, Limits{})
		if err == nil {
			t.Fatalf("cut after %d blocks it was taken", cut)
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
			t.Fatalf("cut after %d blocks: left behind %v %v", cut, left, err)
		}
	}
	if err := os.WriteFile(dest, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Unpack(bytes.NewReader(whole), dest, Limits{}); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("over a file: %v", err)
	}
	if b, err := os.ReadFile(dest); string(b) != "mine" {
		t.Errorf("the file is now %q (%v)", b, err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestPackRefusesWhatWouldBeRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("../out", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	if err := Pack(io.Discard, dir, nil); err == nil || !strings.Contains(err.Error(), "leaves the folder") {
		t.Errorf("escaping link: %v", err)
	}
	if err := Pack(io.Discard, dir, func(name string) bool { return name == "l" }); err != nil {
		t.Errorf("without it: %v", err)
	}
	if err := Pack(io.Discard, filepath.Join(dir, "none"), nil); err == nil {
		t.Error("nothing was packed")
	}
	if err := Pack(io.Discard, os.DevNull, nil); err == nil {
		t.Error("a device was packed")
	}
}

func TestScoreIsAFolderOfPlainFiles(t *testing.T) {
	got, err := Files(bytes.NewReader(tarOf(t, tar.Header{Name: "d", Typeflag: tar.TypeDir}, tar.Header{Name: "d/a.txt"}, tar.Header{Name: "s.hcl"})), ScoreLimits())
	if diff := cmp.Diff(map[string][]byte{"d/a.txt": []byte("d/a.txt"), "s.hcl": []byte("s.hcl")}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for _, bad := range []tar.Header{{Name: "."}, {Name: "l", Typeflag: tar.TypeSymlink, Linkname: "s.hcl"}, {Name: "../s.hcl"}} {
		if got, err := Files(bytes.NewReader(tarOf(t, bad)), ScoreLimits()); err == nil || got != nil {
			t.Errorf("%q was taken", bad.Name)
		}
	}
}

// Whatever comes in, nothing is written outside the tree and no link in it leads out.
func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, tar.Header{Name: "a/b"}, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "a"}))
	f.Add(tarOf(f, tar.Header{Name: "."}))
	f.Add(tarOf(f, tar.Header{Name: "../x"}))
	f.Add(tarOf(f, tar.Header{Name: "d/e", Typeflag: tar.TypeSymlink, Linkname: ".."}, tar.Header{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "d/e/../.."}))
	f.Fuzz(func(t *testing.T, in []byte) {
		parent := t.TempDir()
		dest := filepath.Join(parent, "p", "dest")
		if err := os.Mkdir(filepath.Dir(dest), 0o700); err != nil {
			t.Fatal(err)
		}
		err := Unpack(bytes.NewReader(in), dest, Limits{Entries: 100, Bytes: 1 << 20})
		outside, readErr := os.ReadDir(parent)
		beside, besideErr := os.ReadDir(filepath.Dir(dest))
		if readErr != nil || besideErr != nil || len(outside) != 1 || len(beside) > 1 || (err != nil && len(beside) > 0) {
			t.Fatalf("outside %v, beside %v, unpack error %v", outside, beside, err)
		}
		if err != nil || len(beside) == 0 || !beside[0].IsDir() {
			return
		}
		root, err := filepath.EvalSymlinks(dest)
		if err != nil {
			t.Fatal(err)
		}
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if real, evalErr := filepath.EvalSymlinks(path); err == nil && evalErr == nil && real != root && !strings.HasPrefix(real, root+"/") {
				t.Fatalf("%s leads to %s", path, real)
			}
			return nil // a folder whose mode forbids reading is no way out
		})
	})
}
