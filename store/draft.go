package store

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"meshd/store/artifact"
)

// A Draft is the content of an artifact that came as a stream: its bytes are in packs, and nothing refers to them
// before Add is called with it. It belongs to one goroutine, and Collect spares it until Close.
type Draft struct {
	w       *writer
	entries []artifact.Entry
}

// Draft keeps what content hands to put, one file, folder or link after the other, in any order and each once: of an
// Entry it is told the name, kind, mode and link, of a file body to its end. A single file has the empty name. Folders
// that only a name tells of get mode 0755. What Add leaves out of a folder is left out, and the folder behind the link
// of a placed tree takes the name of the link. Memory is bounded by the number of entries, not by their bytes.
func (s *Store) Draft(ctx context.Context, content func(put func(e artifact.Entry, body io.Reader) error) error) (*Draft, error) {
	d := &Draft{w: s.newWriter()}
	var splitter artifact.Splitter
	err := content(func(e artifact.Entry, body io.Reader) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(d.entries) >= maxItems {
			return errTooMany
		}
		var err error
		switch e.Kind {
		case artifact.Symlink:
			if e.Link, err = draftLink(e); err != nil {
				return err
			}
		case artifact.File:
			err = splitter.Split(body, func(b []byte) error {
				c := artifact.SumUp(b)
				e.Chunks = append(e.Chunks, artifact.Chunk{ID: c.ID, SizeBytes: uint32(len(b))})
				e.SizeBytes += int64(len(b))
				return cmp.Or(ctx.Err(), d.w.add(c))
			})
		}
		d.entries = append(d.entries, e)
		return err
	})
	if err == nil {
		d.entries, err = settle(d.entries)
	}
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("keep what is sent: %w", err)
	}
	return d, nil
}

// Close gives up what was not added. It may be called again.
func (d *Draft) Close() {
	d.w.close()
	d.entries = nil // a large file has many chunks, and who closes may live on for long
}

func draftLink(e artifact.Entry) (string, error) {
	if isHidden(e.Link) {
		return e.Link, nil // of a placed tree: settle looks at it
	}
	return shortLink(e.Name, e.Link)
}

// settle gives entries the names that they have in an artifact (see Draft).
func settle(entries []artifact.Entry) ([]artifact.Entry, error) {
	links := map[string]string{} // hidden folder to the link that leads there
	for _, e := range entries {
		if e.Kind == artifact.Symlink && isHidden(e.Link) {
			folder := path.Join(path.Dir(e.Name), e.Link)
			if other, twice := links[folder]; twice {
				return nil, fmt.Errorf("%q and %q lead to one placed tree: leave one of them out", other, e.Name)
			}
			links[folder] = path.Base(e.Name)
		}
	}
	var out []artifact.Entry
	seen := map[string]bool{}
	for _, e := range entries {
		if e.Kind == artifact.Symlink && isHidden(e.Link) {
			continue // the folder that it leads to stands in its place
		}
		name, kept := settledName(e.Name, links)
		if !kept {
			continue
		}
		e.Name = name
		seen[name] = true
		out = append(out, e)
	}
	if len(out) == 1 && out[0].Name == "" {
		return out, nil
	}
	for folder := range links {
		name, _ := settledName(folder, links)
		if i := slices.IndexFunc(out, func(e artifact.Entry) bool { return e.Name == name }); i >= 0 && out[i].Kind != artifact.Dir || i < 0 {
			return nil, fmt.Errorf("%q leads to %q, which is no folder: place the artifact again", name, folder)
		}
	}
	for _, e := range out {
		for dir := path.Dir(e.Name); dir != "." && !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			out = append(out, artifact.Entry{Name: dir, Kind: artifact.Dir, Mode: 0o755})
		}
	}
	return out, nil
}

// settledName is a name with links in place of hidden folders; what else is hidden is not kept.
func settledName(name string, links map[string]string) (settled string, kept bool) {
	if !strings.Contains(name, ".meshd-") {
		return name, true
	}
	was := ""
	for part := range strings.SplitSeq(name, "/") {
		was = path.Join(was, part)
		if isHidden(part) {
			if part, kept = links[was]; !kept {
				return "", false
			}
		}
		settled = path.Join(settled, part)
	}
	return settled, true
}
