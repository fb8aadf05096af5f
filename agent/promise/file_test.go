//go:build unix

package promise

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"meshd/policies"
)

func TestFileContent(t *testing.T) {
	tests := []struct {
		name   string
		before map[string]string // in the work folder
		spec   policies.File
		want   string
	}{
		{"made with the folders above", nil, policies.File{Path: "feeds/a/x", Content: ptr("hello")}, "hello"},
		{"empty content", nil, policies.File{Path: "x", Content: ptr("")}, ""},
		{"damage undone", map[string]string{"x": "damaged"}, policies.File{Path: "x", Content: ptr("hello")}, "hello"},
		{"only present", map[string]string{"x": "as it is"}, policies.File{Path: "x"}, "as it is"},
		{"only present, made empty", nil, policies.File{Path: "x", State: "present"}, ""},
		{"copied", map[string]string{"src": "from here"}, policies.File{Path: "x", Copy: "src"}, "from here"},
		{
			"lines come last, computed from the source and not from what is there",
			map[string]string{"src": "job two\n", "x": "job one\npostcard\n"},
			policies.File{Path: "x", Copy: "src", Lines: &policies.Lines{Present: []string{"postcard"}}},
			"job two\npostcard\n",
		},
		{
			"lines alone leave the rest",
			map[string]string{"x": "mine\n"},
			policies.File{Path: "x", Lines: &policies.Lines{Present: []string{"theirs"}}},
			"mine\ntheirs\n",
		},
		{"lines alone make the file", nil, policies.File{Path: "x", Lines: &policies.Lines{Present: []string{"a"}}}, "a\n"},
		{
			"content with lines", nil,
			policies.File{Path: "x", Content: ptr("a\nb\n"), Lines: &policies.Lines{Absent: []string{"a"}}},
			"b\n",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, nil)
			for name, text := range tt.before {
				write(t, filepath.Join(s.Work, name), text)
			}
			k := keeper(t, s, tt.spec)
			keep(t, k)
			path := filepath.Join(s.Work, tt.spec.Path)
			if got := read(t, path); got != tt.want {
				t.Errorf("it holds %q, want %q", got, tt.want)
			}
			for range 2 {
				if keep(t, k) {
					t.Error("repaired again with nothing changed")
				}
			}
			for _, name := range names(t, filepath.Dir(path)) {
				if strings.HasPrefix(name, ".") {
					t.Errorf("litter: %s", name)
				}
			}
			if f := keeper(t, s, tt.spec); keep(t, f) {
				t.Error("repaired again by a keeper that starts anew")
			}
		})
	}
}

func TestFileSeesEveryKindOfDamage(t *testing.T) {
	s := newSite(t, nil)
	path := filepath.Join(s.Work, "x")
	k := keeper(t, s, policies.File{Path: "x", Content: ptr("hello"), Mode: "0640"})
	keep(t, k)
	damages := map[string]func() error{
		"other bytes, same size": func() error { return os.WriteFile(path, []byte("HELLO"), 0) },
		"removed":                func() error { return os.Remove(path) },
		"chmod":                  func() error { return os.Chmod(path, 0o777) },
		"truncated":              func() error { return os.Truncate(path, 0) },
		"a link in its place": func() error {
			return os.Rename(mustLink(t, filepath.Join(s.Work, "target"), path+".new"), path)
		},
		"another renamed over it": func() error {
			write(t, path+".new", "other")
			return os.Rename(path+".new", path)
		},
	}
	for name, damage := range damages {
		for range 3 { // also right after a repair, in the same tick of the file clock
			if err := damage(); err != nil {
				t.Fatal(name, err)
			}
			if !keep(t, k) {
				t.Errorf("%s: not seen", name)
			}
			info, err := os.Lstat(path)
			if err != nil || info.Mode() != 0o640 || read(t, path) != "hello" {
				t.Errorf("%s: left as %v, %q (%v)", name, info.Mode(), read(t, path), err)
			}
		}
	}
}

func mustLink(t *testing.T, target, link string) string {
	t.Helper()
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	return link
}

func TestFileMode(t *testing.T) {
	tests := []struct {
		name, mode string
		before     os.FileMode // 0: no file
		copy       os.FileMode // 0: content
		want       os.FileMode
	}{
		{"created", "", 0, 0, 0o644},
		{"created as promised", "0600", 0, 0, 0o600},
		{"unchanged", "", 0o755, 0, 0o755},
		{"changed", "750", 0o644, 0, 0o750},
		{"the source's", "", 0, 0o711, 0o711},
		{"the source's, for a file that was there", "", 0o600, 0o711, 0o711},
		{"setuid", "4755", 0, 0, os.ModeSetuid | 0o755},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, nil)
			path, src := filepath.Join(s.Work, "x"), filepath.Join(s.Work, "src")
			spec := policies.File{Path: "x", Mode: tt.mode, Content: ptr("new")}
			if tt.copy != 0 {
				write(t, src, "new")
				if err := os.Chmod(src, tt.copy); err != nil {
					t.Fatal(err)
				}
				spec.Content, spec.Copy = nil, "src"
			}
			if tt.before != 0 {
				write(t, path, "old")
				if err := os.Chmod(path, tt.before); err != nil {
					t.Fatal(err)
				}
			}
			k := keeper(t, s, spec)
			keep(t, k)
			info, err := os.Stat(path)
			if err != nil || info.Mode() != tt.want {
				t.Errorf("mode %v, want %v (%v)", info.Mode(), tt.want, err)
			}
		})
	}
}

