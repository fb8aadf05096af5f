//go:build !unix

package agent

import "os"

// writeFile replaces a file of this node's own; this platform can't do it in one step.
func writeFile(path string, b []byte) error { return os.WriteFile(path, b, 0o600) }
