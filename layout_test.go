package meshd

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// edges is the whole import graph of the module (SPEC 3, law 1): a package may import what its line
// names and nothing else of ours. A new edge is a deliberate change here and in ARCHITECTURE.md.
// Tests may import more, except that no test makes a cycle.
var edges = map[string][]string{
	"policies":       {},
	"mesh/id":        {},
	"mesh/wire":      {},
	"store/artifact": {"mesh/id"},
	"roles":          {"policies"},
	"mesh/trust":     {"mesh/id", "mesh/wire"},
	"mesh/link":      {"mesh/id", "mesh/wire", "mesh/trust"},
	"mesh/ring":      {"mesh/id", "mesh/wire", "mesh/trust", "mesh/link", "store/artifact"},
	"mesh/catalog":   {"mesh/id", "mesh/wire", "mesh/trust", "mesh/link", "store/artifact"},
	"mesh/swarm":     {"mesh/id", "mesh/wire", "mesh/trust", "mesh/link", "store/artifact"},
	"mesh/bundle":    {"mesh/wire", "store/artifact"},
	"mesh": {
		"mesh/id", "mesh/wire", "mesh/trust", "mesh/link", "mesh/ring", "mesh/catalog", "mesh/swarm",
		"store/artifact",
	},
	"store":         {"mesh/id", "store/artifact"},
	"agent/promise": {"policies"},
	"agent/control": {},
	"agent/web":     {"agent/control"},
	"agent": {
		"mesh", "mesh/id", "mesh/trust", "mesh/link", "mesh/catalog", "mesh/bundle", "store", "store/artifact", "roles", "policies",
		"agent/promise", "agent/control",
	},
	"policies/examples": {},
	"deploy/demo":       {"agent/control", "agent/promise", "policies/examples"},
	"deploy/lab":        {"deploy/demo", "agent/control", "policies/examples"},
	"cmd/meshctl":       {"agent/control", "policies", "roles"},
	"cmd/meshd":         {"agent", "agent/control", "agent/promise", "agent/web", "mesh/id", "mesh/link", "deploy/demo"},
}

func TestImportsFollowTheLayout(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		allowed, known := edges[pkg]
		if !known {
			t.Errorf("%s: package %q has no room in the layout (layout_test.go, ARCHITECTURE.md)", path, pkg)
			return nil
		}
		seen[pkg] = true
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			target, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), "meshd/")
			if ours && !slices.Contains(allowed, target) {
				t.Errorf("%s imports %s, which law 1 does not allow for %s", path, target, pkg)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range edges {
		if !seen[pkg] {
			t.Errorf("package %s is in the layout and has no code", pkg)
		}
	}
}