func TestFileKeepsTheOwnerItFinds(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: gives a file to another user")
	}
	s := newSite(t, nil)
	path := filepath.Join(s.Work, "x")
	write(t, path, "old")
	if err := os.Chown(path, 12, 34); err != nil {
		t.Fatal(err)
	}
	keep(t, keeper(t, s, policies.File{Path: "x", Content: ptr("new")}))
	info, _ := os.Stat(path)
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 12 || st.Gid != 34 {
		t.Errorf("owner is now %d:%d", st.Uid, st.Gid)
	}
	keep(t, keeper(t, s, policies.File{Path: "x", Content: ptr("new"), Owner: "root", Group: "7"}))
	info, _ = os.Stat(path)
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 0 || st.Gid != 7 {
		t.Errorf("owner is now %d:%d, promised root:7", st.Uid, st.Gid)
	}
}

func TestFileRefuses(t *testing.T) {
	outside := t.TempDir()
	write(t, filepath.Join(outside, "secret"), "secret")
	tests := []struct {
		name string
		spec policies.File
		want string // in the error of New, Check or Repair
	}{
		{"..", policies.File{Path: "../x", Content: ptr("")}, "leads out"},
		{".. within", policies.File{Path: "a/../../x", Content: ptr("")}, "leads out"},
		{"NUL", policies.File{Path: "a\x00b", Content: ptr("")}, "NUL"},
		{"the work folder", policies.File{Path: ".", State: "absent"}, "whole tree"},
		{"the root", policies.File{Path: "/", State: "absent"}, "whole tree"},
		{"a link that leads out on the way", policies.File{Path: "out/x", Content: ptr("")}, "leads out"},
		{"a copy through a link that leads out", policies.File{Path: "x", Copy: "out/secret"}, "leads out"},
		{"a link that leads out as the source", policies.File{Path: "x", Copy: "link"}, "leads out"},
		{"edit through a link", policies.File{Path: "link", Lines: &policies.Lines{Present: []string{"x"}}}, "symbolic link"},
		{"a folder in the way", policies.File{Path: "folder", Content: ptr("")}, "folder"},
		{"a fifo in the way", policies.File{Path: "fifo", Content: ptr("")}, "special file"},
		{"a fifo as the source", policies.File{Path: "x", Copy: "fifo"}, "special file"},
		{"a file in place of a folder", policies.File{Path: "file", State: "dir"}, "not a folder"},
		{"mode", policies.File{Path: "x", Mode: "rwx"}, "octal"},
		{"owner", policies.File{Path: "file", Owner: "nobody-of-this-name"}, "not known"},
		{"absent folder that is not empty", policies.File{Path: "folder", State: "absent"}, "not empty"},
		{"copy of itself", policies.File{Path: "x", Copy: "./x"}, "itself"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, nil)
			write(t, filepath.Join(s.Work, "folder", "inside"), "inside")
			write(t, filepath.Join(s.Work, "file"), "file")
			mustLink(t, outside, filepath.Join(s.Work, "out"))
			mustLink(t, filepath.Join(outside, "secret"), filepath.Join(s.Work, "link"))
			if err := syscall.Mkfifo(filepath.Join(s.Work, "fifo"), 0o600); err != nil {
				t.Fatal(err)
			}
			k, err := New(promiseOf(tt.spec), s)
			if err == nil {
				_, err = k.Check(context.Background())
			}
			if err == nil {
				_, err = k.Repair(context.Background())
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one about %q", err, tt.want)
			}
			if got := names(t, outside); !slices.Equal(got, []string{"secret"}) {
				t.Errorf("outside are now %v", got)
			}
			if read(t, filepath.Join(outside, "secret")) != "secret" || read(t, filepath.Join(s.Work, "folder", "inside")) != "inside" {
				t.Error("something was changed")
			}
		})
	}
}

func TestFileWaitsForItsSourceByName(t *testing.T) {
	s := newSite(t, nil)
	k := keeper(t, s, policies.File{Path: "x", Copy: "in/job.txt"})
	_, err := k.Check(context.Background())
	if !waiting(err) || !strings.Contains(err.Error(), "in/job.txt") {
		t.Errorf("error %v", err)
	}
	write(t, filepath.Join(s.Work, "in/job.txt"), "job")
	keep(t, k)
	write(t, filepath.Join(s.Work, "in/job.txt"), "job 2")
	if !keep(t, k) || read(t, filepath.Join(s.Work, "x")) != "job 2" {
		t.Error("a new source made no new copy")
	}
}

