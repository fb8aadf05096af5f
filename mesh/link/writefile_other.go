//go:build !unix

package link

import "os"

// writeFile replaces path by b: whoever reads it finds the old bytes or the new. It is not synced here.
func writeFile(path string, b []byte) error {
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
