package policies

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Compile reads a bundle: names are relative, with slashes; those that end in .hcl and lie in no folder
// are the score, all others are data for read, template and tree. The bytes are not kept and not changed.
//
// The error is Diagnostics, errors only. A program that comes back has passed every check of Vet.
func Compile(files map[string][]byte) (*Program, error) {
	p, found := compile(files)
	if found.HasErrors() {
		return nil, found.errors()
	}
	return p, nil
}

// Vet tells everything that is wrong or doubtful with a bundle, sorted by place.
func Vet(files map[string][]byte) Diagnostics {
	_, found := compile(files)
	return found
}

func compile(files map[string][]byte) (*Program, Diagnostics) {
	b := newBinder(files)
	bodies := b.read(files)
	if b.r.found.HasErrors() {
		return nil, b.r.sorted()
	}
	b.bind(bodies)
	if b.r.found.HasErrors() {
		return nil, b.r.sorted()
	}
	b.link()
	if b.r.found.HasErrors() {
		return nil, b.r.sorted()
	}
	b.check()
	return b.p, b.r.sorted()
}

// read guards and parses the score files of a bundle, in the order of their names.
func (b *binder) read(files map[string][]byte) []*hclsyntax.Body {
	total, scores := 0, 0
	for _, src := range files {
		total += len(src)
	}
	if total > maxBundleBytes {
		b.r.errorf(hcl.Range{}, "", "bundle has %d bytes, more than the limit of %d", total, maxBundleBytes)
		return nil
	}
	if len(files) > maxBundleFiles {
		b.r.errorf(hcl.Range{}, "", "bundle has %d files, more than the limit of %d", len(files), maxBundleFiles)
		return nil
	}
	var bodies []*hclsyntax.Body
	for _, name := range slices.Sorted(maps.Keys(files)) {
		src := files[name]
		if !isScore(name) {
			b.data(name, src)
			continue
		}
		scores++
		start := hcl.Pos{Line: 1, Column: 1}
		if strings.HasSuffix(name, ".test.hcl") {
			b.r.errorf(hcl.Range{Filename: name, Start: start}, "take the file out of the bundle",
				"test file %q is not yet supported by this version", name)
			continue
		}
		if !guard(src, name, false, &b.r) {
			continue
		}
		body, diags := parseConfig(src, name)
		b.r.syntax(diags)
		if body != nil && !diags.HasErrors() {
			b.sources[name] = src
			bodies = append(bodies, body)
		}
	}
	b.countRoles(bodies)
	if scores == 0 {
		b.r.errorf(hcl.Range{}, `write one file such as score.hcl`, "bundle has no .hcl file")
	}
	return bodies
}

// countRoles refuses more roles than each node could look at whenever a fact changes.
func (b *binder) countRoles(bodies []*hclsyntax.Body) {
	n := 0
	for _, body := range bodies {
		for _, blk := range body.Blocks {
			if blk.Type != "role" {
				continue
			}
			if n++; n > maxRoles {
				b.r.errorf(blk.TypeRange, "let one role follow from a tag in place of many from names",
					"score has more than the limit of %d roles", maxRoles)
				return
			}
		}
	}
}

func (b *binder) data(name string, src []byte) {
	if len(src) > maxFileBytes {
		b.r.errorf(hcl.Range{Filename: name, Start: hcl.Pos{Line: 1, Column: 1}}, "publish it as an artifact",
			"file has %d bytes, more than the limit of %d", len(src), maxFileBytes)
		return
	}
	b.p.data[name] = slices.Clone(src)
}

// isScore reports whether a file of the bundle is score text.
func isScore(name string) bool {
	return strings.HasSuffix(name, ".hcl") && !strings.Contains(name, "/")
}

// parseConfig parses guarded text. A panic in the parser is the parser's, not ours: it becomes an error.
func parseConfig(src []byte, name string) (body *hclsyntax.Body, diags hcl.Diagnostics) {
	defer func() {
		if v := recover(); v != nil {
			body, diags = nil, parserBroke(name, v)
		}
	}()
	f, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	if f == nil {
		return nil, diags
	}
	return f.Body.(*hclsyntax.Body), diags
}

// parseTemplate parses a guarded template file.
func parseTemplate(src []byte, name string) (x hclsyntax.Expression, diags hcl.Diagnostics) {
	defer func() {
		if v := recover(); v != nil {
			x, diags = nil, parserBroke(name, v)
		}
	}()
	return hclsyntax.ParseTemplate(src, name, hcl.InitialPos)
}

func parserBroke(name string, v any) hcl.Diagnostics {
	return hcl.Diagnostics{{
		Severity: hcl.DiagError, Summary: fmt.Sprintf("the parser cannot read this file: %v", v),
		Subject: &hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos},
	}}
}

// bundleHash is the identity of a score: SHA-256 over length, name, length, bytes of each file by name.
func bundleHash(files map[string][]byte) string {
	h := sha256.New()
	var n [8]byte
	put := func(b []byte) {
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		put([]byte(name))
		put(files[name])
	}
	return hex.EncodeToString(h.Sum(nil))
}
