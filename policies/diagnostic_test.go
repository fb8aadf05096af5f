package policies

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// Each archive of testdata/diagnostics holds a bundle and, as "want", what the check tells about it.
// With MESHD_UPDATE=1 in the environment the test writes what it got, to be read before it is kept.
func TestDiagnosticsAreAsWritten(t *testing.T) {
	archives, err := filepath.Glob("testdata/diagnostics/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, name := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files, want, place := map[string][]byte{}, "", -1
			for i, f := range ar.Files {
				if f.Name == "want" {
					want, place = string(f.Data), i
					continue
				}
				files[f.Name] = f.Data
			}
			got := Vet(files).Error() + "\n"
			if os.Getenv("MESHD_UPDATE") != "" {
				ar.Files[place].Data = []byte(got)
				if err := os.WriteFile(name, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}
