//go:build !unix

package demo

import "os"

func endings() []os.Signal { return []os.Signal{os.Interrupt} }

func terminate(pid int) error { return kill(pid) }

func kill(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}
