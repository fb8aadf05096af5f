package promise

import (
	"archive/tar"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"meshd/policies"
)

// imageFiles are what an image has besides programs: who is root, and folders to write in.
var imageFiles = []struct {
	name, text string
	mode       int64
}{
	{"etc/", "", 0o755},
	{"etc/passwd", "root:x:0:0:root:/root:/\nnobody:x:65534:65534:nobody:/:/\n", 0o644},
	{"etc/group", "root:x:0:\nnobody:x:65534:\n", 0o644},
	{"root/", "", 0o700},
	{"tmp/", "", 0o1777},
	{policies.GuestHome[1:] + "/", "", 0o700},
}

// packImage writes the whole file system of an image that holds these programs and nothing else.
func packImage(w io.Writer, programs []string) error {
	t := tar.NewWriter(w)
	for _, f := range imageFiles {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.text)), Typeflag: tar.TypeReg}
		if h.Name[len(h.Name)-1] == '/' {
			h.Typeflag = tar.TypeDir
		}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.WriteString(t, f.text); err != nil {
			return err
		}
	}
	for _, p := range programs {
		if err := packProgram(t, p); err != nil {
			return err
		}
	}
	return t.Close()
}

func packProgram(t *tar.Writer, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: filepath.Base(path), Mode: 0o755, Size: info.Size(), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}

// checkStatic refuses a program that would not start in an image that has nothing else.
func checkStatic(path string) error {
	f, err := elf.Open(path)
	if bad := new(elf.FormatError); errors.As(err, &bad) || errors.Is(err, io.EOF) {
		return fmt.Errorf("%s is no Linux program: make the image from a meshd built with GOOS=linux CGO_ENABLED=0", path)
	} else if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s needs libraries of this machine, which an image FROM scratch has not: build it with CGO_ENABLED=0", path)
		}
	}
	return nil
}
