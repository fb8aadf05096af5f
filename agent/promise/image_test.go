//go:build linux

package promise

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImageHoldsTheProgramsAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "meshd"), filepath.Join(dir, "meshctl")
	write(t, a, "first")
	write(t, b, "second")
	var out bytes.Buffer
	if err := packImage(&out, []string{a, b}); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = string(text)
		if program := h.Name == "meshd" || h.Name == "meshctl"; program != (h.Mode == 0o755 && h.Typeflag == tar.TypeReg) {
			t.Errorf("%s has mode %o", h.Name, h.Mode)
		}
	}
	if len(got) != 8 || got["meshd"] != "first" || got["meshctl"] != "second" {
		t.Errorf("the image holds %q", got)
	}
	if err := packImage(io.Discard, []string{filepath.Join(dir, "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that is not there: %v", err)
	}
}

func TestImageWantsAStaticProgram(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	write(t, script, "#!/bin/sh\n")
	for path, want := range map[string]string{script: "no Linux program", "/bin/sh": "CGO_ENABLED=0"} {
		if err := checkStatic(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
