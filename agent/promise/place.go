package promise

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A place is a path of the score, found out once: absolute, or below the work folder.
type place struct {
	work string // the work folder, when the path is relative; "" otherwise
	rel  string // path below work, cleaned; "." is work itself
	abs  string
}

// newPlace reads a path as the score has it. What leads out of the work folder by its name is refused
// here; what does by a symbolic link is refused when it is opened.
func newPlace(s Site, path string) (place, error) {
	switch {
	case path == "":
		return place{}, errors.New("the path is empty")
	case strings.ContainsRune(path, 0):
		return place{}, fmt.Errorf("path %q holds a NUL byte", path)
	case filepath.IsAbs(path):
		return place{abs: filepath.Clean(path)}, nil
	case !filepath.IsLocal(path):
		return place{}, fmt.Errorf("path %q leads out of the work folder: write an absolute path to mean a place outside", path)
	}
	rel := filepath.Clean(path)
	return place{work: s.Work, rel: rel, abs: filepath.Join(s.Work, rel)}, nil
}

// String is the path as people wrote it.
func (p place) String() string {
	if p.work == "" {
		return p.abs
	}
	return p.rel
}

// parent opens the folder that p lies in. Everything done through it stays in that folder, whatever is
// renamed or linked meanwhile. With create it is made, and those above it, when missing.
func (p place) parent(create bool) (dir *os.Root, name string, err error) {
	if p.work == "" {
		folder := filepath.Dir(p.abs)
		if create {
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return nil, "", err
			}
		}
		dir, err = os.OpenRoot(folder)
		return dir, filepath.Base(p.abs), err
	}
	if create {
		if err := os.MkdirAll(p.work, 0o700); err != nil {
			return nil, "", err
		}
	}
	root, err := os.OpenRoot(p.work)
	if err != nil {
		return nil, "", err
	}
	folder := filepath.Dir(p.rel)
	if folder == "." {
		return root, p.rel, nil
	}
	defer root.Close()
	if create {
		if err := root.MkdirAll(folder, 0o755); err != nil {
			return nil, "", outside(err, p)
		}
	}
	dir, err = root.OpenRoot(folder)
	return dir, filepath.Base(p.rel), outside(err, p)
}

// outside says plainly what os.Root means by "path escapes from parent".
func outside(err error, p place) error {
	if err != nil && strings.Contains(err.Error(), "escapes") {
		return fmt.Errorf("%s: a symbolic link on the way leads out of the work folder: remove it, or promise an absolute path (%w)", p, err)
	}
	return err
}

// lstat looks at p without following its last step.
func (p place) lstat() (fs.FileInfo, error) {
	dir, name, err := p.parent(false)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.Lstat(name)
}

// openFile opens the plain file name in dir for reading. A fifo or a device is refused, never waited for.
func openFile(dir *os.Root, name string) (*os.File, fs.FileInfo, error) {
	f, err := dir.OpenFile(name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is %s, not a file", filepath.Join(dir.Name(), name), kindOf(info))
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// kindOf names what lies at a path, for people.
func kindOf(info fs.FileInfo) string {
	switch m := info.Mode(); {
	case m.IsRegular():
		return "a file"
	case m.IsDir():
		return "a folder"
	case m&fs.ModeSymlink != 0:
		return "a symbolic link"
	}
	return "a special file"
}

// syncDir makes renames in dir outlast a power cut.
func syncDir(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return syncFolder(d)
}

// shortHash is the first 16 hexadecimal digits of b's SHA-256: for names, not for trust.
func shortHash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// open opens what lies at p for reading, following links as far as they stay where they may. The error
// is a WaitingError when nothing is there.
func (p place) open() (*os.File, fs.FileInfo, error) {
	dir, name := filepath.Dir(p.abs), filepath.Base(p.abs)
	if p.work != "" {
		dir, name = p.work, p.rel
	} else if real, err := filepath.EvalSymlinks(p.abs); err == nil {
		dir, name = filepath.Dir(real), filepath.Base(real)
	}
	root, err := os.OpenRoot(dir)
	if err == nil {
		defer root.Close()
		var f *os.File
		var info fs.FileInfo
		if f, info, err = openFile(root, name); err == nil {
			return f, info, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, &WaitingError{For: p.String()}
	}
	return nil, nil, outside(err, p)
}
