package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra/doc"
)

//go:generate go test -run TestManualPagesAreCurrent -update .

// manDir holds the pages that packages install. They are made from the commands' own help.
const manDir = "../../deploy/man"

func TestManualPagesAreCurrent(t *testing.T) {
	dir := t.TempDir()
	root := newRoot(&app{})
	root.DisableAutoGenTag = true // a date would make each day's pages differ
	root.InitDefaultCompletionCmd()
	head := &doc.GenManHeader{Title: "MESHCTL", Section: "1", Source: "meshd", Manual: "meshctl", Date: new(time.Time)}
	if err := doc.GenManTree(root, head, dir); err != nil {
		t.Fatal(err)
	}
	if *update {
		old, err := filepath.Glob(filepath.Join(manDir, "meshctl*.1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range old {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(manDir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(manDir, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
	}
	want, got := pages(t, dir), pages(t, manDir)
	if len(want) < 30 || want["meshctl.1"] == "" {
		t.Fatalf("%d pages were made", len(want))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the pages in deploy/man are not those of this program: go generate ./cmd/meshctl makes them anew\n%s", diff)
	}
}

// pages reads a folder of manual pages.
func pages(t *testing.T, dir string) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "meshctl*.1"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(path)] = string(bytes.TrimSpace(b))
	}
	return out
}
