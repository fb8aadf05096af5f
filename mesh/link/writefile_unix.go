//go:build unix

package link

import "github.com/google/renameio/v2"

// writeFile replaces path by b: whoever reads it finds the old bytes or the new.
func writeFile(path string, b []byte) error { return renameio.WriteFile(path, b, 0o600) }
