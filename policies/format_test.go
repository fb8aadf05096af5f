package policies

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

func TestFormatLaysOutAndKeepsComments(t *testing.T) {
	const messy = "# why\nscore   \"x\" { # here\nversion=\"1.0.0\"\n  language   = 1 // too\n}\n"
	const want = "# why\nscore \"x\" { # here\n  version  = \"1.0.0\"\n  language = 1 // too\n}\n"
	got, err := Format("score.hcl", []byte(messy))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	var ds Diagnostics
	if _, err := Format("score.hcl", []byte("score {{")); !errors.As(err, &ds) || ds[0].File != "score.hcl" {
		t.Errorf("of what does not parse: %v", err)
	}
	if _, err := Format("score.hcl", []byte(strings.Repeat("[", 100_000))); err == nil {
		t.Error("what the parser does not survive was formatted")
	}
}

func TestExamplesAreFormattedAndFormatIsStable(t *testing.T) {
	paths, err := filepath.Glob("examples/*/*.hcl")
	if err != nil || len(paths) == 0 {
		t.Fatal(err, "no examples")
	}
	for _, path := range paths {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Format(path, src)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(src), string(got)); diff != "" {
			t.Errorf("%s is not in the layout of meshctl policy fmt:\n%s", path, diff)
		}
	}
}

// What is said never changes: only the blank space between.
func FuzzFormat(f *testing.F) {
	f.Add("score \"x\" {\nversion=\"1\" # a\n}\n")
	f.Add("a = <<-X\n  b ${c}\n  X\n/* d */ e = [1,\n2,]\n")
	f.Add("a=[for x in y:x if x!=1]\nb=x?-1:!y\n")
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return
		}
		got, err := Format("x.hcl", []byte(text))
		if err != nil {
			return
		}
		if before, after := said([]byte(text)), said(got); !slices.Equal(before, after) {
			t.Errorf("%q became %q", text, got)
		}
	})
}

func said(src []byte) []string {
	tokens, _ := hclsyntax.LexConfig(src, "x", hcl.InitialPos)
	var out []string
	for _, tok := range tokens {
		out = append(out, strings.Join(strings.Fields(string(tok.Bytes)), " "))
	}
	return out
}

func TestWithVersionChangesTheVersionAlone(t *testing.T) {
	files := map[string][]byte{
		"a.hcl":     []byte("# nothing here\n"),
		"score.hcl": []byte("score \"x\" {\n  version = \"1.0.0\" # old\n}\n"),
		"data.txt":  []byte("score {"),
	}
	got, err := WithVersion(files, "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"a.hcl": files["a.hcl"], "data.txt": files["data.txt"], "score.hcl": []byte("score \"x\" {\n  version = \"1.2.3\" # old\n}\n")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if string(files["score.hcl"]) == string(got["score.hcl"]) {
		t.Error("the bundle that was given was changed")
	}
	if _, err := WithVersion(map[string][]byte{"a.hcl": nil}, "1.0.0"); err == nil {
		t.Error("a bundle with no score block got a version")
	}
}
