package control

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Pack writes the file or folder at path to w as tar that Unpack and Files take: names, permissions, bytes, links; no
// times and no owners, so that equal trees are equal bytes. A single file is one entry named ".". Names in the folder
// for which skip (may be nil) is true are left out, folders with all they hold. What the other side would refuse is
// refused here, by name.
func Pack(w io.Writer, path string, skip func(name string) bool) error {
	out := bufio.NewWriterSize(w, packBuffer)
	if err := pack(out, path, skip); err != nil {
		return err
	}
	return out.Flush()
}

// packBuffer gathers small files: each write costs whoever reads at the other end of a pipe or a socket.
const packBuffer = 256 << 10

func pack(w io.Writer, path string, skip func(name string) bool) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	if !info.IsDir() {
		if err := packSingle(tw, path, info); err != nil {
			return fmt.Errorf("pack %q: %w", path, err)
		}
		return tw.Close()
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != "." && skip != nil && skip(name):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if err := packEntry(tw, root, name, d); err != nil {
			return fmt.Errorf("pack %q: %w", filepath.Join(path, name), err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

func packSingle(tw *tar.Writer, path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return errors.New("neither a file nor a folder")
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return packFile(tw, ".", f)
}

func packEntry(tw *tar.Writer, root *os.Root, name string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	switch {
	case d.IsDir():
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: int64(info.Mode().Perm())})
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		if _, err := root.Stat(name); !staysInside(name, filepath.ToSlash(target)) || (err != nil && !errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("link to %q leaves the folder: put a copy in its place", target)
		}
		return tw.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: filepath.ToSlash(target), Mode: 0o777})
	case !info.Mode().IsRegular():
		return errors.New("neither file, folder nor symbolic link")
	}
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return packFile(tw, name, f)
}

func packFile(tw *tar.Writer, name string, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 {
		return errors.New("setuid, setgid and sticky bits are not carried: take them off")
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: int64(info.Mode().Perm())}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if _, err := io.CopyN(tw, f, h.Size); errors.Is(err, io.EOF) {
		return fmt.Errorf("shrank below %d bytes while it was read: publish it again", h.Size)
	} else if err != nil {
		return err
	}
	return nil
}
