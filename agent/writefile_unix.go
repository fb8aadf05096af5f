//go:build unix

package agent

import "github.com/google/renameio/v2"

// writeFile replaces a file of this node's own, whole and durable.
func writeFile(path string, b []byte) error { return renameio.WriteFile(path, b, 0o600) }
