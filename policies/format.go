package policies

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// Format returns one file of a score in the canonical layout. Comments and everything that is said stay as they
// are; only blank space changes. A file that does not parse is an error, Diagnostics.
func Format(name string, src []byte) ([]byte, error) {
	if _, err := writable(name, src); err != nil {
		return nil, err
	}
	for range maxFormats {
		next := hclwrite.Format(src)
		if bytes.Equal(next, src) {
			break
		}
		src = next
	}
	return src, nil
}

// maxFormats is how often the layout is made anew until it stays: once is enough for nearly all text.
const maxFormats = 4

// WithVersion returns the bundle with another version in its score block, and nothing else changed.
func WithVersion(files map[string][]byte, version string) (map[string][]byte, error) {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if !isScore(name) {
			continue
		}
		f, err := writable(name, files[name])
		if err != nil {
			return nil, err
		}
		for _, block := range f.Body().Blocks() {
			if block.Type() == "score" {
				block.Body().SetAttributeValue("version", cty.StringVal(version))
				out := maps.Clone(files)
				out[name] = f.Bytes()
				return out, nil
			}
		}
	}
	return nil, fmt.Errorf("the score has no score block to give version %s", version)
}

// writable guards and parses one file so that it can be written again with its comments.
func writable(name string, src []byte) (*hclwrite.File, error) {
	r := &report{}
	if guard(src, name, false, r) {
		f, diags := parseWritable(src, name)
		r.syntax(diags)
		if !diags.HasErrors() {
			return f, nil
		}
	}
	return nil, r.sorted().errors()
}

func parseWritable(src []byte, name string) (f *hclwrite.File, diags hcl.Diagnostics) {
	defer func() {
		if v := recover(); v != nil {
			f, diags = nil, parserBroke(name, v)
		}
	}()
	return hclwrite.ParseConfig(src, name, hcl.InitialPos)
}
