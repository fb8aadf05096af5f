package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A disk may fill in the middle of an init: what it left must not keep the next one from working.
func TestAnInitThatFailedLeavesNothingOfItself(t *testing.T) {
	dir := t.TempDir()
	inTheWay := filepath.Join(dir, "node.crt") // the last file that is written
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := InitNode(dir, "host", nil, time.Now()); err == nil {
		t.Fatal("an init that could not write the certificate is said to have worked")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left %v (%v), want what was there before", left, err)
	}
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	if _, err := InitNode(dir, "host", nil, time.Now()); err != nil {
		t.Error(err)
	}
	if _, err := LoadNode(dir); err != nil {
		t.Error(err)
	}
}
