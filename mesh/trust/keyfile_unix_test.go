//go:build unix

package trust

import (
	"path/filepath"
	"syscall"
	"testing"
)

// A pipe in place of a file is refused at once: to open it would wait for a writer for ever.
func TestPipeIsNoFile(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{keyFile, charterName} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadIdentity(dir); err == nil {
		t.Error("a pipe was read as a key")
	}
	if _, err := LoadCharter(dir); err == nil {
		t.Error("a pipe was read as a charter")
	}
}
