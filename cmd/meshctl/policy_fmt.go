package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"meshd/agent/control"
	"meshd/policies"
)

const maxScoreFile = 1 << 20 // bytes; a longer one is refused when it is checked

func policyFmtCmd(a *app) *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "fmt DIR",
		Short: "Lay out the files of a score",
		Long: `Fmt gives the .hcl files of the folder DIR the canonical layout, and prints the names of those that it changed.
Comments stay. It needs no daemon. With --check it changes nothing, prints the same names, and exits 1 if there are
any. A file that does not parse is told with file, line and column; then nothing is changed.`,
		Example: `  meshctl policy fmt ./score
  meshctl policy fmt --check ./score`,
		Args: between(1, 1),
	}
	cmd.RunE = a.do(func(_ context.Context, args []string) error {
		texts, err := unformatted(args[0])
		if err != nil {
			return err
		}
		for _, f := range texts {
			if !check {
				if err := rewrite(f.path, f.text); err != nil {
					return err
				}
			}
			if _, err := fmt.Fprintln(a.stdout, escape(f.path)); err != nil {
				return err
			}
		}
		if check && len(texts) > 0 {
			return control.Errorf(control.Failed, "%s in %q to be laid out: meshctl policy fmt does it", count(len(texts), "file"), args[0])
		}
		return nil
	})
	cmd.Flags().BoolVar(&check, "check", false, "change nothing; exit 1 if a file is to be changed")
	return cmd
}

// A laidOut is a file and what it should be.
type laidOut struct {
	path string
	text []byte
}

// unformatted lists the score files of a folder that are not in the canonical layout.
func unformatted(dir string) ([]laidOut, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out, scores := []laidOut{}, 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".hcl") || hidden(e.Name()) || e.IsDir() {
			continue
		}
		scores++
		path := filepath.Join(dir, e.Name())
		if info, err := os.Stat(path); err != nil {
			return nil, err
		} else if info.Size() > maxScoreFile || !info.Mode().IsRegular() {
			return nil, control.Errorf(control.Failed, "%s: want a plain file of at most %d bytes", path, maxScoreFile)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		formatted, err := policies.Format(path, text)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(text, formatted) {
			out = append(out, laidOut{path, formatted})
		}
	}
	if scores == 0 {
		return nil, control.Errorf(control.Failed, "there is no .hcl file in %q: a score is a folder of them", dir)
	}
	return out, nil
}

// rewrite replaces a file's content whole, or leaves it as it was; links are followed and modes kept.
func rewrite(path string, text []byte) (err error) {
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".fmt-*")
	if err != nil {
		return err
	}
	defer func() {
		if rmErr := os.Remove(f.Name()); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close(), os.Chmod(f.Name(), info.Mode().Perm()))
	if err != nil {
		return fmt.Errorf("write %s anew: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
