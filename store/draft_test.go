package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"meshd/store/artifact"
)

// sent has put what a stream would bring.
type sent struct {
	artifact.Entry
	body string
}

func drafted(t testing.TB, s *Store, list ...sent) (artifact.Ref, error) {
	t.Helper()
	d, err := s.Draft(t.Context(), func(put func(artifact.Entry, io.Reader) error) error {
		for _, e := range list {
			if err := put(e.Entry, strings.NewReader(e.body)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return artifact.Ref{}, err
	}
	defer d.Close()
	return s.Add(t.Context(), AddOptions{Draft: d})
}

func file(name, body string) sent {
	return sent{artifact.Entry{Name: name, Kind: artifact.File, Mode: 0o644}, body}
}

func link(name, to string) sent {
	return sent{artifact.Entry{Name: name, Kind: artifact.Symlink, Link: to}, ""}
}

func folder(name string) sent {
	return sent{artifact.Entry{Name: name, Kind: artifact.Dir, Mode: 0o755}, ""}
}

func TestADraftIsWhatAddMakesOfTheSameFolder(t *testing.T) {
	t.Parallel()
	big := string(noise(3<<20, 1))
	src := t.TempDir()
	write(t, src, map[string]string{"one": "1", "d/two": big, "d/.two.meshd-tmp": "half", ".p.meshd-0123456789ab/in/deep": "x"})
	must(t, os.Symlink(".p.meshd-0123456789ab", filepath.Join(src, "p")))
	must(t, os.Symlink("d/./two", filepath.Join(src, "l")))
	s := open(t, t.TempDir())
	want, err := s.Add(t.Context(), AddOptions{Path: src})
	must(t, err)
	got, err := drafted(t, open(t, t.TempDir()),
		link("p", ".p.meshd-0123456789ab"), file("one", "1"), link("l", "d/./two"), file("d/two", big), file("d/.two.meshd-tmp", "half"),
		file(".p.meshd-0123456789ab/in/deep", "x"), folder(".p.meshd-0123456789ab"), folder(".p.meshd-0123456789ab/in"),
	)
	must(t, err)
	if got.Tree != want.Tree || got.SizeBytes != want.SizeBytes {
		m, err := s.Manifest(want.Root)
		must(t, err)
		t.Errorf("a draft gave tree %s of %d bytes, Add %s of %d: %s", got.Tree.Short(), got.SizeBytes, want.Tree.Short(), want.SizeBytes, names(m.Entries))
	}
}

func TestADraftRefusesByName(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	for want, list := range map[string][]sent{
		"leads out":      {link("l", "../x")},
		"is relative":    {link("l", "/etc")},
		"twice":          {file("a", ""), file("a", "")},
		"no folder":      {link("p", ".p.meshd-tmp")},
		"one placed":     {link("p", ".p.meshd-tmp"), link("q", ".p.meshd-tmp")},
		"is no folder":   {file("a", ""), file("a/b", "")},
		`part ".."`:      {file("a/../b", "")},
		"differ only in": {file("a", ""), file("A", "")},
	} {
		if _, err := drafted(t, s, list...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v gave %v, want an error with %q", list, err, want)
		}
	}
	if roots, err := s.Roots(); err != nil || len(roots) > 0 {
		t.Errorf("%d artifacts are held, %v", len(roots), err)
	}
}

// Its bytes lie in packs, some rows are committed, and no root reaches them before Add.
func TestADraftIsSparedUntilItIsClosed(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	body := noise(commitBytes+(8<<20), 2)
	d, err := s.Draft(t.Context(), func(put func(artifact.Entry, io.Reader) error) error {
		return put(artifact.Entry{Kind: artifact.File, Mode: 0o600}, bytes.NewReader(body))
	})
	must(t, err)
	for range 4 {
		must(t, s.Collect(t.Context(), func(artifact.Digest) bool { return false }))
	}
	ref, err := s.Add(t.Context(), AddOptions{Draft: d})
	must(t, err)
	d.Close()
	out := filepath.Join(t.TempDir(), "out")
	must(t, s.Place(t.Context(), ref.Root, PlaceOptions{Path: out}))
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, body) {
		t.Errorf("placed %d bytes, %v", len(got), err)
	}
}

// What a stream that broke off left behind goes with the next collections.
func TestADraftThatBreaksOffLeavesNothing(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir())
	broken := errors.New("cut short")
	_, err := s.Draft(t.Context(), func(put func(artifact.Entry, io.Reader) error) error {
		return errors.Join(put(artifact.Entry{Kind: artifact.File, Mode: 0o600}, bytes.NewReader(noise(commitBytes+(8<<20), 3))), broken)
	})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	collect(t, s, nil, 3)
	if packs, _, err := s.SizeBytes(); err != nil || packs > retireBytes {
		t.Errorf("packs hold %d bytes, %v", packs, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Draft(ctx, func(put func(artifact.Entry, io.Reader) error) error {
		return put(artifact.Entry{}, strings.NewReader("x"))
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}