func TestFileAbsentAndDir(t *testing.T) {
	s := newSite(t, nil)
	at := func(name string) string { return filepath.Join(s.Work, name) }
	write(t, at("x"), "x")
	for _, spec := range []policies.File{{Path: "x", State: "absent"}, {Path: "no/such/folder", State: "absent"}} {
		k := keeper(t, s, spec)
		keep(t, k)
		if _, err := os.Lstat(at(spec.Path)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", spec.Path, err)
		}
	}
	d := keeper(t, s, policies.File{Path: "a/b", State: "dir", Mode: "0700"})
	keep(t, d)
	if err := os.Chmod(at("a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if !keep(t, d) {
		t.Error("the mode of a folder was not seen to change")
	}
	keep(t, keeper(t, s, policies.File{Path: "a/b", State: "absent"}))
}

func TestFileTree(t *testing.T) {
	s := newSite(t, nil)
	write(t, filepath.Join(s.Work, "t/extra/deep"), "extra")
	spec := policies.File{Path: "t", Tree: map[string]string{"a": "A", "b/c": "C"}}
	k := keeper(t, s, spec)
	keep(t, k)
	if read(t, filepath.Join(s.Work, "t/b/c")) != "C" || read(t, filepath.Join(s.Work, "t/extra/deep")) != "extra" {
		t.Error("the tree is not as promised, or more than it was touched")
	}
	spec.Purge = true
	k = keeper(t, s, spec)
	if !keep(t, k) || !slices.Equal(names(t, filepath.Join(s.Work, "t")), []string{"a", "b"}) {
		t.Errorf("purge left %v", names(t, filepath.Join(s.Work, "t")))
	}
	write(t, filepath.Join(s.Work, "t/b/c"), "damaged")
	if !keep(t, k) || read(t, filepath.Join(s.Work, "t/b/c")) != "C" {
		t.Error("damage in a tree was not repaired")
	}
	if _, err := New(promiseOf(policies.File{Path: "t", Tree: map[string]string{"../x": ""}}), s); err == nil {
		t.Error("a tree may leave its folder")
	}
}

func TestFileValidateStandsBeforeThePlace(t *testing.T) {
	s := newSite(t, realHost(t))
	path := filepath.Join(s.Work, "conf")
	write(t, path, "good 1")
	spec := policies.File{Path: "conf", Content: ptr("bad"), Validate: []string{"grep", "-q", "^good"}}
	k := keeper(t, s, spec)
	if _, err := k.Repair(context.Background()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v", err)
	}
	if read(t, path) != "good 1" || len(names(t, s.Work)) != 1 {
		t.Errorf("left %q among %v", read(t, path), names(t, s.Work))
	}
	spec.Content = ptr("good 2")
	keep(t, keeper(t, s, spec))
}

// A stray half of a write, as kill -9 leaves it, is taken away by the next repair.
func TestFileLeavesNoLitterOfAnEarlierTry(t *testing.T) {
	s := newSite(t, nil)
	k := keeper(t, s, policies.File{Path: "x", Content: ptr("hello")}).(*fileKeeper)
	stray := filepath.Join(s.Work, asidePrefix+shortHash([]byte(string(k.address)+"\x00"+k.at.abs)))
	write(t, stray, "hel")
	keep(t, k)
	if got := names(t, s.Work); !slices.Equal(got, []string{"x"}) {
		t.Errorf("left %v", got)
	}
}

// Whoever swaps the folder for a link that leads out, at any moment, gets nothing written there.
func TestFileRacedByASymlinkStaysInside(t *testing.T) {
	s := newSite(t, nil)
	outside := t.TempDir()
	folder, aside := filepath.Join(s.Work, "f"), filepath.Join(s.Work, "aside")
	k := keeper(t, s, policies.File{Path: "f/x", Content: ptr("hello")})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Rename(folder, aside)
			_ = os.Symlink(outside, folder)
			_ = os.Remove(folder)
			_ = os.Rename(aside, folder)
		}
	})
	done := 0
	for range 300 {
		_ = os.Remove(filepath.Join(folder, "x"))
		if _, err := k.Repair(context.Background()); err == nil {
			done++
		}
	}
	close(stop)
	wg.Wait()
	if got := names(t, outside); len(got) != 0 {
		t.Errorf("written outside: %v", got)
	}
	t.Logf("%d of 300 repairs went through", done)
}

func TestFileEndsSoonWithItsContext(t *testing.T) {
	s := newSite(t, nil)
	write(t, filepath.Join(s.Work, "src"), strings.Repeat("x", 1<<20))
	k := keeper(t, s, policies.File{Path: "x", Copy: "src"})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := k.Repair(ctx); err == nil {
		t.Error("no error")
	}
	if got := names(t, s.Work); !slices.Equal(got, []string{"src"}) {
		t.Errorf("left %v", got)
	}
}
