//go:build unix

package swarm

import "golang.org/x/sys/unix"

// allocate returns n bytes of the system's, all zero, which free gives back to it.
func allocate(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
}

// free gives back what allocate returned, as it was. Whoever looks at it later ends the program.
func free(b []byte) {
	if err := unix.Munmap(b); err != nil {
		panic("free a buffer: " + err.Error()) // it was freed before, or is not one
	}
}
