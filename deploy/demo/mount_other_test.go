//go:build !linux

package demo

import "testing"

// mountSmall skips the test: only Linux has the file system that it fills.
func mountSmall(t *testing.T, _ string, _ int) {
	t.Helper()
	t.Skip("a small file system to fill is mounted on Linux alone")
}
