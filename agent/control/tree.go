package control

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Limits bound a tree that comes in. A zero field stands for the default.
type Limits struct {
	Entries int   // files, folders and links; default 1,048,576
	Bytes   int64 // of all files together; default 1 TiB
}

const (
	defaultEntries = 1 << 20
	defaultBytes   = 1 << 40
	maxDepth       = 64   // SPEC 7
	maxPathBytes   = 4096 // as Linux has it
)

// ScoreLimits bound the folder of a score (POLICY.md: 8 MiB a bundle).
func ScoreLimits() Limits { return Limits{Entries: 4096, Bytes: 8 << 20} }

// An entry is one checked header of a tree.
type entry struct {
	name string // slash-separated, inside the tree; "." is the tree itself
	kind byte   // tar.TypeReg, TypeDir or TypeSymlink
	perm fs.FileMode
	link string
	size int64
}

// Walk reads the tree in r and hands over each entry, in order: kind is that of its tar header (a plain file, a folder
// or a symbolic link), name slash-separated and inside the tree ("." for a tree that is a single file, and for the
// folder itself), body valid until each returns. What Unpack would refuse is refused, so is a stream that ends early,
// but by then each has seen what came before: only after nil is the tree whole.
func Walk(r io.Reader, lim Limits, each func(kind byte, name string, perm fs.FileMode, link string, body io.Reader) error) error {
	err := intake(r, lim, func(e entry, body io.Reader) error { return each(e.kind, e.name, e.perm, e.link, body) })
	if err != nil {
		return err
	}
	return toEnd(r)
}

// toEnd reads r to its end: what was cut short or failed at its very end is not whole.
func toEnd(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("read tree: %w", err)
	}
	return nil
}

// intake reads tar and hands over what is harmless, in order; the first entry that is not ends it. body is valid
// until each returns and holds exactly the entry's bytes.
func intake(r io.Reader, lim Limits, each func(e entry, body io.Reader) error) error {
	if lim.Entries == 0 {
		lim.Entries = defaultEntries
	}
	if lim.Bytes == 0 {
		lim.Bytes = defaultBytes
	}
	tr := tar.NewReader(r)
	spelled := map[string]string{} // lower case to the spelling seen first
	made := map[string]bool{}
	single := false
	var bytes int64
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tree: %w", err)
		}
		e, err := check(h)
		if err != nil {
			return err
		}
		lone := e.name == "." && e.kind == tar.TypeReg
		if single || (lone && len(made) > 0) {
			return fmt.Errorf("entry %q: a single file (\".\") stands alone", h.Name)
		}
		single = lone
		if made[e.name] {
			return fmt.Errorf("entry %q: there already is one of that name", h.Name)
		}
		if err := clash(spelled, e.name); err != nil {
			return err
		}
		if made[e.name] = true; len(made) > lim.Entries {
			return fmt.Errorf("tree has more than %d entries", lim.Entries)
		}
		if bytes += e.size; bytes > lim.Bytes || bytes < 0 {
			return fmt.Errorf("entry %q: tree is larger than %d bytes", h.Name, lim.Bytes)
		}
		if err := each(e, tr); err != nil {
			return fmt.Errorf("entry %q: %w", e.name, err)
		}
	}
}

// clash refuses two spellings of one path, of which some file systems keep only the last.
func clash(spelled map[string]string, name string) error {
	for p := name; p != "."; p = path.Dir(p) {
		low := strings.ToLower(p)
		if was, ok := spelled[low]; ok && was != p {
			return fmt.Errorf("entry %q: differs from %q only in case", p, was)
		} else if ok {
			return nil
		}
		spelled[low] = p
	}
	return nil
}

// check refuses every header that could write outside the tree or make more than plain files, folders and links.
func check(h *tar.Header) (entry, error) {
	refuse := func(why string) (entry, error) { return entry{}, fmt.Errorf("entry %q: %s", h.Name, why) }
	e := entry{name: strings.TrimPrefix(h.Name, "./"), kind: h.Typeflag, perm: fs.FileMode(h.Mode) & fs.ModePerm}
	if h.Typeflag == tar.TypeDir {
		e.name = strings.TrimSuffix(e.name, "/")
	}
	if e.name == "" {
		e.name = "."
	}
	switch {
	case !fs.ValidPath(e.name) || !filepath.IsLocal(filepath.FromSlash(e.name)) || strings.Contains(e.name, "\x00"):
		return refuse("the path leaves the tree or is not a path")
	case len(e.name) > maxPathBytes:
		return refuse(fmt.Sprintf("the path is longer than %d bytes", maxPathBytes))
	case strings.Count(e.name, "/") >= maxDepth:
		return refuse(fmt.Sprintf("deeper than %d folders", maxDepth))
	case h.Mode&0o7000 != 0:
		return refuse("setuid, setgid and sticky bits are not carried")
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return refuse("sparse files are not carried")
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		e.size = h.Size
	case tar.TypeDir:
	case tar.TypeSymlink:
		if e.name == "." {
			return refuse("the tree itself cannot be a link")
		}
		if !staysInside(e.name, h.Linkname) {
			return refuse(fmt.Sprintf("link to %q leaves the tree", h.Linkname))
		}
		e.link = h.Linkname
	default:
		return refuse(fmt.Sprintf("only files, folders and symbolic links are carried, not type %q", h.Typeflag))
	}
	return e, nil
}

