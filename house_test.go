package meshd

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"meshd/policies"
)

// maxLines is how long a file may be; longFiles may be longer, each for its reason.
const maxLines = 500

var longFiles = map[string]string{}

// files calls look for every file of the repository with one of these endings, test data aside.
func files(t *testing.T, look func(path string, text []byte), endings ...string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		for _, end := range endings {
			if !d.IsDir() && strings.HasSuffix(path, end) {
				text, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				look(filepath.ToSlash(path), text)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// sources calls look for every Go file, parsed with its comments.
func sources(t *testing.T, look func(path string, fset *token.FileSet, f *ast.File)) {
	t.Helper()
	files(t, func(path string, text []byte) {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		look(path, fset, f)
	}, ".go")
}

func TestFilesAreShort(t *testing.T) {
	long := map[string]bool{}
	files(t, func(path string, text []byte) {
		if n := bytes.Count(text, []byte("\n")); n >= maxLines {
			long[path] = true
			if longFiles[path] == "" {
				t.Errorf("%s has %d lines, under %d are wanted: split it, or give longFiles a reason", path, n, maxLines)
			}
		}
	}, ".go")
	for path := range longFiles {
		if !long[path] {
			t.Errorf("%s is in longFiles and not long any more: take it out", path)
		}
	}
}

func TestPackagesSayWhatTheyAre(t *testing.T) {
	said := map[string]bool{}
	sources(t, func(path string, _ *token.FileSet, f *ast.File) {
		if !strings.HasSuffix(path, "_test.go") {
			dir := filepath.ToSlash(filepath.Dir(path))
			said[dir] = said[dir] || f.Doc != nil
		}
	})
	for dir, ok := range said {
		if !ok {
			t.Errorf("package %s has no package comment", dir)
		}
	}
}

// TestSourceKeepsTheHouseRules looks at syntax alone, so that each rule is a few lines.
func TestSourceKeepsTheHouseRules(t *testing.T) {
	sources(t, func(path string, fset *token.FileSet, f *ast.File) {
		test := strings.HasSuffix(path, "_test.go")
		at := func(n ast.Node) string { return fmt.Sprintf("%s:%d", path, fset.Position(n.Pos()).Line) }
		var unverified []ast.Node
		verified := false
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					t.Errorf("%s: init() runs before anybody asked: let a constructor do it", at(n))
				}
			case *ast.SelectorExpr:
				if of, ok := n.X.(*ast.Ident); ok && !test {
					switch what := of.Name + "." + n.Sel.Name; what {
					case "time.Sleep":
						t.Errorf("%s: %s: wait for the event, with a limit", at(n), what)
					case "http.DefaultClient", "http.DefaultServeMux", "http.DefaultTransport":
						t.Errorf("%s: %s belongs to everybody: make one", at(n), what)
					}
				}
			case *ast.KeyValueExpr:
				key, _ := n.Key.(*ast.Ident)
				switch {
				case key == nil:
				case key.Name == "VerifyPeerCertificate":
					t.Errorf("%s: VerifyPeerCertificate is not called for resumed sessions: use VerifyConnection", at(n))
				case key.Name == "InsecureSkipVerify" && !test:
					unverified = append(unverified, n)
				case key.Name == "VerifyConnection":
					verified = true
				}
			case *ast.ValueSpec:
				if n.Type != nil && !test && holdsAny(n.Type) {
					t.Errorf("%s: a variable of any type: bytes are decoded into types with names", at(n))
				}
			}
			return true
		})
		for _, n := range unverified {
			if !verified {
				t.Errorf("%s: InsecureSkipVerify with no VerifyConnection beside it: nobody verifies", at(n))
			}
		}
	})
}

// holdsAny reports whether a type is any, interface{}, or a map, slice or pointer of them.
func holdsAny(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "any"
	case *ast.InterfaceType:
		return len(e.Methods.List) == 0
	case *ast.MapType:
		return holdsAny(e.Value)
	case *ast.ArrayType:
		return holdsAny(e.Elt)
	case *ast.StarExpr:
		return holdsAny(e.X)
	}
	return false
}

// Words that mean "not finished", in text that people read.
var unfinished = regexp.MustCompile(`\b(TODO|FIXME|XXX|HACK|TBD)\b|@@[A-Z]`)

func TestNothingIsLeftForLater(t *testing.T) {
	files(t, func(path string, text []byte) {
		if path == "house_test.go" {
			return
		}
		for i, line := range strings.Split(string(text), "\n") {
			if found := unfinished.FindString(line); found != "" {
				t.Errorf("%s:%d: %s: do it, or say plainly what is not supported", path, i+1, found)
			}
		}
	}, ".go", ".md", ".hcl", ".sh")
}

var markdownLink = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)

func TestLinksOfDocumentsLeadSomewhere(t *testing.T) {
	files(t, func(path string, text []byte) {
		for _, m := range markdownLink.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
	}, ".md")
}

func TestExamplesCompileAndSayWhy(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	scores := 0
	files(t, func(path string, text []byte) {
		if !strings.HasPrefix(path, "policies/examples/") {
			return
		}
		scores++
		if !bytes.HasPrefix(text, []byte("# ")) {
			t.Errorf("%s does not say in its first line what it is for", path)
		}
		if _, err := policies.Compile(map[string][]byte{filepath.Base(path): text}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if !bytes.Contains(readme, []byte(path)) {
			t.Errorf("README.md does not link to %s", path)
		}
	}, ".hcl")
	if scores < 3 {
		t.Errorf("%d example scores found, want the 3 that README.md speaks of, or more", scores)
	}
}

// TestArchitectureNamesEveryPackageAndDependency keeps the page as true as a test can.
func TestArchitectureNamesEveryPackageAndDependency(t *testing.T) {
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range edges {
		if !bytes.Contains(page, []byte("`"+pkg+"`")) {
			t.Errorf("ARCHITECTURE.md has no row for package %s", pkg)
		}
	}
	sources(t, func(path string, _ *token.FileSet, f *ast.File) {
		for _, spec := range f.Imports {
			parts := strings.Split(strings.Trim(spec.Path.Value, `"`), "/")
			if !strings.Contains(parts[0], ".") {
				continue // of the standard library, or ours
			}
			module := parts[:2] // go.etcd.io/bbolt
			if len(parts) > 2 && (parts[0] == "github.com" || parts[0] == "golang.org") {
				module = parts[:3]
			}
			if name := module[len(module)-1]; !bytes.Contains(page, []byte(name)) {
				t.Errorf("%s imports %s, for which ARCHITECTURE.md gives no reason", path, strings.Join(module, "/"))
			}
		}
	})
}