// staysInside reports whether a link at name points into the tree, by its text alone.
func staysInside(name, target string) bool {
	return target != "" && !path.IsAbs(target) && !filepath.IsAbs(target) && !strings.Contains(target, "\x00") &&
		filepath.IsLocal(filepath.FromSlash(path.Join(path.Dir(name), target)))
}

// Files returns the files of a small tree by their slash-separated paths. It takes folders and plain files alone.
func Files(r io.Reader, lim Limits) (map[string][]byte, error) {
	files := map[string][]byte{}
	err := intake(r, lim, func(e entry, body io.Reader) error {
		switch {
		case e.kind == tar.TypeDir:
			return nil
		case e.kind == tar.TypeSymlink:
			return errors.New("is a link: a score holds plain files")
		case e.name == ".":
			return errors.New("is a file: a score is a folder")
		}
		b, err := io.ReadAll(body)
		files[e.name] = b
		return err
	})
	if err != nil {
		return nil, err
	}
	return files, nil
}

// Unpack makes dest, which may not exist, from tar: a folder, or a file where the tree is a single entry ".". It is
// made beside dest and renamed, so that after an error there is nothing. Modes are the tree's; times and owners are
// those of the one who unpacks. r is read to its end. Nothing is synced.
func Unpack(r io.Reader, dest string, lim Limits) (err error) {
	dest, err = filepath.Abs(dest)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(dest); err == nil {
		return fmt.Errorf("%q is there already: name another path, or remove it first", dest)
	}
	stage, err := os.MkdirTemp(filepath.Dir(dest), "."+filepath.Base(dest)+".meshd-*")
	if err != nil {
		return fmt.Errorf("make a place beside %q: %w", dest, err)
	}
	defer func() {
		if rmErr := os.RemoveAll(stage); err == nil {
			err = rmErr
		}
	}()
	root, err := os.OpenRoot(stage)
	if err != nil {
		return err
	}
	defer root.Close()
	return unpackIn(root, r, stage, dest, lim)
}

// unpackIn fills stage, which root has open, and moves what it made to dest.
func unpackIn(root *os.Root, r io.Reader, stage, dest string, lim Limits) error {
	const made = "made" // the tree's name while it is made
	if err := root.Mkdir(made, 0o700); err != nil {
		return err
	}
	tree, err := root.OpenRoot(made)
	if err != nil {
		return err
	}
	defer tree.Close()
	dirs, links := []entry{}, []entry{}
	single := false
	err = intake(r, lim, func(e entry, body io.Reader) error {
		switch {
		case e.kind == tar.TypeSymlink:
			links = append(links, e) // made last, so that nothing is ever written through one
			return nil
		case e.kind == tar.TypeDir:
			dirs = append(dirs, e)
			return tree.MkdirAll(e.name, 0o700)
		case e.name == ".":
			single = true
			return writeFile(root, "file", e, body)
		}
		if err := tree.MkdirAll(path.Dir(e.name), 0o700); err != nil {
			return err
		}
		return writeFile(tree, e.name, e, body)
	})
	if err != nil {
		return err
	}
	if err := toEnd(r); err != nil {
		return err
	}
	if single {
		return os.Rename(filepath.Join(stage, "file"), dest)
	}
	if err := makeLinks(tree, links); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(stage, made), dest); err != nil {
		return err
	}
	return setModes(tree, dirs)
}

func writeFile(root *os.Root, name string, e entry, body io.Reader) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, body); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(e.perm); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// makeLinks makes the links and then follows each: one that leaves the tree by way of another is refused too.
func makeLinks(tree *os.Root, links []entry) error {
	for _, e := range links {
		if err := tree.MkdirAll(path.Dir(e.name), 0o700); err != nil {
			return fmt.Errorf("entry %q: %w", e.name, err)
		}
		if err := tree.Symlink(e.link, e.name); err != nil {
			return fmt.Errorf("entry %q: %w", e.name, err)
		}
	}
	for _, e := range links {
		if _, err := tree.Stat(e.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("entry %q: link to %q: %w", e.name, e.link, err)
		}
	}
	return nil
}

// setModes gives the folders their modes, inner ones first, when nothing more is written into them.
func setModes(tree *os.Root, dirs []entry) error {
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := tree.Chmod(dirs[i].name, dirs[i].perm); err != nil {
			return fmt.Errorf("entry %q: %w", dirs[i].name, err)
		}
	}
	return nil
}
